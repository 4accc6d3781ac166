//! Files, metrics and reports of a training.

use crate::Target;
use crate::bench::{Folder, bases, rate, trained, training};
use crate::nets::{ITERATIONS, Net, batches};
use crate::tools::{fork, near, text};
use burn::train::logger::{FileMetricLogger, MetricLogger};
use burn::train::metric::NumericEntry;
use burn::train::metric::store::Split;
use burn::train::{RegressionOutput, TrainStep};
use burn_wsam::train::StepInfo;
use burn_wsam::{Perturbation, WsamConfig};

/// The training writes Burn's files under Burn's names.
pub(crate) fn files(target: &Target) -> Result<(), String> {
    let folder = Folder::new();
    let wsam = target.wsam(&WsamConfig::new(bases()[1].0.clone()))?;
    let result = training(&folder, 2)
        .with_metric_logger(FileMetricLogger::new(&*folder))
        .with_default_checkpointers()
        .with_training_strategy(wsam.strategy())
        .summary()
        .launch(wsam.learner(Net::new(7, &target.device), rate()));
    trained(result)?;
    for epoch in 1..=2 {
        for file in [
            format!("checkpoint/model-{epoch}.bpk"),
            format!("checkpoint/optim-{epoch}.bpk"),
            format!("checkpoint/scheduler-{epoch}.bpk"),
            format!("train/epoch-{epoch}/Loss.log"),
            format!("valid/epoch-{epoch}/Loss.log"),
        ] {
            let len = std::fs::metadata(folder.join(&file)).map(|found| found.len());
            if !len.as_ref().is_ok_and(|len| *len > 0) {
                return Err(format!("{file}: {len:?}"));
            }
        }
    }
    Ok(())
}

/// `L(w + e_w) - L(w)` of each step, computed with the optimizer directly.
fn sharpness_by_hand(
    target: &Target,
    config: &WsamConfig,
    mut model: Net,
    accumulated: usize,
) -> Result<Vec<f64>, String> {
    let mut optim = target.init(config)?;
    let mut rate = rate();
    let mut found = Vec::new();
    for window in batches(&target.device).chunks(accumulated) {
        let mut sharpness = 0.0;
        let mut pass = |model: &Net, sign: f64| {
            let mut grads = burn::optim::GradientsAccumulator::new();
            for batch in window {
                let output = TrainStep::step(model, batch.clone());
                sharpness += sign * output.item.loss.into_scalar::<f64>();
                grads.accumulate(model, output.grads);
            }
            grads.grads()
        };
        let first = pass(&model, -1.0);
        let ascended = optim.ascend(model, first).map_err(text)?;
        let second = pass(ascended.model(), 1.0);
        model = optim.descend(rate.step().base(), ascended, second).map_err(text)?;
        found.push(sharpness);
    }
    Ok(found)
}

pub(crate) fn sharpness(target: &Target) -> Result<(), String> {
    for accumulated in [1, 3] {
        let folder = Folder::new();
        // A perturbation large enough for a visible difference of f32 losses.
        let config = WsamConfig::new(bases()[0].0.clone()).with_rho(0.5);
        let wsam = target.wsam(&config)?;
        let initial = Net::new(7, &target.device);
        let result = training(&folder, 1)
            .metric_train_numeric(wsam.sharpness_metric())
            .with_metric_logger(FileMetricLogger::new(&*folder))
            .grads_accumulation(accumulated)
            .with_training_strategy(
                wsam.strategy_with_loss(|output: &RegressionOutput| output.loss.clone()),
            )
            .launch(wsam.learner(fork(&initial), rate()));
        trained(result)?;
        let mut log = FileMetricLogger::new(&*folder);
        let entries = log.read_numeric("Sharpness", 1, &Split::Train)?;
        let mut logged: Vec<_> = entries.iter().map(NumericEntry::current).collect();
        let mean = logged.pop().ok_or("nothing was logged")?;

        let want = sharpness_by_hand(target, &config, initial, accumulated)?;
        let got: Vec<_> = logged.iter().map(|value| *value as f32).collect();
        near("sharpness", &got, &want)?;
        let expected = want.iter().sum::<f64>() / want.len() as f64;
        near("its mean", &[mean as f32], &[expected])?;
        if !want.iter().all(|value| *value > 1e-3) {
            return Err(format!("the sharpness is too small to compare: {want:?}"));
        }
    }
    Ok(())
}

pub(crate) fn last(target: &Target) -> Result<(), String> {
    let folder = Folder::new();
    let config = WsamConfig::new(bases()[0].0.clone()).with_track_norms(true);
    let wsam = target
        .wsam(&config)?
        .with_gamma(burn_wsam::train::Schedule::from_fn(|at| 0.1 * at.epoch as f64))
        .with_perturbation(Perturbation::EachMicroBatch)
        .with_active(|at| at.epoch == 2);
    if wsam.last_step().is_some() || wsam.route() != target.init(&config)?.route() {
        return Err(format!("{:?} before any step", wsam.last_step()));
    }
    let result = training(&folder, 2)
        .with_training_strategy(
            wsam.strategy_with_loss(|output: &RegressionOutput| output.loss.clone()),
        )
        .launch(wsam.learner(Net::new(7, &target.device), rate()));
    trained(result)?;
    let last = wsam.last_step().ok_or("no step")?;
    let (mut rate, steps) = (rate(), 2 * ITERATIONS);
    let lr = (0..steps).map(|_| rate.step().base()).last();
    let StepInfo { epoch, step, .. } = last.at;
    let right = (epoch, step) == (2, steps as u64 - 1) && Some(last.lr) == lr && last.perturbed;
    if !right || last.rho != 0.05 || last.gamma != 0.2 {
        return Err(format!("{last:?}"));
    }
    let report = last.report().ok_or("no report")?;
    let norm = report.gradient_norm().map_err(text)?.ok_or("no norm")?;
    let perturbed = report.perturbed_gradient_norm().map_err(text)?.ok_or("no norm")?;
    if !(norm > 0.0 && perturbed > 0.0) {
        return Err(format!("norms {norm} and {perturbed}"));
    }
    // Few dispatches show that the learner's weights are still in the optimizer's arena.
    #[cfg(feature = "fused-wsam")]
    if let Some(cost) = wsam.last_step_stats()
        && cost.dispatches > 8
    {
        return Err(format!("{cost:?}"));
    }
    Ok(())
}
