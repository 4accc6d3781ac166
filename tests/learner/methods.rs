//! WSAM's relatives and pass rules under `SupervisedTraining`.

use crate::Target;
use crate::bench::{Folder, bases, equal, rate, training};
use crate::loops::{self, grads, sum};
use crate::nets::{Batch, ITERATIONS, Net};
use crate::resume;
use crate::tools::{fork, text};
use burn_wsam::method::Passes;
use burn_wsam::train::WsamTrainingError;
use burn_wsam::{
    AeSamConfig, FriendlySamConfig, GsamConfig, IntervalConfig, LookSamConfig, MethodConfig,
    NextStep, Perturbation, Wsam, WsamConfig, WsamError,
};

fn configs() -> Vec<WsamConfig> {
    let [(sgd, _), (adamw, _)] = bases();
    let config = || WsamConfig::new(sgd.clone()).with_rho(0.1);
    vec![
        config().with_pass_rule(IntervalConfig::new(2).into()).with_start_step(1),
        config().with_pass_rule(AeSamConfig::new(30).with_first_threshold(0.2).into()),
        config().with_method(GsamConfig::new().into()),
        WsamConfig::new(adamw).with_method(FriendlySamConfig::new().into()),
        config().with_method(LookSamConfig::new().with_k(3).into()).with_max_norm(Some(0.5)),
        config().with_method(MethodConfig::MomentumSam).with_start_step(1),
    ]
}

/// A step over micro-batches by the calls that `next_step` names.
fn step(optim: &mut Wsam, model: Net, window: &[Batch], lr: f64) -> Result<Net, String> {
    let all = |model: &Net| match window {
        [batch] => grads(model, batch),
        _ => sum(model, window),
    };
    match optim.next_step().map_err(text)? {
        NextStep::OnePass => {
            let first = all(&model);
            optim.one_pass_step(lr, model, first).map_err(text)
        }
        NextStep::AlongMomentum => {
            let ascended = optim.ascend_along_momentum(model).map_err(text)?;
            let only = all(ascended.model());
            optim.descend(lr, ascended, only).map_err(text)
        }
        _ => {
            let first = all(&model);
            let ascended = optim.ascend(model, first).map_err(text)?;
            let second = all(ascended.model());
            optim.descend(lr, ascended, second).map_err(text)
        }
    }
}

/// The weights are those of a loop of steps, bit for bit.
pub(crate) fn by_hand(target: &Target) -> Result<(), String> {
    for config in configs() {
        for accumulated in [1, 3] {
            let steps = 2 * ITERATIONS.div_ceil(accumulated);
            let taken =
                loops::check(target, &config, accumulated, |wsam| wsam, &|o, m, w, lr, _| {
                    step(o, m, w, lr)
                })?;
            let most = 4 * ITERATIONS;
            let is_single = matches!(config.method, MethodConfig::MomentumSam);
            let expected = match () {
                () if is_single => taken == most / 2,
                () if matches!(config.method, MethodConfig::LookSam(_)) => taken < most,
                () => taken <= most,
            };
            if !expected {
                return Err(format!("{config}: {taken} passes in {steps} steps"));
            }
        }
    }
    Ok(())
}

/// Resumed after each epoch, bit for bit.
pub(crate) fn resumed(target: &Target) -> Result<(), String> {
    for config in configs() {
        resume::check(target, &config, 1, &|wsam| wsam)?;
    }
    let each =
        |wsam: burn_wsam::train::WsamTraining| wsam.with_perturbation(Perturbation::EachMicroBatch);
    resume::check(target, &configs()[4], 2, &each)
}

/// The report of the last step says how many passes it took.
pub(crate) fn reports(target: &Target) -> Result<(), String> {
    for (config, passes) in configs().into_iter().zip([
        Passes::Two,
        Passes::Two,
        Passes::Two,
        Passes::Two,
        Passes::Two,
        Passes::One,
    ]) {
        let folder = Folder::new();
        let wsam = target.wsam(&config)?;
        let strategy =
            wsam.strategy_with_loss(|output: &burn::train::RegressionOutput| output.loss.clone());
        let learner = wsam.learner(Net::new(7, &target.device), rate());
        let result = training(&folder, 1).with_training_strategy(strategy).launch(learner);
        crate::bench::trained(result)?;
        let last = wsam.last_step().ok_or("no step")?;
        let report = last.report().ok_or("no report")?;
        if last.passes != report.passes() || !last.perturbed && report.passes() == Passes::Two {
            return Err(format!("{config}: {:?}, {:?}", last.passes, report.passes()));
        }
        // AE-SAM decides by itself; the others' fourth step is known.
        let is_rule = config.pass_rule.to_string().contains("AeSam");
        if !is_rule && last.passes != passes {
            return Err(format!("{config}: {:?}, expected {passes:?}", last.passes));
        }
    }
    Ok(())
}

/// A perturbation for each micro-batch along the momentum ends the training with an error, and so does a gamma that
/// the method does not have.
pub(crate) fn refused(target: &Target) -> Result<(), String> {
    let msam = configs().remove(5);
    let gsam = configs().remove(2);
    let each = target.wsam(&msam)?.with_perturbation(Perturbation::EachMicroBatch);
    let gamma = target.wsam(&gsam)?.with_gamma(burn_wsam::train::Schedule::from_fn(|_| 0.5));
    for wsam in [each, gamma] {
        let folder = Folder::new();
        let initial = Net::new(7, &target.device);
        let result = training(&folder, 1)
            .grads_accumulation(2)
            .with_training_strategy(wsam.strategy())
            .launch(wsam.learner(fork(&initial), rate()));
        let error = wsam.error().ok_or("no error")?;
        if !matches!(&*error, WsamTrainingError::Wsam(WsamError::Conflict { .. })) {
            return Err(format!("{error:?}"));
        }
        equal("the model", &result.model, &initial)?;
    }
    Ok(())
}
