//! Batches, losses and models with which a step fails.

use crate::Target;
use crate::bench::{Folder, trained, training_of};
use crate::nets::{Batch, Net};
use crate::tools::{fork, parameters};
use burn::module::Module;
use burn::tensor::Tensor;
use burn::train::{InferenceStep, RegressionOutput, TrainOutput, TrainStep};
use burn_wsam::train::WsamTrainingError;
use burn_wsam::{NonFinitePolicy, SgdBaseConfig, WsamConfig, WsamError};

/// Multiplies the inputs of each training pass, so that running statistics may become infinite.
#[derive(Module, Debug)]
struct Scaled {
    net: Net,
    by: f32,
}

impl TrainStep for Scaled {
    type Input = Batch;
    type Output = RegressionOutput;

    fn step(&self, batch: Batch) -> TrainOutput<RegressionOutput> {
        TrainStep::step(&self.net, batch.times(self.by))
    }
}

impl InferenceStep for Scaled {
    type Input = Batch;
    type Output = RegressionOutput;

    fn step(&self, batch: Batch) -> RegressionOutput {
        InferenceStep::step(&self.net, batch)
    }
}

/// Skipped and refused steps leave running statistics and weights unchanged, with WSAM active and inactive.
pub(crate) fn statistics(target: &Target) -> Result<(), String> {
    for policy in [NonFinitePolicy::Skip, NonFinitePolicy::Refuse] {
        for (lean, active) in [(false, true), (true, true), (false, false)] {
            let config = WsamConfig::new(SgdBaseConfig::new().into())
                .with_non_finite(policy)
                .with_lean(lean);
            let wsam = target.wsam(&config)?.with_active(move |_| active);
            let net = fork(&Net::normalised(7, &target.device));
            let before = parameters(&net);
            let result = training_of::<Scaled>(&Folder::new(), 1)
                .with_training_strategy(wsam.strategy())
                .launch(wsam.learner(Scaled { net, by: f32::INFINITY }, 0.1));
            if result.error.is_some() != (policy == NonFinitePolicy::Refuse) {
                return Err(format!("{policy:?}: {:?}", result.error));
            }
            drop(result.model.valid());
            let after = parameters(&result.model.net);
            if after != before {
                return Err(format!("{policy:?}, lean {lean}, active {active}: {after:?}"));
            }
        }
    }
    Ok(())
}

/// An unreduced loss ends the training with an error that has its shape.
pub(crate) fn losses(target: &Target) -> Result<(), String> {
    let wsam = target.wsam(&WsamConfig::new(SgdBaseConfig::new().into()))?;
    let each = |output: &RegressionOutput| -> Tensor<1> { output.output.clone().flatten(0, 1) };
    let result = training_of::<Net>(&Folder::new(), 1)
        .with_training_strategy(wsam.strategy_with_loss(each))
        .launch(wsam.learner(Net::new(7, &target.device), 0.1));
    match wsam.error().as_deref() {
        Some(WsamTrainingError::Wsam(WsamError::LossShape { shape }))
            if result.error.is_some() && shape == &[12] =>
        {
            Ok(())
        }
        other => Err(format!("{other:?}")),
    }
}

/// A network and a frozen copy with the same ids.
#[derive(Module, Debug)]
struct Copied {
    early: Option<Net>,
    net: Net,
    late: Option<Net>,
}

impl TrainStep for Copied {
    type Input = Batch;
    type Output = RegressionOutput;

    fn step(&self, batch: Batch) -> TrainOutput<RegressionOutput> {
        TrainStep::step(&self.net, batch)
    }
}

impl InferenceStep for Copied {
    type Input = Batch;
    type Output = RegressionOutput;

    fn step(&self, batch: Batch) -> RegressionOutput {
        InferenceStep::step(&self.net, batch)
    }
}

/// Burn's learner assigns new weights to the first parameter with an id. A frozen copy after the network does not
/// change, and one before it is refused with its name.
pub(crate) fn copies(target: &Target) -> Result<(), String> {
    for early in [false, true] {
        let net = fork(&Net::new(7, &target.device));
        let copy = fork(&net).no_grad();
        let before = parameters(&copy);
        let model = match early {
            true => Copied { early: Some(copy), net, late: None },
            false => Copied { early: None, net, late: Some(copy) },
        };
        let wsam = target.wsam(&WsamConfig::new(SgdBaseConfig::new().into()))?;
        let result = training_of::<Copied>(&Folder::new(), 1)
            .with_training_strategy(wsam.strategy())
            .launch(wsam.learner(model, 0.1));
        if early {
            match wsam.error().as_deref() {
                Some(WsamTrainingError::FrozenInFront { frozen, trainable })
                    if frozen.starts_with("early.") && trainable.starts_with("net.") => {}
                other => return Err(format!("{other:?}")),
            }
            continue;
        }
        let model = trained(result)?;
        let copy = model.late.ok_or("the copy is missing")?;
        if parameters(&copy) != before || parameters(&model.net) == before {
            return Err("the copy changed, or the network did not".to_owned());
        }
    }
    Ok(())
}
