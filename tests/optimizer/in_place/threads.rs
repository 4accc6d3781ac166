//! Tensors on other threads while a step runs. Burn keeps one stream of pending operations a thread.

use super::super::Target;
use super::super::nets::{Mlp, parameters, same, text};
use super::held::equal;
use super::{Call, check_in_place, stepped, take};
use burn::module::Module;
use burn::tensor::Tensor;
use std::sync::mpsc::channel;

/// What another thread does with a clone of the model. It returns a tensor that it has not evaluated.
type Work = fn(Mlp) -> (Tensor<2>, Option<Mlp>);

const WORK: &[(&str, Work)] = &[
    ("a pending product, and the clone", |model| (model.a.weight.val().inner() * 2.0, Some(model))),
    ("a pending product", |model| (model.a.weight.val().inner() * 2.0, None)),
    ("a pending view", |model| (model.a.weight.val().inner().narrow(0, 1, 2), None)),
    ("the value", |model| (model.a.weight.val().inner(), None)),
    ("a forward pass", |model| {
        let x = Tensor::<2>::ones([4, 5], &model.a.weight.device().inner());
        (model.valid().a.forward(x), None)
    }),
];

/// Another thread keeps tensors of the model while steps run, and reads them afterwards.
pub(crate) fn elsewhere(target: &Target) -> Result<(), String> {
    let panicked = |_| "a thread panicked".to_owned();
    let read = |tensor: Tensor<2>| {
        tensor.into_data().try_to_vec::<f32>().map_err(|error| format!("{error:?}"))
    };
    for (what, work) in WORK {
        let want = read(work(stepped(target)?.1).0)?;
        let (mut optim, mut model) = stepped(target)?;
        let (started, wait_started) = channel();
        let (finish, wait_finish) = channel::<()>();
        let clone = model.clone();
        let work = *work;
        let thread = std::thread::spawn(move || {
            let (tensor, clone) = work(clone);
            let _ = started.send(());
            let _ = wait_finish.recv();
            drop(clone);
            read(tensor)
        });
        wait_started.recv().map_err(text)?;
        for batch in 2..6 {
            model = take(&mut optim, Call::Step, model, batch)?;
        }
        finish.send(()).map_err(text)?;
        let got = thread.join().map_err(panicked)??;
        equal(what, &got, &want)?;
        // Two more steps, so that both arenas were written since.
        for batch in 6..8 {
            model = take(&mut optim, Call::Step, model, batch)?;
            check_in_place(what, &optim, true)?;
        }
    }
    Ok(())
}

/// A validation thread reads clones while the training continues. Ascents and descents on different threads.
pub(crate) fn validation(target: &Target) -> Result<(), String> {
    let (mut optim, mut model) = stepped(target)?;
    let (send, receive) = channel::<(Mlp, Vec<(String, Vec<f32>)>)>();
    let validator = std::thread::spawn(move || {
        let mut checked = 0;
        while let Ok((clone, want)) = receive.recv() {
            let clone = clone.valid();
            for _ in 0..3 {
                same("a clone on the validation thread", &clone, &want)?;
            }
            checked += 1;
        }
        Ok::<_, String>(checked)
    });
    for batch in 2..30 {
        if batch % 3 == 0 {
            send.send((model.clone(), parameters(&model))).map_err(text)?;
        }
        model = take(&mut optim, Call::Phases, model, batch)?;
    }
    drop(send);
    let checked = validator.join().map_err(|_| "the validation thread panicked".to_owned())??;
    if checked == 9 { moved(target) } else { Err(format!("{checked} clones were checked")) }
}

/// The two phases of each step run on two threads that live on, and every third step on one thread.
fn moved(target: &Target) -> Result<(), String> {
    let (mut local, mut want) = stepped(target)?;
    let (mut optim, mut model) = stepped(target)?;
    let panicked = |_| "a thread panicked".to_owned();
    for batch in 2..8 {
        want = take(&mut local, Call::Phases, want, batch)?;
        let first = super::grads(&model.exact(batch), &model);
        let ascended = optim.ascend(model, first).map_err(text)?;
        model = if batch % 3 == 0 {
            let second = super::grads(&ascended.model().exact(batch), ascended.model());
            optim.descend(0.01, ascended, second).map_err(text)?
        } else {
            let descend = || {
                let second = super::grads(&ascended.model().exact(batch), ascended.model());
                optim.descend(0.01, ascended, second)
            };
            let descended = std::thread::scope(|scope| scope.spawn(descend).join());
            descended.map_err(panicked)?.map_err(text)?
        };
        same("descents on other threads", &model, &parameters(&want))?;
    }
    // The ascent is restored on another thread.
    let before = parameters(&model);
    let first = super::grads(&model.exact(9), &model);
    let ascended = optim.ascend(model, first).map_err(text)?;
    let restored = std::thread::scope(|scope| scope.spawn(|| ascended.restore()).join());
    same("restored on another thread", &restored.map_err(panicked)?, &before)
}
