//! Trainings resumed from checkpoints.

use crate::Target;
use crate::bench::{Folder, bases, differ, equal, equal_weights, rate, trained, training};
use crate::loops;
use crate::nets::{ITERATIONS, Net};
use crate::tools::{close, fork};
use burn::module::{Module, Quantizer};
use burn::nn::LinearConfig;
use burn::optim::LionConfig;
use burn::tensor::quantization::{Calibration, QuantValue};
use burn::tensor::{DType, Device};
use burn::train::checkpoint::KeepLastNCheckpoints;
use burn::train::{ExecutionStrategy, Learner, TrainingError, TrainingStrategy};
use burn_pack::Reader;
use burn_wsam::train::{Schedule, WsamTraining, WsamTrainingError};
use burn_wsam::{BaseConfig, Perturbation, SgdBaseConfig, WsamConfig, WsamError};
use std::path::Path;

const EPOCHS: usize = 3;

/// Runs all epochs, or those after a checkpoint.
fn run(
    target: &Target,
    folder: &Path,
    make: &dyn Fn() -> Result<WsamTraining, String>,
    (accumulated, exact): (usize, bool),
    from: Option<usize>,
) -> Result<Net, String> {
    let wsam = make()?;
    let mut training = training(folder, EPOCHS)
        .with_default_checkpointers()
        .grads_accumulation(accumulated)
        .with_training_strategy(wsam.strategy());
    // A resumed run starts from other weights and ids, which the checkpoint must replace.
    let mut seed = 7;
    if let Some(epoch) = from {
        training = training.checkpoint(epoch);
        seed = 8;
    }
    // The checkpoint of version 0.1 was trained with the inexact loss.
    let model = Net::normalised(seed, &target.device);
    let model = if exact { model.exact() } else { model };
    let model = trained(training.launch(wsam.learner(model, rate())))?;
    let steps = wsam.last_step().ok_or("no step")?.at.step as usize + 1;
    let want = EPOCHS * ITERATIONS.div_ceil(accumulated);
    if steps == want { Ok(model) } else { Err(format!("{steps} steps, expected {want}")) }
}

pub(crate) fn check(
    target: &Target,
    config: &WsamConfig,
    accumulated: usize,
    set: &dyn Fn(WsamTraining) -> WsamTraining,
) -> Result<(), String> {
    let make = || Ok(set(target.wsam(config)?));
    resume_after_each_epoch(target, &config.to_string(), accumulated, &make)
}

/// Resumes after each epoch and compares with the whole run.
fn resume_after_each_epoch(
    target: &Target,
    what: &str,
    accumulated: usize,
    make: &dyn Fn() -> Result<WsamTraining, String>,
) -> Result<(), String> {
    let folder = Folder::new();
    let whole = run(target, &folder, make, (accumulated, true), None)?;
    for epoch in 1..EPOCHS {
        let resumed = run(target, &folder, make, (accumulated, true), Some(epoch))?;
        equal_weights(&format!("{what} after {epoch}"), &resumed, &whole)?;
    }
    Ok(())
}

/// With a Burn optimizer as the base, the checkpoint contains that optimizer's record.
pub(crate) fn burn_base(target: &Target) -> Result<(), String> {
    let make = || {
        let config = WsamConfig::new(BaseConfig::Burn).with_route(target.policy);
        let optim = config.init_with(LionConfig::new().init(), &target.device);
        Ok(WsamTraining::new(optim.map_err(|error| error.to_string())?))
    };
    resume_after_each_epoch(target, "Lion", 1, &make)
}

/// Resumes a training with parameters that never have a gradient, or have none in the first steps.
pub(crate) fn whole(target: &Target) -> Result<(), String> {
    for (base, _) in bases() {
        let config = WsamConfig::new(base);
        check(target, &config, 1, &|wsam| wsam)?;
        check(target, &config.with_lean(true).with_max_norm(Some(0.5)), 1, &|wsam| wsam)?;
    }
    check(target, &WsamConfig::new(SgdBaseConfig::new().into()), 1, &|wsam| wsam)
}

/// Schedules continue: rho by its scheduler's record, gamma and WSAM's activity by the number of steps.
pub(crate) fn schedules(target: &Target) -> Result<(), String> {
    let set = |wsam: WsamTraining| {
        wsam.with_rho(loops::rho())
            .with_gamma(Schedule::from_fn(|at| 0.9 - 0.05 * at.step as f64))
            .with_active(|at| at.step > 2)
            .with_perturbation(Perturbation::EachMicroBatch)
    };
    for (base, _) in bases() {
        check(target, &WsamConfig::new(base), 2, &set)?;
    }
    Ok(())
}

