//! Models whose arenas and plans are reused from step to step.

use super::nets::*;
use burn::module::{Module, Param};
use burn::nn::LinearConfig;
use burn::optim::momentum::MomentumConfig;
use burn::tensor::{Device, Tensor};
use burn_wsam::{NonFinitePolicy, SgdBaseConfig, WsamConfig, WsamError};
use burn_wsam_support::burn_route::memory_in_use;

fn sgd() -> WsamConfig {
    WsamConfig::new(SgdBaseConfig::new().into())
}

fn sgd_momentum() -> WsamConfig {
    let momentum = MomentumConfig { momentum: 0.9, dampening: 0.0, nesterov: false };
    WsamConfig::new(SgdBaseConfig::new().with_momentum(Some(momentum)).into())
}

/// One submission a phase, the bytes of the design, and at most five or six dispatches once the weights
/// are in one arena.
pub(crate) fn counted(device: &Device) -> Result<(), String> {
    let propagating = |config: WsamConfig| config.with_non_finite(NonFinitePolicy::Propagate);
    let cases = [
        ("SGD", propagating(sgd()), 32, 5),
        ("SGD + momentum", propagating(sgd_momentum()), 40, 5),
        ("AdamW", propagating(adamw()), 48, 5),
        ("AdamW, clipped", adamw().with_max_norm(Some(1.0)), 52, 6),
        ("SGD + momentum, lean", propagating(sgd_momentum()).with_lean(true), 40, 5),
        ("AdamW, lean", propagating(adamw()).with_lean(true), 48, 5),
        // By default a step checks g~ before it writes.
        ("SGD + momentum, checked", sgd_momentum(), 44, 5),
        ("AdamW, lean, checked", adamw().with_lean(true), 52, 5),
    ];
    for (name, config, bytes, dispatches) in cases {
        let mut optim = init(&config, device)?;
        if optim.last_step_stats().is_some() {
            return Err("last_step has costs before the first step".to_owned());
        }
        let mut model = Deep::new(80, 24, device);
        let parameters = model.num_params() as u64;
        for count in 1..=6 {
            model = step(&mut optim, model, count)?;
            let stats = optim.last_step_stats().ok_or("no counts after a step")?;
            let extra = if config.lean { 0 } else { 4 * parameters };
            if stats.submissions != 2
                || stats.bytes() != bytes * parameters
                || stats.extra_bytes != extra
            {
                return Err(format!("{name}, step {count}: {stats:?}, {parameters} parameters"));
            }
            if count > 3 && stats.dispatches > dispatches {
                return Err(format!("{name}, step {count}: {stats:?} for 160 tensors"));
            }
        }
        // A base step has one phase, without the perturbation and without g~.
        let first = grads(&model, 9);
        optim.base_step(0.01, model, first).map_err(|error| error.to_string())?;
        let stats = optim.last_step_stats().ok_or("no counts after a step")?;
        // It saves 4 bytes of a norm, 12 of the ascent and 4 of g~. With clipping, one of two norms remains.
        let want = bytes - 20;
        if stats.submissions != 1 || stats.bytes() != want * parameters || stats.dispatches > 4 {
            return Err(format!("{name}, the base step: {stats:?}, {parameters} parameters"));
        }
    }
    Ok(())
}

/// Memory in use during the second pass, by Burn's count, compared with that after the first pass: `w + e_w` more,
/// in lean mode nothing more.
pub(crate) fn memory(device: &Device) -> Result<(), String> {
    for lean in [false, true] {
        let mut optim = init(&sgd_momentum().with_lean(lean), device)?;
        let mut model = Deep::new(20, 64, device);
        for count in 0..4 {
            model = step(&mut optim, model, count)?;
        }
        let parameters = model.num_params() as u64;
        let first = grads(&model, 9);
        let before = memory_in_use(device)?;
        let fail = |error: &dyn std::fmt::Display| error.to_string();
        let (during, after) = if lean {
            let ascended = optim.lean_ascend(0.01, model, first).map_err(|e| fail(&e))?;
            let during = memory_in_use(device)?;
            let second = grads(ascended.model(), 9);
            (during, optim.lean_descend(ascended, second).map_err(|e| fail(&e))?)
        } else {
            let ascended = optim.ascend(model, first).map_err(|e| fail(&e))?;
            let during = memory_in_use(device)?;
            (during, descend(&mut optim, ascended, 9)?)
        };
        let stats = optim.last_step_stats().ok_or("no counts after a step")?;
        let extra = during as f64 - before as f64;
        // Tensors start on multiples of 256 bytes, and Burn rounds the size of gradients up.
        let right = (extra - stats.extra_bytes as f64).abs() <= 0.05 * (4 * parameters) as f64;
        if !right {
            return Err(format!(
                "lean {lean}: {extra} bytes more for {parameters} parameters, {stats:?}"
            ));
        }
        drop(after);
    }
    Ok(())
}

