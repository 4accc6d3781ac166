//! Comparison with Burn's own single-device strategy.

use crate::Target;
use crate::bench::{Folder, RecordingRenderer, bases, rate, trained, training};
use crate::nets::Net;
use crate::tools::{close, fork};
use burn::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
use burn::module::ParamGroup;
use burn::optim::ModuleOptimizer;
use burn::train::{ExecutionStrategy, Learner, SupervisedTraining, TrainingStrategy};
use burn_wsam::{BaseConfig, WsamConfig};

fn burn_strategy(target: &Target) -> TrainingStrategy<Net> {
    TrainingStrategy::Default(ExecutionStrategy::single(target.device.clone()))
}

fn match_burn(
    target: &Target,
    base: BaseConfig,
    burn: ModuleOptimizer,
    rate: fn() -> ModuleLrScheduler,
    accumulated: impl Fn(SupervisedTraining<Net>) -> SupervisedTraining<Net>,
) -> Result<(), String> {
    let folder = Folder::new();
    for decouple in [false, true] {
        let initial = Net::new(7, &target.device);
        let wsam =
            target.wsam(&WsamConfig::new(base.clone()).with_gamma(0.0).with_decouple(decouple))?;
        let ours = accumulated(training(&folder, 3))
            .with_training_strategy(wsam.strategy())
            .launch(wsam.learner(fork(&initial), rate()));
        let theirs = accumulated(training(&folder, 3))
            .with_training_strategy(burn_strategy(target))
            .launch(Learner::new(fork(&initial), burn.clone(), rate()));
        close(&format!("{base:?}"), &trained(ours)?, &trained(theirs)?)?;
    }
    Ok(())
}

/// At gamma 0 the step is the base optimizer's, so the training matches Burn's own.
pub(crate) fn gamma_zero(target: &Target) -> Result<(), String> {
    for (base, burn) in bases() {
        match_burn(target, base, burn(), rate, |training| training)?;
    }
    Ok(())
}

/// A scheduler with groups gives learning rates by parameter.
pub(crate) fn rates_by_parameter(target: &Target) -> Result<(), String> {
    let (base, burn) = &bases()[0];
    let rates = || rate().with_group(ParamGroup::from_predicate("bias"), 1e-3);
    match_burn(target, base.clone(), burn(), rates, |training| training)
}

/// Burn sums gradients, and takes a step over the remaining ones at the end of an epoch.
pub(crate) fn gamma_zero_accumulated(target: &Target) -> Result<(), String> {
    for (base, burn) in bases() {
        match_burn(target, base.clone(), burn(), rate, |training| training.grads_accumulation(3))?;
        match_burn(target, base, burn(), rate, |training| training.grads_accumulation(1))?;
    }
    Ok(())
}

/// A renderer receives the same events from both strategies.
pub(crate) fn events(target: &Target) -> Result<(), String> {
    let folder = Folder::new();
    let (base, burn) = &bases()[0];
    let wsam = target.wsam(&WsamConfig::new(base.clone()))?;
    let (ours, theirs) = (RecordingRenderer::default(), RecordingRenderer::default());
    let training = |renderer: &RecordingRenderer| {
        training(&folder, 2).with_default_checkpointers().renderer(Box::new(renderer.clone()))
    };
    let initial = Net::new(7, &target.device);
    let result = training(&ours)
        .with_training_strategy(wsam.strategy())
        .launch(wsam.learner(fork(&initial), rate()));
    trained(result)?;
    let result = training(&theirs)
        .with_training_strategy(burn_strategy(target))
        .launch(Learner::new(initial, burn(), rate()));
    trained(result)?;
    let (ours, theirs) = (ours.events(), theirs.events());
    if theirs.len() < 20 || ours != theirs {
        return Err(format!("{ours:#?}, expected Burn's {theirs:#?}"));
    }
    Ok(())
}
