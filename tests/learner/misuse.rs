//! Learners, strategies and checkpoints that do not belong together.

use crate::Target;
use crate::bench::{Folder, bases, equal, trained, training};
use crate::nets::Net;
use crate::tools::fork;
use burn::train::{ExecutionStrategy, Learner, TrainingError, TrainingStrategy};
use burn_wsam::train::{WsamTraining, WsamTrainingError};
use burn_wsam::{BaseConfig, WsamConfig, WsamError};

fn wsam(target: &Target) -> Result<WsamTraining, String> {
    target.wsam(&WsamConfig::new(bases()[0].0.clone()))
}

/// The training ends with an error, and the model is unchanged.
pub(crate) fn foreign_learner(target: &Target) -> Result<(), String> {
    let folder = Folder::new();
    let initial = Net::new(7, &target.device);
    let foreign = wsam(target)?;
    let learners = [
        Learner::new(fork(&initial), bases()[1].1(), 1e-2),
        // A learner of another `WsamTraining`.
        foreign.learner(fork(&initial), 1e-2),
    ];
    for learner in learners {
        let wsam = wsam(target)?;
        let result = training(&folder, 1).with_training_strategy(wsam.strategy()).launch(learner);
        let error = wsam.error().ok_or("no error")?;
        let right = matches!(&*error, WsamTrainingError::NotTaken { taken: 0, sent } if *sent > 4);
        if !right || !matches!(result.error.as_deref(), Some(TrainingError::Workers(_))) {
            return Err(format!("{error:?}, {:?}", result.error));
        }
        equal("the model", &result.model, &initial)?;
    }
    Ok(())
}

/// Burn's own strategy cannot report an error, so the weights stay unchanged.
pub(crate) fn foreign_strategy(target: &Target) -> Result<(), String> {
    let folder = Folder::new();
    let initial = Net::new(7, &target.device);
    let own = TrainingStrategy::Default(ExecutionStrategy::single(target.device.clone()));
    let learner = wsam(target)?.learner(fork(&initial), 1e-2);
    let result = training(&folder, 1).with_training_strategy(own).launch(learner);
    equal("the model", &trained(result)?, &initial)
}

/// A checkpoint of Burn's own strategy lacks the record of a Burn optimizer as the base.
pub(crate) fn burn_base(target: &Target) -> Result<(), String> {
    let folder = Folder::new();
    let own = TrainingStrategy::Default(ExecutionStrategy::single(target.device.clone()));
    let part = |epochs| training(&folder, epochs).with_default_checkpointers();
    let learner = Learner::new(Net::new(7, &target.device), bases()[0].1(), 1e-2);
    let first = trained(part(1).with_training_strategy(own).launch(learner))?;
    let config = WsamConfig::new(BaseConfig::Burn).with_route(target.policy);
    let optim = config.init_with(bases()[0].1(), &target.device);
    let wsam = WsamTraining::new(optim.map_err(|error| error.to_string())?);
    let result = part(2)
        .checkpoint(1)
        .with_training_strategy(wsam.strategy())
        .launch(wsam.learner(Net::new(8, &target.device), 1e-2));
    let error = wsam.error().ok_or("no error")?;
    let right = matches!(&*error, WsamTrainingError::Wsam(WsamError::Record { reason })
        if reason.contains("around a Burn optimizer"));
    if !right || result.error.is_none() {
        return Err(format!("{error:?}, {:?}", result.error));
    }
    equal("the checkpoint's model", &result.model, &first)
}
