//! AE-SAM's rule, micro-batches and calls under the rules and the methods.

use super::{methods, momentum, sam};
use crate::Target;
use crate::misuse::refused;
use crate::nets::{ConvNet, Mlp, close, fork, grads, parameters, same, text};
use burn::optim::GradientsParams;
use burn_wsam::method::{AeSam, Passes};
use burn_wsam::{
    AeSamConfig, IntervalConfig, MethodConfig, NextStep, Perturbation, Wsam, WsamConfig, WsamError,
};

/// Each step decides by the gradient norm of the step before it; the weights are those of the steps taken by hand.
pub(crate) fn ae_sam(target: &Target) -> Result<(), String> {
    let rule = AeSamConfig::new(200).with_decay(0.7).with_first_threshold(0.2);
    for adaptive in [false, true] {
        let config = sam(momentum().into()).with_adaptive(adaptive);
        let scheduled = config.clone().with_track_norms(true).with_pass_rule(rule.clone().into());
        let (mut optim, mut by_hand) = (target.init(&scheduled)?, target.init(&config)?);
        let mut model = Mlp::new(&target.device);
        let mut want = model.clone();
        let mut decides = AeSam { decay: 0.7, first_threshold: 0.2, ..AeSam::new(200) };
        let mut last: Option<f64> = None;
        let mut seen = [0; 2];
        for batch in 0..24 {
            // A NaN skips step 7, so that step 8 has no norm to decide by, and it does not count.
            let factor = |pass: usize| if (batch, pass) == (7, 0) { f32::NAN } else { 1.0 };
            let step = if batch > 7 { batch - 1 } else { batch };
            let passes = last.map_or(Passes::Two, |norm| decides.decide(step, norm));
            let mut calls = 0;
            let report;
            (model, report) = optim
                .step(0.02, model, |model| {
                    calls += 1;
                    model.exact(batch) * factor(calls - 1)
                })
                .map_err(text)?;
            if report.passes() != passes {
                return Err(format!(
                    "step {batch} took {:?}, expected {passes:?}",
                    report.passes()
                ));
            }
            seen[usize::from(passes == Passes::Two)] += 1;
            last = report.gradient_norm().map_err(text)?.filter(|norm| norm.is_finite());
            let mut calls = 0;
            want = match passes {
                Passes::One => {
                    let grads = grads(&(want.exact(batch) * factor(0)), &want);
                    by_hand.base_step(0.02, want, grads).map_err(text)?
                }
                Passes::Two => {
                    let step = by_hand.step(0.02, want, |model| {
                        calls += 1;
                        model.exact(batch) * factor(calls - 1)
                    });
                    step.map_err(text)?.0
                }
            };
            same(&format!("adaptive {adaptive}, step {batch}"), &model, &parameters(&want))?;
        }
        if seen.iter().any(|count| *count < 4) {
            return Err(format!("{seen:?} steps of one pass and of two"));
        }
    }
    Ok(())
}

/// The configurations whose steps have one pass or two by turns.
fn varying() -> Vec<WsamConfig> {
    let every_second = || IntervalConfig::new(2).into();
    let mut configs = vec![sam(momentum().into()).with_pass_rule(every_second())];
    for method in methods() {
        configs.push(sam(momentum().into()).with_method(method.clone()));
        if matches!(method, MethodConfig::Gsam(_) | MethodConfig::FriendlySam(_)) {
            let config = sam(momentum().into()).with_method(method);
            configs.push(config.with_pass_rule(every_second()));
        }
    }
    configs
}

/// A step by the calls that `next_step` names.
fn by_calls(optim: &mut Wsam, model: Mlp, batch: u64) -> Result<Mlp, String> {
    let grads_of = |model: &Mlp| grads(&model.exact(batch), model);
    Ok(match optim.next_step().map_err(text)? {
        NextStep::OnePass => {
            let first = grads_of(&model);
            optim.one_pass_step(0.01, model, first).map_err(text)?
        }
        NextStep::AlongMomentum => {
            let ascended = optim.ascend_along_momentum(model).map_err(text)?;
            let only = grads_of(ascended.model());
            optim.descend(0.01, ascended, only).map_err(text)?
        }
        _ => {
            let first = grads_of(&model);
            let ascended = optim.ascend(model, first).map_err(text)?;
            let second = grads_of(ascended.model());
            optim.descend(0.01, ascended, second).map_err(text)?
        }
    })
}

/// The closure and the calls take the same steps, bit for bit.
pub(crate) fn closure_and_calls(target: &Target) -> Result<(), String> {
    for config in varying() {
        let (mut optim, mut other) = (target.init(&config)?, target.init(&config)?);
        let mut model = Mlp::new(&target.device);
        let mut want = model.clone();
        for batch in 0..7 {
            (model, _) = optim.step(0.01, model, |model| model.exact(batch)).map_err(text)?;
            want = by_calls(&mut other, want, batch)?;
            same(&format!("{config}, step {batch}"), &model, &parameters(&want))?;
        }
    }
    Ok(())
}