/// In a training loop the same few arenas are reused, so no new plans are made: neither memory nor host
/// work grows.
pub(crate) fn alternating(device: &Device) -> Result<(), String> {
    for config in [sgd_momentum(), adamw().with_lean(true)] {
        let mut optim = init(&config, device)?;
        let mut model = Deep::new(30, 24, device);
        let mut made = 0;
        for count in 0..40 {
            model = step(&mut optim, model, count)?;
            let stats = optim.last_step_stats().ok_or("no counts after a step")?;
            made += if count >= 20 { stats.plans_made } else { 0 };
        }
        if made != 0 {
            return Err(format!("{made} plans were made in the last 20 of 40 steps"));
        }
    }
    Ok(())
}

/// Layers are added and removed between steps. The fused route matches tensor operations, and frozen layers do
/// not change.
pub(crate) fn growing(device: &Device) -> Result<(), String> {
    let (mut fused, mut plain) = (init(&adamw(), device)?, {
        let config = adamw().with_route(burn_wsam::RoutePolicy::TensorOps);
        config.init(device).map_err(|error| error.to_string())?
    });
    let mut model = Deep::new(6, 8, device);
    let mut other = model.clone();
    for count in 0..12 {
        match count {
            3 => {
                let added = LinearConfig::new(8, 8).init(device);
                let _ = added.weight.val();
                model.layers.push(added.clone());
                other.layers.push(added);
            }
            6 => {
                model.layers.remove(1);
                other.layers.remove(1);
            }
            // Frozen, as under an adapter.
            9 => {
                model.layers[0] = model.layers[0].clone().no_grad();
                other.layers[0] = other.layers[0].clone().no_grad();
            }
            _ => {}
        }
        let frozen = parameters(&model.layers[0]);
        model = step(&mut fused, model, count)?;
        other = step(&mut plain, other, count)?;
        if count >= 9 && parameters(&model.layers[0]) != frozen {
            return Err(format!("step {count} moved a frozen layer"));
        }
        close(&format!("step {count}"), &model, &other)?;
    }
    Ok(())
}

/// The two routes round differently.
fn close(what: &str, got: &Deep, want: &Deep) -> Result<(), String> {
    let (got, want) = (parameters(got), parameters(want));
    let values = |bits: &[Vec<u32>]| -> Vec<f32> {
        bits.iter().flatten().map(|bits| f32::from_bits(*bits)).collect()
    };
    for (i, (got, want)) in values(&got).iter().zip(values(&want)).enumerate() {
        let right = (got - want).abs() <= 2e-5 + 2e-4 * want.abs();
        if !right {
            return Err(format!("{what}: element {i} is {got}, expected {want}"));
        }
    }
    Ok(())
}

/// A parameter that changed its shape is refused, and the model is returned.
pub(crate) fn reshaped(device: &Device) -> Result<(), String> {
    for config in [sgd(), adamw()] {
        let mut optim = init(&config, device)?;
        let mut model = Deep::new(2, 8, device);
        model = step(&mut optim, model, 0)?;
        let id = model.layers[1].bias.as_ref().map(|bias| bias.id).ok_or("no bias")?;
        let wider = LinearConfig::new(8, 12).init(device);
        let bias = Param::initialized(id, Tensor::<1>::zeros([12], device).require_grad());
        model.layers[1] = burn::nn::Linear { weight: wider.weight, bias: Some(bias) };
        let before = parameters(&model);
        let first = grads(&model, 1);
        match optim.ascend(model, first) {
            Err(rejected)
                if matches!(rejected.error, WsamError::State { found: 12, state: 8, .. }) =>
            {
                same("a refused model", &rejected.model, &before)?;
            }
            other => return Err(format!("{other:?} for a parameter of another shape")),
        }
    }
    Ok(())
}

pub(crate) fn two_models(device: &Device) -> Result<(), String> {
    use super::nets::exact::step;
    let mut shared = init(&adamw(), device)?;
    let (mut alone_a, mut alone_b) = (init(&adamw(), device)?, init(&adamw(), device)?);
    let (mut a, mut b) = (Deep::new(4, 8, device), Deep::new(3, 12, device));
    let (mut want_a, mut want_b) = (a.clone(), b.clone());
    for count in 0..5 {
        a = step(&mut shared, a, count)?;
        b = step(&mut shared, b, count)?;
        want_a = step(&mut alone_a, want_a, count)?;
        want_b = step(&mut alone_b, want_b, count)?;
        same("the first model", &a, &parameters(&want_a))?;
        same("the second model", &b, &parameters(&want_b))?;
    }
    Ok(())
}

