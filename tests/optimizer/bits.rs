//! Results that must be equal bit for bit.

use super::Target;
use super::nets::{ConvNet, Mlp, config, data, fork, grads, parameters, same};
use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use burn_wsam::{AdamWBaseConfig, Wsam, WsamConfig};

fn adamw() -> WsamConfig {
    WsamConfig::new(AdamWBaseConfig::new().into())
}

fn two_calls(optim: &mut Wsam, model: Mlp, batch: u64) -> Result<Mlp, String> {
    let first = grads(&model.exact(batch), &model);
    let ascended = optim.ascend(model, first).map_err(|error| error.to_string())?;
    let second = grads(&ascended.model().exact(batch), ascended.model());
    optim.descend(0.01, ascended, second).map_err(|error| error.to_string())
}

pub(crate) fn closure_and_calls(target: &Target) -> Result<(), String> {
    let (mut by_closure, mut by_calls) = (target.init(&adamw())?, target.init(&adamw())?);
    let mut one = Mlp::new(&target.device);
    let mut other = one.clone();
    for batch in 0..3 {
        let step = by_closure.step(0.01, one, |model| model.exact(batch));
        (one, _) = step.map_err(|error| error.to_string())?;
        other = two_calls(&mut by_calls, other, batch)?;
        same("ascend and descend", &other, &parameters(&one))?;
    }
    Ok(())
}

/// After `set_rho` and `set_gamma`, a step equals that of an optimizer configured with these values. A value
/// outside its domain is refused and changes nothing. Plain SGD has no state that could differ.
pub(crate) fn schedules(target: &Target) -> Result<(), String> {
    for lean in [false, true] {
        let base = config().with_lean(lean);
        let mut scheduled = target.init(&base)?;
        let mut model = Mlp::new(&target.device);
        let mut want = model.clone();
        for (batch, (rho, gamma)) in
            [(0.05, 0.9), (0.5, 0.0), (0.0, 0.7), (0.2, 0.95)].iter().enumerate()
        {
            scheduled.set_rho(*rho).map_err(|error| error.to_string())?;
            scheduled.set_gamma(*gamma).map_err(|error| error.to_string())?;
            for (refused, what) in [
                (scheduled.set_rho(-1.0), "rho -1"),
                (scheduled.set_rho(f64::NAN), "rho NaN"),
                (scheduled.set_gamma(1.0), "gamma 1"),
            ] {
                if !matches!(refused, Err(burn_wsam::WsamError::Hyperparameter(_))) {
                    return Err(format!("{refused:?} for {what}"));
                }
            }
            let mut made = target.init(&base.clone().with_rho(*rho).with_gamma(*gamma))?;
            let batch = batch as u64;
            let step = scheduled.step(0.01, model, |model| model.exact(batch));
            (model, _) = step.map_err(|error| error.to_string())?;
            let step = made.step(0.01, want, |model| model.exact(batch));
            (want, _) = step.map_err(|error| error.to_string())?;
            same("the optimizer whose rho and gamma were set", &model, &parameters(&want))?;
        }
    }
    Ok(())
}

/// Two runs with the same gradients give the same bits.
pub(crate) fn repeats(target: &Target) -> Result<(), String> {
    let model = ConvNet::new(&target.device);
    let run = || -> Result<ConvNet, String> {
        let mut optim = target.init(&adamw())?;
        let mut model = fork(&model);
        for seed in 0..3 {
            let ascended = optim
                .ascend(model.clone(), synthetic(&model, seed))
                .map_err(|error| error.to_string())?;
            let second = synthetic(ascended.model(), seed + 10);
            model = optim.descend(0.01, ascended, second).map_err(|error| error.to_string())?;
        }
        Ok(model)
    };
    same("the second run", &run()?, &parameters(&run()?))
}

/// Gradients from random numbers in place of a backward pass, whose own sums may vary.
fn synthetic(model: &ConvNet, seed: u64) -> GradientsParams {
    let device = model.linear.weight.device().inner();
    let mut grads = GradientsParams::new();
    let dims = model.conv.weight.dims();
    grads.register(model.conv.weight.id, data(dims, seed, &device));
    let dims = model.linear.weight.dims();
    grads.register(model.linear.weight.id, data(dims, seed + 1, &device));
    grads.register(model.norm.gamma.id, data(model.norm.gamma.dims(), seed + 2, &device));
    grads
}

