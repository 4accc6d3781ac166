use crate::Target;
use crate::bench::*;
use crate::tools::parameters;
use crate::nets::*;
use crate::tools::{fork, text};
use burn_wsam::{SgdBaseConfig, WsamConfig};
use crate::loops::Bounded;
use burn::train::TrainStep;

pub(crate) fn probe(target: &Target) -> Result<(), String> {
    for (bound, lr) in [(1e9f32, 0.02), (1e9, 0.5), (0.23, 0.02), (0.23, 0.5)] {
        for epochs in [1, 2] {
        for norm in [false, true] {
        let folder = Folder::new();
        let config = WsamConfig::new(SgdBaseConfig::new().into());
        let initial = if norm { Net::normalised(7, &target.device) } else { Net::new(7, &target.device) };
        let wsam = target.wsam(&config)?;
        let result = training_of::<Bounded>(&folder, epochs)
            .with_training_strategy(wsam.strategy())
            .launch(wsam.learner(Bounded { net: fork(&initial), bound: burn::module::Ignored(bound) }, lr));
        let ours = trained(result)?.net;
        let wsam = target.wsam(&config)?;
        let result = training(&folder, epochs)
            .with_training_strategy(wsam.strategy())
            .launch(wsam.learner(fork(&initial), lr));
        let plain = trained(result)?;
        let mut optim = target.init(&config)?;
        let mut model = fork(&initial);
        for _ in 0..epochs { for batch in batches(&target.device) {
            let g = TrainStep::step(&model, batch.clone()).grads;
            let a = optim.ascend(model, g).map_err(text)?;
            let g = TrainStep::step(&*a, batch).grads;
            model = optim.descend(lr, a, g).map_err(text)?;
            model = Bounded { net: model, bound: burn::module::Ignored(bound) }.bounded().net;
        } }
        let d = |a: &Net, b: &Net| { let (a, b) = (parameters(&fork(a)), parameters(&fork(b))); a.iter().zip(&b).map(|((p, a), (_, b))| format!("{p} {:e}", a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max))).filter(|s| !s.ends_with(" 0e0")).collect::<Vec<_>>().join(" ") };
        println!("bound {bound} lr {lr} epochs {epochs} norm {norm}: ours-hand {}; ours-plain {}", d(&ours, &model), d(&ours, &plain));
        } }
    }
    Ok(())
}