/// The ascent of a second model comes before the descent of the first.
pub(crate) fn interleaved(device: &Device) -> Result<(), String> {
    use super::nets::exact::{ascend, descend, step};
    let (mut optim, mut alone) = (init(&adamw(), device)?, init(&adamw(), device)?);
    let (mut a, mut b) = (Deep::new(4, 8, device), Deep::new(3, 12, device));
    let (mut want_a, mut want_b) = (a.clone(), b.clone());
    for count in 0..4 {
        let (up_a, up_b) = (ascend(&mut optim, a, count)?, ascend(&mut optim, b, count)?);
        a = descend(&mut optim, up_a, count)?;
        b = descend(&mut optim, up_b, count)?;
        want_a = step(&mut alone, want_a, count)?;
        want_b = step(&mut alone, want_b, count)?;
        same("the first model", &a, &parameters(&want_a))?;
        same("the second model", &b, &parameters(&want_b))?;
    }
    Ok(())
}

pub(crate) fn two_devices(one: &Device, other: &Device) -> Result<(), String> {
    use super::nets::exact::{grads, step};
    let mut runs = Vec::new();
    for device in [one, other] {
        runs.push((init(&adamw(), device)?, init(&adamw(), device)?, device));
    }
    let mut models: Vec<_> = runs.iter().map(|(.., device)| Deep::new(5, 8, device)).collect();
    let alone = models.clone();
    // Steps of the two models alternate.
    for count in 0..4 {
        for (model, (optim, ..)) in models.iter_mut().zip(&mut runs) {
            *model = step(optim, model.clone(), count)?;
        }
    }
    for ((model, mut want), (_, optim, _)) in models.iter().zip(alone).zip(&mut runs) {
        for count in 0..4 {
            want = step(optim, want, count)?;
        }
        same("a model whose steps alternated with another device's", model, &parameters(&want))?;
    }
    // An optimizer refuses a model of another device.
    let first = grads(&models[0], 0);
    match runs[1].0.ascend(models[0].clone(), first) {
        Err(rejected) if matches!(rejected.error, WsamError::Device { .. }) => Ok(()),
        other => Err(format!("{other:?} for another device's model")),
    }
}

pub(crate) fn dropped(device: &Device) -> Result<(), String> {
    let mut optim = init(&adamw(), device)?;
    let mut model = Deep::new(6, 8, device);
    for count in 0..3 {
        model = step(&mut optim, model, count)?;
    }
    let before = parameters(&model);
    let ascended = ascend(&mut optim, model, 3)?;
    drop(optim);
    // The second pass still runs, and restoring is still exact.
    let _ = ascended.model().loss(3).backward();
    let model = ascended.restore();
    same("after the optimizer was dropped", &model, &before)?;
    // A new optimizer may reuse the arenas.
    let mut next = init(&adamw(), device)?;
    let stepped = step(&mut next, model.clone(), 4)?;
    same("a clone", &model, &before)?;
    // Another optimizer cannot descend from the ascent.
    let ascended = ascend(&mut next, stepped, 5)?;
    let mut other_optim = init(&adamw(), device)?;
    let second = grads(ascended.model(), 5);
    match other_optim.descend(0.01, ascended, second) {
        Err(rejected) if matches!(rejected.error, WsamError::ForeignAscent) => Ok(()),
        other => Err(format!("{other:?} for another optimizer's ascent")),
    }
}

/// `detach` changes no value, and does not affect later steps.
pub(crate) fn detached(device: &Device) -> Result<(), String> {
    use super::nets::exact::step;
    let (mut optim, mut other) = (init(&adamw(), device)?, init(&adamw(), device)?);
    let mut model = Deep::new(6, 8, device);
    let mut want = model.clone();
    for count in 0..6 {
        model = step(&mut optim, model, count)?;
        want = step(&mut other, want, count)?;
        if count % 2 == 1 {
            let before = parameters(&model);
            model = optim.copy_to_own_memory(model);
            same("detached", &model, &before)?;
        }
    }
    same("after detaching", &model, &parameters(&want))
}

