//! Training on several devices.

use crate::Target;
use crate::bench::{Folder, bases, equal_weights, rate, trained, training, training_of};
use crate::nets::{Batch, Net, train_loader};
use crate::tools::{fork, text};
use burn::data::dataloader::split::split_dataloader;
use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::Device;
use burn::train::{
    ExecutionStrategy, InferenceStep, MultiDeviceOptim, RegressionOutput, TrainOutput, TrainStep,
};
use burn_wsam::train::WsamTrainingError;
use burn_wsam::{Perturbation, ReplicaFault, Wsam, WsamConfig, WsamError};

const EPOCHS: usize = 2;

fn multi(devices: Vec<Device>) -> ExecutionStrategy {
    ExecutionStrategy::multi(devices, MultiDeviceOptim::OptimMainDevice)
}

fn sum(model: &Net, batches: &[&Batch]) -> GradientsParams {
    let mut sum = GradientsAccumulator::new();
    for batch in batches {
        sum.accumulate(model, TrainStep::step(model, (*batch).clone()).grads);
    }
    sum.grads()
}

fn total(model: &Net, parts: Vec<GradientsParams>) -> GradientsParams {
    let mut sum = GradientsAccumulator::new();
    parts.into_iter().for_each(|part| sum.accumulate(model, part));
    sum.grads()
}

/// The step of all devices, each with its own batches.
fn step(
    optim: &mut Wsam,
    mut model: Net,
    window: &[Vec<&Batch>],
    lr: f64,
    (perturbation, lean): (Perturbation, bool),
) -> Result<Net, String> {
    let mut second = Vec::new();
    if perturbation == Perturbation::EachMicroBatch {
        for batches in window {
            let ascended = optim.ascend(model.clone(), sum(&model, batches)).map_err(text)?;
            second.push(sum(ascended.model(), batches));
            model = ascended.restore();
        }
    }
    let first = window.iter().map(|batches| sum(&model, batches)).collect();
    let first = total(&model, first);
    if lean {
        let ascended = optim.lean_ascend(lr, model, first).map_err(text)?;
        let second = window.iter().map(|batches| sum(ascended.model(), batches)).collect();
        let second = total(ascended.model(), second);
        return optim.lean_descend(ascended, second).map_err(text);
    }
    let ascended = optim.ascend(model, first).map_err(text)?;
    if second.is_empty() {
        second = window.iter().map(|batches| sum(ascended.model(), batches)).collect();
    }
    let second = total(ascended.model(), second);
    optim.descend(lr, ascended, second).map_err(text)
}

/// A training on two devices equals a loop over both parts of the data, bit for bit.
pub(crate) fn two(target: &Target) -> Result<(), String> {
    let devices = vec![target.device.clone(); 2];
    for (perturbation, accumulated, lean) in [
        (Perturbation::Whole, 1, false),
        (Perturbation::EachMicroBatch, 1, false),
        (Perturbation::Whole, 2, false),
        (Perturbation::Whole, 1, true),
    ] {
        let config = WsamConfig::new(bases()[1].0.clone()).with_lean(lean);
        let initial = Net::new(7, &target.device).exact();
        let wsam = target.wsam(&config)?.with_perturbation(perturbation);
        let wsam = wsam.with_execution(multi(devices.clone())).map_err(text)?;
        let folder = Folder::new();
        let mut training = training(&folder, EPOCHS).with_training_strategy(wsam.strategy());
        if accumulated > 1 {
            training = training.grads_accumulation(accumulated);
        }
        let ours = trained(training.launch(wsam.learner(fork(&initial), rate())))?;

        let mut optim = target.init(&config)?;
        let (mut model, mut rate) = (fork(&initial), rate());
        for _ in 0..EPOCHS {
            let loaders = split_dataloader(train_loader(), &devices);
            let parts: Vec<Vec<Batch>> = loaders
                .iter()
                .map(|loader| loader.iter().map(|batch| batch.expect("in memory")).collect())
                .collect();
            let rounds = parts.iter().map(Vec::len).max().unwrap_or(0);
            for from in (0..rounds).step_by(accumulated) {
                let window = parts
                    .iter()
                    .map(|part| part.iter().skip(from).take(accumulated).collect::<Vec<_>>());
                let window: Vec<_> = window.filter(|batches| !batches.is_empty()).collect();
                model = step(&mut optim, model, &window, rate.step().base(), (perturbation, lean))?;
            }
        }
        let what = format!("{perturbation:?}, {accumulated} accumulated, lean {lean}");
        equal_weights(&what, &ours, &model)?;
    }
    Ok(())
}

pub(crate) fn refused(target: &Target) -> Result<(), String> {
    let config = WsamConfig::new(bases()[0].0.clone());
    let sharded =
        ExecutionStrategy::multi(vec![target.device.clone(); 2], MultiDeviceOptim::OptimSharded);
    match target.wsam(&config)?.with_execution(sharded) {
        Err(WsamTrainingError::Execution { strategy: "MultiDevice", .. }) => (),
        other => return Err(format!("{other:?}")),
    }
    match target.wsam(&config)?.with_execution(multi(Vec::new())) {
        Err(WsamTrainingError::Execution { .. }) => (),
        other => return Err(format!("{other:?}")),
    }
    let one = ExecutionStrategy::single(target.device.clone());
    target.wsam(&config)?.with_execution(one).map_err(text)?;
    Ok(())
}

/// Fails in the passes on the second device.
#[derive(Module, Debug)]
struct Failing {
    net: Net,
}

impl TrainStep for Failing {
    type Input = Batch;
    type Output = RegressionOutput;

    fn step(&self, batch: Batch) -> TrainOutput<RegressionOutput> {
        let name = std::thread::current().name().unwrap_or_default().to_owned();
        assert!(!name.contains("devices[1]"), "a panic of the test");
        TrainStep::step(&self.net, batch)
    }
}

impl InferenceStep for Failing {
    type Input = Batch;
    type Output = RegressionOutput;

    fn step(&self, batch: Batch) -> RegressionOutput {
        InferenceStep::step(&self.net, batch)
    }
}

/// The training ends with an error that names the device.
pub(crate) fn fails(target: &Target) -> Result<(), String> {
    let config = WsamConfig::new(bases()[0].0.clone());
    let wsam = target.wsam(&config)?;
    let wsam = wsam.with_execution(multi(vec![target.device.clone(); 2])).map_err(text)?;
    let net = Net::new(7, &target.device);
    let result = training_of::<Failing>(&Folder::new(), EPOCHS)
        .with_training_strategy(wsam.strategy())
        .launch(wsam.learner(Failing { net: fork(&net) }, 0.1));
    equal_weights("the model", &result.model.net, &net)?;
    match (result.error, wsam.error().as_deref()) {
        (Some(_), Some(WsamTrainingError::Wsam(WsamError::Replica(error))))
            if error.replica == "devices[1]"
                && matches!(error.fault, ReplicaFault::Panicked { .. }) =>
        {
            Ok(())
        }
        other => Err(format!("{other:?}")),
    }
}
