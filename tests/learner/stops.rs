//! Trainings that end early.

use crate::Target;
use crate::bench::{Folder, bases, equal, equal_weights, rate, trained, training, training_of};
use crate::nets::{Batch, ITERATIONS, Net};
use crate::tools::fork;
use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::TensorReadError;
use burn::train::metric::store::EventStoreClient;
use burn::train::metric::{Metric, MetricMetadata, MetricName, SerializedEntry};
use burn::train::{
    EarlyStoppingStrategy, InferenceStep, Interrupter, LearningResult, RegressionOutput,
    TrainOutput, TrainStep, TrainingError,
};
use burn_wsam::WsamConfig;
use burn_wsam::WsamError;
use burn_wsam::train::{Schedule, WsamTraining, WsamTrainingError};
use std::sync::Arc;

fn wsam(target: &Target) -> Result<WsamTraining, String> {
    target.wsam(&WsamConfig::new(bases()[0].0.clone()))
}

/// Number of steps taken.
fn steps(wsam: &WsamTraining) -> usize {
    wsam.last_step().map_or(0, |step| step.at.step as usize + 1)
}

/// Checks that the training ended after `taken` steps with an error of this crate, which Burn reports too.
fn failed<M>(
    wsam: &WsamTraining,
    result: &LearningResult<M>,
    taken: usize,
    right: fn(&WsamTrainingError) -> bool,
) -> Result<(), String> {
    let error = wsam.error().ok_or("no error")?;
    let reported = match result.error.as_deref() {
        Some(TrainingError::Workers(failures)) => {
            failures.iter().any(|failure| failure.message == error.to_string())
        }
        _ => false,
    };
    if !right(&error) || !reported || result.interrupted.is_some() || steps(wsam) != taken {
        let taken = steps(wsam);
        return Err(format!("{error:?}, {:?}, after {taken} steps", result.error));
    }
    Ok(())
}

#[derive(Clone)]
struct AfterTwo;

impl EarlyStoppingStrategy for AfterTwo {
    fn should_stop(&mut self, epoch: usize, _store: &EventStoreClient) -> bool {
        epoch == 2
    }
}

pub(crate) fn early(target: &Target) -> Result<(), String> {
    let folder = Folder::new();
    let wsam = wsam(target)?;
    let initial = Net::new(7, &target.device).exact();
    let result = training(&folder, 9)
        .early_stopping(AfterTwo)
        .with_training_strategy(wsam.strategy())
        .launch(wsam.learner(fork(&initial), rate()));
    let stopped = trained(result)?;
    if steps(&wsam) != 2 * ITERATIONS {
        return Err(format!("{} steps", steps(&wsam)));
    }
    let wsam = self::wsam(target)?;
    let result = training(&folder, 2)
        .with_training_strategy(wsam.strategy())
        .launch(wsam.learner(initial, rate()));
    equal_weights("two epochs", &stopped, &trained(result)?)
}

/// A metric that interrupts the training at its second iteration.
#[derive(Clone)]
struct Interrupts(Interrupter);

impl Metric for Interrupts {
    type Input = ();

    fn name(&self) -> MetricName {
        Arc::new("Interrupts".to_owned())
    }

    fn update(
        &mut self,
        _: &(),
        metadata: &MetricMetadata,
    ) -> Result<SerializedEntry, TensorReadError> {
        if metadata.iteration == Some(2) {
            self.0.stop(Some("seen enough"));
        }
        Ok(SerializedEntry::not_available(None))
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        Ok(SerializedEntry::not_available(None))
    }

    fn clear(&mut self) {}
}

pub(crate) fn interrupted(target: &Target) -> Result<(), String> {
    let folder = Folder::new();
    let wsam = wsam(target)?;
    let training = training(&folder, 50);
    let interrupter = training.interrupter();
    let result = training
        .metric_train(Interrupts(interrupter))
        .with_training_strategy(wsam.strategy())
        .launch(wsam.learner(Net::new(7, &target.device), rate()));
    let reason = result.interrupted.and_then(|interruption| interruption.reason);
    // Metrics run on a thread of their own, so more steps may have been taken.
    let in_time = (2..50 * ITERATIONS).contains(&steps(&wsam));
    if reason.as_deref() != Some("seen enough") || result.error.is_some() || !in_time {
        return Err(format!("{reason:?}, {:?}, {} steps", result.error, steps(&wsam)));
    }
    Ok(())
}

/// A scheduled rho is out of its domain in the middle of the second epoch.
pub(crate) fn out_of_domain(target: &Target) -> Result<(), String> {
    let folder = Folder::new();
    let last = (ITERATIONS + 1) as u64;
    for bad in [f64::NAN, -1.0] {
        let rho = Schedule::from_fn(move |at| if at.step == last { bad } else { 0.05 });
        let wsam = wsam(target)?.with_rho(rho);
        let result = training(&folder, 3)
            .with_training_strategy(wsam.strategy())
            .launch(wsam.learner(Net::new(7, &target.device), rate()));
        failed(&wsam, &result, ITERATIONS + 1, |error| {
            matches!(error, WsamTrainingError::Wsam(WsamError::Hyperparameter(_)))
        })?;
    }
    Ok(())
}

pub(crate) fn learning_rate(target: &Target) -> Result<(), String> {
    let folder = Folder::new();
    let initial = Net::new(7, &target.device);
    for off in [false, true] {
        let wsam = wsam(target)?.with_active(move |_| !off);
        let result = training(&folder, 1)
            .with_training_strategy(wsam.strategy())
            .launch(wsam.learner(fork(&initial), f64::NAN));
        failed(&wsam, &result, 0, |error| {
            matches!(error, WsamTrainingError::Wsam(WsamError::Hyperparameter(_)))
        })?;
        equal("the model", &result.model, &initial)?;
    }
    Ok(())
}

/// A model whose passes return no gradients.
#[derive(Module, Debug)]
struct WithoutGradients {
    net: Net,
}

impl TrainStep for WithoutGradients {
    type Input = Batch;
    type Output = RegressionOutput;

    fn step(&self, batch: Batch) -> TrainOutput<RegressionOutput> {
        let output = TrainStep::step(&self.net, batch);
        TrainOutput { grads: GradientsParams::new(), ..output }
    }
}

impl InferenceStep for WithoutGradients {
    type Input = Batch;
    type Output = RegressionOutput;

    fn step(&self, batch: Batch) -> RegressionOutput {
        InferenceStep::step(&self.net, batch)
    }
}

pub(crate) fn no_gradients(target: &Target) -> Result<(), String> {
    let folder = Folder::new();
    let initial = Net::new(7, &target.device);
    let wsam = wsam(target)?;
    let result = training_of::<WithoutGradients>(&folder, 2)
        .with_training_strategy(wsam.strategy())
        .launch(wsam.learner(WithoutGradients { net: fork(&initial) }, rate()));
    failed(&wsam, &result, 0, |error| {
        matches!(error, WsamTrainingError::Wsam(WsamError::NoGradients { gradients: 0 }))
    })?;
    equal("the model", &result.model.net, &initial)
}