/// An exponential moving average that the user keeps of tensors in arenas.
pub(crate) fn moving_average(device: &Device) -> Result<(), String> {
    let mut optim = init(&adamw(), device)?;
    let mut model = Deep::new(4, 8, device);
    let weight = |model: &Deep| model.layers[2].weight.val().inner();
    let mut average = weight(&model);
    let mut want: Vec<f32> = average.to_data().iter().collect();
    for count in 0..6 {
        model = step(&mut optim, model, count)?;
        // `want` is read back at once; Burn may evaluate `average` later.
        let now: Vec<f32> = weight(&model).into_data().iter().collect();
        want.iter_mut().zip(&now).for_each(|(want, now)| *want = *want * 0.75 + now * 0.25);
        average = average * 0.75 + weight(&model) * 0.25;
    }
    let got: Vec<f32> = average.into_data().iter().collect();
    let right = |(got, want): (&f32, &f32)| (got - want).abs() <= 1e-6;
    if got.iter().zip(&want).all(right) {
        Ok(())
    } else {
        Err(format!("{got:?}, expected {want:?}"))
    }
}

/// A lean step equals the ordinary one within rounding, by `step` and by `lean_ascend` and `lean_descend`.
pub(crate) fn lean(device: &Device) -> Result<(), String> {
    use super::nets::exact::{grads, step};
    for config in [sgd_momentum(), adamw().with_max_norm(Some(0.5)), adamw().with_adaptive(true)] {
        let mut ordinary = init(&config, device)?;
        let (mut lean, mut by_calls) =
            (init(&config.clone().with_lean(true), device)?, init(&config, device)?);
        let mut want = Deep::new(5, 8, device);
        let (mut model, mut other) = (want.clone(), want.clone());
        let clone = (want.clone(), parameters(&want));
        for count in 0..5 {
            want = step(&mut ordinary, want, count)?;
            model = step(&mut lean, model, count)?;
            let first = grads(&other, count);
            let ascended =
                by_calls.lean_ascend(0.01, other, first).map_err(|error| error.to_string())?;
            let second = grads(ascended.model(), count);
            other = by_calls.lean_descend(ascended, second).map_err(|error| error.to_string())?;
            close(&format!("{config}, step {count}"), &model, &want)?;
            same("lean_ascend and lean_descend", &other, &parameters(&model))?;
            same("a clone", &clone.0, &clone.1)?;
        }
    }
    // Lean mode requires the decoupled form.
    let coupled = adamw().with_decouple(false);
    match coupled.clone().with_lean(true).init(device) {
        Err(WsamError::LeanCoupled) => {}
        other => return Err(format!("{other:?} for lean and coupled")),
    }
    let mut optim = init(&coupled, device)?;
    let model = Deep::new(2, 8, device);
    let (before, first) = (parameters(&model), grads(&model, 0));
    match optim.lean_ascend(0.01, model, first) {
        Err(rejected) if matches!(rejected.error, WsamError::LeanCoupled) => {
            same("refused", &rejected.model, &before)
        }
        other => Err(format!("{other:?} for lean and coupled")),
    }
}

/// An abandoned or refused lean step leaves the model at `w + e_w`, at a distance of rho.
pub(crate) fn lean_abandoned(device: &Device) -> Result<(), String> {
    let rho = 0.05;
    let mut optim = init(&adamw().with_rho(rho), device)?;
    let model = Deep::new(4, 8, device);
    let distance = |a: &[Vec<u32>], b: &[Vec<u32>]| -> f64 {
        let value = |bits: &u32| f64::from(f32::from_bits(*bits));
        let pairs = a.iter().flatten().zip(b.iter().flatten());
        pairs.map(|(a, b)| (value(a) - value(b)).powi(2)).sum::<f64>().sqrt()
    };
    let before = parameters(&model);
    let first = grads(&model, 0);
    let ascended = optim.lean_ascend(0.01, model, first).map_err(|error| error.to_string())?;
    let perturbed = parameters(ascended.model());
    let model = ascended.abandon();
    same("abandoned", &model, &perturbed)?;
    let moved = distance(&before, &perturbed);
    let right = (moved - rho).abs() < 1e-4;
    if !right {
        return Err(format!("the model moved by {moved}"));
    }
    // A lean descent without gradients is refused, and returns the same model.
    let first = grads(&model, 1);
    let ascended = optim.lean_ascend(0.01, model, first).map_err(|error| error.to_string())?;
    let perturbed = parameters(ascended.model());
    let none = burn::optim::GradientsParams::new();
    let model = match optim.lean_descend(ascended, none) {
        Err(rejected) if matches!(rejected.error, WsamError::MissingGradient { .. }) => {
            *rejected.model
        }
        other => return Err(format!("{other:?} without second gradients")),
    };
    same("refused", &model, &perturbed)?;
    step(&mut optim, model, 2).map(|_| ())
}