pub(crate) fn restores(target: &Target) -> Result<(), String> {
    // The perturbation is far larger than the weights, so subtracting it would lose their low bits.
    let mut optim = target.init(&config().with_rho(1e6))?;
    let mut model = ConvNet::new(&target.device);
    let first = grads(&model.loss(0), &model);
    // `valid` applies the updates of running statistics that Burn has deferred.
    let _ = model.valid();
    let before = parameters(&model);
    let ascended = optim.ascend(model, first).map_err(|error| error.to_string())?;
    if parameters(ascended.model()) == before {
        return Err("the ascent did not change the weights".to_owned());
    }
    let _ = ascended.model().loss(0).backward();
    model = ascended.restore();
    same("the restored model", &model, &before)?;
    // The restored model can be trained.
    let step = optim.step(0.01, model, |model| model.loss(1)).map_err(|error| error.to_string())?;
    if parameters(&step.0) == before {
        Err("the step did not change the weights".to_owned())
    } else {
        Ok(())
    }
}

pub(crate) fn clones_keep(target: &Target) -> Result<(), String> {
    let mut optim = target.init(&adamw())?;
    let mut model = Mlp::new(&target.device);
    let mut kept: Vec<(Mlp, _)> = Vec::new();
    for batch in 0..4 {
        kept.push((model.clone(), parameters(&model)));
        let first = grads(&model.loss(batch), &model);
        let ascended = optim.ascend(model, first).map_err(|error| error.to_string())?;
        for (clone, before) in &kept {
            same("a clone after the ascent", clone, before)?;
        }
        let second = grads(&ascended.model().loss(batch), ascended.model());
        model = optim.descend(0.01, ascended, second).map_err(|error| error.to_string())?;
        for (clone, before) in &kept {
            same("a clone after the descent", clone, before)?;
        }
    }
    Ok(())
}

pub(crate) fn zero_gradients(target: &Target) -> Result<(), String> {
    for adaptive in [false, true] {
        let mut optim = target.init(&config().with_rho(5.0).with_adaptive(adaptive))?;
        let model = Mlp::new(&target.device);
        let before = parameters(&model);
        let zero_loss = |model: &Mlp| model.loss(0) * 0.0;
        let step = optim.step(0.1, model, zero_loss).map_err(|error| error.to_string())?;
        same("after a zero gradient", &step.0, &before)?;
    }
    Ok(())
}

/// Burn keeps one stream a thread. A model and its gradients from one thread can be stepped on another thread
/// and used on a third.
pub(crate) fn threads(target: &Target) -> Result<(), String> {
    let mut local = target.init(&adamw())?;
    let mut remote = target.init(&adamw())?;
    let mut model = Mlp::new(&target.device);
    let mut moved = model.clone();
    let panicked = |_| "a thread panicked".to_owned();
    for batch in 0..3 {
        model = two_calls(&mut local, model, batch)?;

        let first = grads(&moved.exact(batch), &moved);
        let ascended = std::thread::scope(|scope| {
            scope.spawn(|| remote.ascend(moved, first)).join().map_err(panicked)
        })?
        .map_err(|error| error.to_string())?;
        let second = std::thread::scope(|scope| {
            scope
                .spawn(|| grads(&ascended.model().exact(batch), ascended.model()))
                .join()
                .map_err(panicked)
        })?;
        moved = std::thread::scope(|scope| {
            scope.spawn(|| remote.descend(0.01, ascended, second)).join().map_err(panicked)
        })?
        .map_err(|error| error.to_string())?;
        same("the model stepped on other threads", &moved, &parameters(&model))?;
    }
    let loss: Tensor<1> = moved.valid().loss(9);
    if loss.into_scalar::<f32>().is_finite() {
        Ok(())
    } else {
        Err("the loss is not finite".to_owned())
    }
}