/// Micro-batches with one perturbation step like one batch of their average loss.
pub(crate) fn micro_batches(target: &Target) -> Result<(), String> {
    for config in varying() {
        let (mut optim, mut plain) = (target.init(&config)?, target.init(&config)?);
        let mut model = Mlp::new(&target.device);
        let mut want = model.clone();
        for step in 0..5 {
            let parts = [10 * step, 10 * step + 1];
            let stepped =
                optim.step_accumulated(0.01, model, Perturbation::Whole, &parts, |model, part| {
                    model.loss(*part)
                });
            let report;
            (model, report) = stepped.map_err(text)?;
            let loss = |model: &Mlp| (model.loss(parts[0]) + model.loss(parts[1])) / 2.0;
            let want_report;
            (want, want_report) = plain.step(0.01, want, loss).map_err(text)?;
            if report.passes() != want_report.passes() {
                return Err(format!("step {step}: {:?}", report.passes()));
            }
            close(&format!("{config}, step {step}"), &model, &want)?;
        }
    }
    Ok(())
}

/// Perturbations along each micro-batch's own gradient: in steps of one pass there are none, so those are the steps of
/// `Whole`. Momentum-SAM has none at all.
pub(crate) fn each_micro_batch(target: &Target) -> Result<(), String> {
    for config in varying() {
        let mut optim = target.init(&config)?;
        let model = Mlp::new(&target.device);
        let loss = |model: &Mlp, part: &u64| model.loss(*part);
        let each = Perturbation::EachMicroBatch;
        let parts = [0, 1];
        let stepped = optim.step_accumulated(0.01, model.clone(), each, &parts, loss);
        if matches!(config.method, MethodConfig::MomentumSam) {
            let conflict = |error: &WsamError| matches!(error, WsamError::Conflict { .. });
            refused("micro-batches along the momentum", stepped, &parameters(&model), conflict)?;
            continue;
        }
        let (mut model, report) = stepped.map_err(text)?;
        if report.passes() != Passes::Two {
            return Err(format!("{config}: the first step took {:?}", report.passes()));
        }
        for part in 0..4_u64 {
            let two = optim.next_step().map_err(text)? == NextStep::TwoPasses;
            let mut calls = 0;
            let stepped = optim.step_accumulated(0.01, model, each, &[part, 9], |model, part| {
                calls += 1;
                model.loss(*part)
            });
            (model, _) = stepped.map_err(text)?;
            if calls != if two { 4 } else { 2 } {
                return Err(format!("{config}: {calls} calls, two passes {two}"));
            }
        }
    }
    Ok(())
}

/// Running statistics advance once a step, from the first pass, or from Momentum-SAM's only one.
pub(crate) fn running_statistics(target: &Target) -> Result<(), String> {
    for config in varying() {
        let mut optim = target.init(&config)?;
        let mut model = ConvNet::new(&target.device);
        for batch in 0..4 {
            let point = fork(&model);
            let is_along = optim.next_step().map_err(text)? == NextStep::AlongMomentum;
            let want = match is_along {
                false => point,
                true => {
                    // The pass of a fresh copy at the same perturbed weights.
                    let ascended = optim.ascend_along_momentum(model).map_err(text)?;
                    let copy = fork(ascended.model());
                    model = ascended.restore();
                    copy
                }
            };
            drop(want.loss(batch));
            (model, _) = optim.step(0.01, model, |model| model.loss(batch)).map_err(text)?;
            let statistics = |model: &ConvNet| {
                let all = parameters(&fork(model)).into_iter();
                all.filter(|(path, _)| path.contains("running_")).collect::<Vec<_>>()
            };
            let (got, want) = (statistics(&model), statistics(&want));
            if got.is_empty() || got.len() != want.len() {
                return Err(format!("{} running statistics", got.len()));
            }
            for ((path, got), (_, want)) in got.iter().zip(&want) {
                let want: Vec<f64> = want.iter().copied().map(f64::from).collect();
                crate::nets::near(&format!("{config}, step {batch}: {path}"), got, &want)?;
            }
        }
    }
    Ok(())
}

/// A loss scale that is a power of two changes no bits.
pub(crate) fn loss_scale(target: &Target) -> Result<(), String> {
    for config in varying() {
        let scale = burn_wsam::LossScaleConfig::fixed(64.0);
        let scaled = config.clone().with_loss_scale(Some(scale));
        let (mut optim, mut plain) = (target.init(&scaled)?, target.init(&config)?);
        let mut model = Mlp::new(&target.device);
        let mut want = model.clone();
        for batch in 0..6 {
            (model, _) = optim.step(0.01, model, |model| model.exact(batch)).map_err(text)?;
            (want, _) = plain.step(0.01, want, |model| model.exact(batch)).map_err(text)?;
            same(&format!("{config}, step {batch}"), &model, &parameters(&want))?;
        }
    }
    Ok(())
}

/// A model at `w` after each step: validating or saving it never sees perturbed weights.
pub(crate) fn returns_unperturbed(target: &Target) -> Result<(), String> {
    let config = sam(momentum().into()).with_method(MethodConfig::MomentumSam).with_rho(0.5);
    let mut optim = target.init(&config)?;
    let mut model = Mlp::new(&target.device);
    (model, _) = optim.step(0.01, model, |model| model.exact(0)).map_err(text)?;
    let at_w = parameters(&model);
    let ascended = optim.ascend_along_momentum(model).map_err(text)?;
    if parameters(ascended.model()) == at_w {
        return Err("the second step does not perturb".to_owned());
    }
    let model = ascended.restore();
    same("the restored model", &model, &at_w)?;
    // A failed step returns the model at `w`, too.
    let ascended = optim.ascend_along_momentum(model).map_err(text)?;
    match optim.descend(0.01, ascended, GradientsParams::new()) {
        Ok(_) => Err("a step without gradients".to_owned()),
        Err(rejected) => same("the refused model", &*rejected.model, &at_w),
    }
}