/// A training continues from Burn's own strategy to WSAM at gamma 0 and back, with the result of Burn's alone.
///
/// Each part ends with the checkpoint that the next part loads. Burn 0.22.1 writes checkpoints while the training
/// continues, from memory that the training overwrites, so on wgpu only the last checkpoint of a run is reliable.
pub(crate) fn takeover(target: &Target) -> Result<(), String> {
    for (base, burn) in bases() {
        let folder = Folder::new();
        let own = || TrainingStrategy::Default(ExecutionStrategy::single(target.device.clone()));
        let part = |epochs| training(&folder, epochs).with_default_checkpointers();
        let initial = Net::new(7, &target.device);
        let other = || Net::new(8, &target.device);
        let whole = training(&folder, 3).with_training_strategy(own()).launch(Learner::new(
            fork(&initial),
            burn(),
            rate(),
        ));
        let whole = trained(whole)?;

        let learner = Learner::new(initial, burn(), rate());
        trained(part(1).with_training_strategy(own()).launch(learner))?;
        let wsam = target.wsam(&WsamConfig::new(base.clone()).with_gamma(0.0))?;
        let resumed = part(2)
            .checkpoint(1)
            .with_training_strategy(wsam.strategy())
            .launch(wsam.learner(other(), rate()));
        differ("one epoch less", &trained(resumed)?, &whole)?;
        let learner = Learner::new(other(), burn(), rate());
        let back = part(3).checkpoint(2).with_training_strategy(own()).launch(learner);
        close(&format!("{base:?}"), &trained(back)?, &whole)?;
    }
    Ok(())
}

/// The training ends with an error before its first step, and returns the checkpoint's model.
pub(crate) fn refused(target: &Target) -> Result<(), String> {
    let folder = Folder::new();
    let [(sgd, _), (adamw, _)] = bases();
    let wsam = target.wsam(&WsamConfig::new(sgd))?;
    let training = |epochs| training(&folder, epochs).with_default_checkpointers();
    let result = training(1)
        .with_training_strategy(wsam.strategy())
        .launch(wsam.learner(Net::new(7, &target.device), rate()));
    let first = trained(result)?;

    let wsam = target.wsam(&WsamConfig::new(adamw))?;
    let result = training(2)
        .checkpoint(1)
        .with_training_strategy(wsam.strategy())
        .launch(wsam.learner(Net::new(8, &target.device), rate()));
    let Some(TrainingError::Workers(failures)) = result.error.as_deref() else {
        return Err(format!("not refused: {:?}", result.error));
    };
    let is_named = failures.iter().any(|failure| failure.message.contains("momentum.velocity"));
    let error = wsam.error().ok_or("no error")?;
    let right = matches!(
        &*error,
        WsamTrainingError::Wsam(WsamError::RecordState { base: "AdamW", found, .. })
            if found.len() == 1
    );
    if !right || !is_named {
        return Err(format!("{error:?}, {failures:?}"));
    }
    equal("the checkpoint's model", &result.model, &first)
}

/// A checkpoint is deleted while the training still needs the states of its frozen parameters, which it writes to
/// later checkpoints.
pub(crate) fn deleted(target: &Target) -> Result<(), String> {
    for (base, _) in bases() {
        let folder = Folder::new();
        let launch = |epochs: usize, seed: u64, from: Option<usize>| {
            let wsam = target.wsam(&WsamConfig::new(base.clone()))?;
            let mut training = training(&folder, epochs)
                .with_default_checkpointers()
                .with_training_strategy(wsam.strategy());
            let mut model = Net::normalised(seed, &target.device);
            if let Some(epoch) = from {
                training = training
                    .checkpoint(epoch)
                    .with_checkpointing_strategy(KeepLastNCheckpoints::new(1));
                model.b = model.b.no_grad();
            }
            trained(training.launch(wsam.learner(model, rate())))
        };
        let before = launch(2, 7, None)?;
        let states = |epoch: usize| {
            let file = folder.join("checkpoint").join(format!("optim-{epoch}.bpk"));
            let reader = Reader::from_file(file).map_err(|error| error.to_string())?;
            let id = before.b.weight.id.val().to_string();
            let names = reader.tensor_names().into_iter().filter(|name| name.starts_with(&id));
            let read = |name: &str| {
                let data = reader.tensor_data(name).map_err(|error| error.to_string())?;
                Ok((name.to_owned(), data))
            };
            names.map(read).collect::<Result<Vec<_>, String>>()
        };
        let want = states(2)?;
        let after = launch(4, 8, Some(2))?;
        if folder.join("checkpoint/optim-2.bpk").exists() {
            return Err("the checkpoint was not deleted".to_owned());
        }
        if want.is_empty() || states(4)? != want {
            return Err("states of frozen parameters were lost".to_owned());
        }
        let weights = |net: &Net| net.b.weight.val().into_data();
        if weights(&after) != weights(&before) {
            return Err("a frozen layer changed".to_owned());
        }
        differ("two epochs more", &after, &before)?;
    }
    Ok(())
}

