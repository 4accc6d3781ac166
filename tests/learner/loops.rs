//! Comparison with a loop that calls the optimizer directly.

use crate::Target;
use crate::bench::{Folder, bases, equal, equal_weights, rate, trained, training, training_of};
use crate::nets::{Batch, ITERATIONS, Net, batches, passes};
use crate::tools::{fork, text};
use burn::lr_scheduler::linear::LinearLrSchedulerConfig;
use burn::lr_scheduler::module_lr_scheduler::{ModuleLearningRate, ModuleLrScheduler};
use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams, ModuleOptimizer};
use burn::tensor::Tensor;
use burn::train::{InferenceStep, RegressionOutput, TrainOutput, TrainStep};
use burn_wsam::train::{Schedule, WsamTraining};
use burn_wsam::{Perturbation, SgdBaseConfig, Wsam, WsamConfig};

const EPOCHS: usize = 2;

pub(crate) fn grads(model: &Net, batch: &Batch) -> GradientsParams {
    TrainStep::step(model, batch.clone()).grads
}

pub(crate) fn sum<'a>(
    model: &Net,
    batches: impl IntoIterator<Item = &'a Batch>,
) -> GradientsParams {
    let mut sum = GradientsAccumulator::new();
    for batch in batches {
        sum.accumulate(model, grads(model, batch));
    }
    sum.grads()
}

/// A step over micro-batches at a learning rate. The last argument is the epoch and the number of steps before.
pub(crate) type Step<'a> =
    dyn Fn(&mut Wsam, Net, &[Batch], f64, (usize, u64)) -> Result<Net, String> + 'a;

fn by_hand(
    target: &Target,
    config: &WsamConfig,
    mut model: Net,
    accumulated: usize,
    step: &Step<'_>,
) -> Result<Net, String> {
    let mut optim = target.init(config)?;
    let (mut rate, mut steps) = (rate(), 0);
    for epoch in 1..=EPOCHS {
        for window in batches(&target.device).chunks(accumulated) {
            model = step(&mut optim, model, window, rate.step().base(), (epoch, steps))?;
            steps += 1;
        }
    }
    Ok(model)
}

fn two_phases(optim: &mut Wsam, model: Net, window: &[Batch], lr: f64) -> Result<Net, String> {
    let first = if window.len() > 1 { sum(&model, window) } else { grads(&model, &window[0]) };
    let ascended = optim.ascend(model, first).map_err(text)?;
    let second = sum(ascended.model(), window);
    optim.descend(lr, ascended, second).map_err(text)
}

pub(crate) fn check(
    target: &Target,
    config: &WsamConfig,
    accumulated: usize,
    set: impl Fn(WsamTraining) -> WsamTraining,
    step: &Step<'_>,
) -> Result<usize, String> {
    let folder = Folder::new();
    let initial = Net::normalised(7, &target.device).exact();
    let wsam = set(target.wsam(config)?);
    let mut training = training(&folder, EPOCHS).with_training_strategy(wsam.strategy());
    if accumulated > 1 {
        training = training.grads_accumulation(accumulated);
    }
    let learner = wsam.learner(fork(&initial), rate());
    let (ours, taken) = passes(|| training.launch(learner));
    let by_hand = by_hand(target, config, fork(&initial), accumulated, step)?;
    equal_weights(&format!("{config}"), &trained(ours)?, &by_hand)?;
    Ok(taken)
}

fn counted(taken: usize, want: usize) -> Result<(), String> {
    if taken == want { Ok(()) } else { Err(format!("{taken} passes, expected {want}")) }
}

fn configs() -> Vec<WsamConfig> {
    let [(sgd, _), (adamw, _)] = bases();
    vec![
        WsamConfig::new(sgd),
        // A base optimizer without state tensors.
        WsamConfig::new(SgdBaseConfig::new().into())
            .with_decouple(false)
            .with_adaptive(true)
            .with_rho(0.5),
        WsamConfig::new(adamw).with_max_norm(Some(0.5)),
    ]
}

/// The weights are equal bit for bit, with two passes a step.
pub(crate) fn plain(target: &Target) -> Result<(), String> {
    for config in configs() {
        let taken = check(target, &config, 1, |wsam| wsam, &|optim, model, window, lr, _| {
            two_phases(optim, model, window, lr)
        })?;
        counted(taken, 2 * EPOCHS * ITERATIONS)?;
    }
    Ok(())
}

/// Both passes run over the same micro-batches, and the last step over the remaining ones.
pub(crate) fn accumulated(target: &Target) -> Result<(), String> {
    for config in configs() {
        let taken = check(target, &config, 3, |wsam| wsam, &|optim, model, window, lr, _| {
            two_phases(optim, model, window, lr)
        })?;
        counted(taken, 2 * EPOCHS * ITERATIONS)?;
    }
    Ok(())
}

/// A perturbation for each micro-batch (m-sharpness).
pub(crate) fn each_perturbed(target: &Target) -> Result<(), String> {
    let each = |wsam: WsamTraining| wsam.with_perturbation(Perturbation::EachMicroBatch);
    let step: &Step<'_> = &|optim, mut model, window, lr, _| {
        let mut second = GradientsAccumulator::new();
        let mut first = GradientsAccumulator::new();
        for batch in window {
            // Computed twice, because the optimizer takes the gradients. A fork keeps the statistics at one pass.
            let alone = grads(&fork(&model), batch);
            first.accumulate(&model, grads(&model, batch));
            let ascended = optim.ascend(model, alone).map_err(text)?;
            second.accumulate(ascended.model(), grads(ascended.model(), batch));
            model = ascended.restore();
        }
        let ascended = optim.ascend(model, first.grads()).map_err(text)?;
        optim.descend(lr, ascended, second.grads()).map_err(text)
    };
    for config in configs() {
        let taken = check(target, &config, 3, each, step)?;
        counted(taken, 2 * EPOCHS * ITERATIONS)?;
    }
    Ok(())
}