/// Dropout masks continue after a resume.
pub(crate) fn masks(target: &Target) -> Result<(), String> {
    let config = WsamConfig::new(SgdBaseConfig::new().into()).with_mask_seed(Some(5));
    check_with_dropout(target, &|| target.wsam(&config))?;
    let burn_base = || {
        let config = WsamConfig::new(BaseConfig::Burn).with_mask_seed(Some(5));
        let config = config.with_route(target.policy);
        let optim = config.init_with(LionConfig::new().init(), &target.device);
        Ok(WsamTraining::new(optim.map_err(|error| error.to_string())?))
    };
    check_with_dropout(target, &burn_base)
}

fn check_with_dropout(
    target: &Target,
    make: &dyn Fn() -> Result<WsamTraining, String>,
) -> Result<(), String> {
    let folder = Folder::new();
    let run = |seed: u64, from: Option<usize>| {
        let wsam = make()?;
        let mut training = training(&folder, EPOCHS)
            .with_default_checkpointers()
            .with_training_strategy(wsam.strategy());
        if let Some(epoch) = from {
            training = training.checkpoint(epoch);
        }
        trained(training.launch(wsam.learner(Net::with_dropout(seed, &target.device), rate())))
    };
    let whole = run(7, None)?;
    for epoch in 1..EPOCHS {
        equal(&format!("masks after {epoch}"), &run(8, Some(epoch))?, &whole)?;
    }
    Ok(())
}

/// A checkpoint written by version 0.1 after one epoch of SGD with momentum.
pub(crate) fn version_0_1(target: &Target) -> Result<(), String> {
    let [(sgd, _), _] = bases();
    let make = || target.wsam(&WsamConfig::new(sgd.clone()));
    let folder = Folder::new();
    let checkpoint = folder.join("checkpoint");
    std::fs::create_dir_all(&checkpoint).map_err(|error| error.to_string())?;
    let committed = burn_wsam_support::repository().join("tests/records/0.1/checkpoint");
    for name in ["model-1.bpk", "optim-1.bpk", "scheduler-1.bpk"] {
        let copied = std::fs::copy(committed.join(name), checkpoint.join(name));
        copied.map_err(|error| error.to_string())?;
    }
    let resumed = run(target, &folder, &make, (1, false), Some(1))?;
    // On flex random numbers are the same on all machines, so the whole run can be repeated.
    if target.device.clone().inner() == Device::flex() {
        let whole = run(target, &Folder::new(), &make, (1, false), None)?;
        close("the whole run", &fork(&resumed), &fork(&whole))?;
    }
    Ok(())
}

/// A quantised layer does not change through steps, checkpoints and a resumed training.
pub(crate) fn quantised(target: &Target) -> Result<(), String> {
    let scheme = target.device.settings().quantization.scheme.with_value(QuantValue::Q8S);
    let net = |seed| {
        let mut net = Net::new(seed, &target.device);
        let mut quantizer = Quantizer::new(Calibration::MinMax, scheme);
        // A layer without a gradient may have any element type.
        net.never = LinearConfig::new(8, 8).init(&target.device).quantize_weights(&mut quantizer);
        net
    };
    let bytes = |what: &str, net: &Net| {
        let weight = net.never.weight.val().without_autodiff();
        match weight.dtype() {
            DType::QFloat(_) => Ok(weight.into_data().as_bytes().to_vec()),
            other => Err(format!("the quantised weight of {what} is {other:?}")),
        }
    };
    let folder = Folder::new();
    let launch = |epochs: usize, net: Net, from: Option<usize>| {
        let wsam = target.wsam(&WsamConfig::new(SgdBaseConfig::new().into()))?;
        let mut training = training(&folder, epochs)
            .with_default_checkpointers()
            .with_training_strategy(wsam.strategy());
        if let Some(epoch) = from {
            training = training.checkpoint(epoch);
        }
        trained(training.launch(wsam.learner(net, rate())))
    };
    let start = net(7);
    let want = bytes("the start", &start)?;
    let whole = launch(2, start, None)?;
    let resumed = launch(2, net(8), Some(1))?;
    for (what, net) in [("the training", &whole), ("the resumed one", &resumed)] {
        if bytes(what, net)? != want {
            return Err(format!("a quantised layer changed in {what}"));
        }
    }
    let weights = |net: &Net| net.b.weight.val().into_data();
    match weights(&whole) == weights(&resumed) {
        true => Ok(()),
        false => Err("the resumed training differs".to_owned()),
    }
}