pub(crate) fn lean(target: &Target) -> Result<(), String> {
    for accumulated in [1, 3] {
        let [(sgd, _), (adamw, _)] = bases();
        for base in [sgd, adamw] {
            let config = WsamConfig::new(base).with_lean(true);
            let lean: &Step<'_> = &|optim, model, window, lr, _| {
                let first = sum(&model, window);
                let ascended = optim.lean_ascend(lr, model, first).map_err(text)?;
                let second = sum(ascended.model(), window);
                optim.lean_descend(ascended, second).map_err(text)
            };
            let taken = check(target, &config, accumulated, |wsam| wsam, lean)?;
            counted(taken, 2 * EPOCHS * ITERATIONS)?;
        }
    }
    Ok(())
}

pub(crate) fn rho() -> ModuleLrScheduler {
    LinearLrSchedulerConfig::new(0.2, 0.01, 6).init().expect("a valid scheduler")
}

/// rho follows one of Burn's schedulers, gamma a function of epoch and step.
pub(crate) fn schedules(target: &Target) -> Result<(), String> {
    let gamma = |epoch: usize, step: u64| if epoch == 1 { 0.5 } else { 0.8 + 0.02 * step as f64 };
    let set = move |wsam: WsamTraining| {
        let gamma = Schedule::from_fn(move |at| gamma(at.epoch, at.step));
        wsam.with_rho(rho()).with_gamma(gamma)
    };
    let config = WsamConfig::new(bases()[0].0.clone());
    let taken = check(target, &config, 1, set, &|optim, model, window, lr, (epoch, step)| {
        let mut schedule = rho();
        let rho = (0..=step).map(|_| schedule.step().base()).last();
        optim.set_rho(rho.ok_or("no rho")?).map_err(text)?;
        optim.set_gamma(gamma(epoch, step)).map_err(text)?;
        two_phases(optim, model, window, lr)
    })?;
    counted(taken, 2 * EPOCHS * ITERATIONS)
}

/// While WSAM is inactive, a step takes one pass.
pub(crate) fn partly_active(target: &Target) -> Result<(), String> {
    for (accumulated, configs) in [(1, configs()), (3, configs().split_off(2))] {
        for config in configs {
            let by_epoch = |wsam: WsamTraining| wsam.with_active(|at| at.epoch > 1);
            let taken =
                check(target, &config, accumulated, by_epoch, &|o, model, window, lr, at| {
                    let (epoch, _) = at;
                    if epoch > 1 {
                        return two_phases(o, model, window, lr);
                    }
                    let grads = sum(&model, window);
                    o.base_step(lr, model, grads).map_err(text)
                })?;
            counted(taken, ITERATIONS + 2 * (EPOCHS - 1) * ITERATIONS)?;
        }
    }
    Ok(())
}

const LARGEST: f32 = 0.1;

/// Overrides `TrainStep::optimize` to clamp the weights of a layer.
#[derive(Module, Debug)]
struct Bounded {
    net: Net,
}

impl Bounded {
    fn bounded(mut self) -> Self {
        self.net.b.weight = self.net.b.weight.map(|weight| {
            Tensor::from_inner(weight.inner().clamp(-LARGEST, LARGEST)).require_grad()
        });
        self
    }
}

impl TrainStep for Bounded {
    type Input = Batch;
    type Output = RegressionOutput;

    fn step(&self, batch: Batch) -> TrainOutput<RegressionOutput> {
        TrainStep::step(&self.net, batch)
    }

    fn optimize(
        self,
        optim: &mut ModuleOptimizer,
        lr: ModuleLearningRate,
        grads: GradientsParams,
    ) -> Self {
        optim.step(lr, self, grads).bounded()
    }
}

impl InferenceStep for Bounded {
    type Input = Batch;
    type Output = RegressionOutput;

    fn step(&self, batch: Batch) -> RegressionOutput {
        InferenceStep::step(&self.net, batch)
    }
}

pub(crate) fn overridden(target: &Target) -> Result<(), String> {
    let folder = Folder::new();
    let config = WsamConfig::new(SgdBaseConfig::new().into());
    let initial = Net::new(7, &target.device).exact();
    let wsam = target.wsam(&config)?;
    let result = training_of::<Bounded>(&folder, EPOCHS)
        .with_training_strategy(wsam.strategy())
        .launch(wsam.learner(Bounded { net: fork(&initial) }, 0.5));
    let ours = trained(result)?.net;

    // `optimize` is also called once before the first step.
    let initial = Bounded { net: initial }.bounded().net;
    let by_hand = by_hand(target, &config, initial, 1, &|optim, model, window, _, _| {
        Ok(Bounded { net: two_phases(optim, model, window, 0.5)? }.bounded().net)
    })?;
    equal("bounded", &ours, &by_hand)?;
    let weights = ours.b.weight.val().into_data();
    let at_bound = weights.iter::<f32>().filter(|weight| weight.abs() == LARGEST).count();
    if at_bound == 0 { Err("no weight was bounded".to_owned()) } else { Ok(()) }
}
