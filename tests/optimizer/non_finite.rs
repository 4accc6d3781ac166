//! Steps with non-finite gradients, and loss scaling.

use super::Target;
use super::misuse::refused;
use super::nets::{Mlp, config, grads, parameters, same, text};
use burn::optim::LionConfig;
use burn::optim::momentum::MomentumConfig;
use burn_wsam::method::Outcome;
use burn_wsam::{
    AdamWBaseConfig, BaseConfig, LossScaleConfig, NonFinitePolicy, SgdBaseConfig, StepReport, Wsam,
    WsamConfig, WsamError,
};

fn adamw() -> WsamConfig {
    WsamConfig::new(AdamWBaseConfig::new().into())
}

fn momentum() -> WsamConfig {
    let momentum = MomentumConfig::new().with_dampening(0.3);
    WsamConfig::new(SgdBaseConfig::new().with_momentum(Some(momentum)).into())
}

/// Factors on the losses of both passes, and the expected outcome. The first two steps run before a state exists.
const STEPS: [([f32; 2], Outcome); 6] = [
    ([f32::NAN, 1.0], Outcome::Skipped),
    ([1.0, f32::INFINITY], Outcome::Skipped),
    ([1.0, 1.0], Outcome::Whole),
    ([f32::INFINITY, f32::NAN], Outcome::Skipped),
    ([1.0, f32::NAN], Outcome::Skipped),
    ([1.0, 1.0], Outcome::Whole),
];

type Stepped = (Mlp, StepReport);

fn step(
    optim: &mut Wsam,
    model: Mlp,
    batch: u64,
    factors: [f32; 2],
) -> Result<Stepped, burn_wsam::Rejected<Mlp>> {
    let mut pass = 0;
    optim.step(0.01, model, |model| {
        pass += 1;
        model.exact(batch) * factors[pass - 1]
    })
}

/// A run with skipped steps equals the run without them, bit for bit.
pub(crate) fn skips(target: &Target) -> Result<(), String> {
    let lion = LionConfig::new().init();
    let burn_base = WsamConfig::new(BaseConfig::Burn);
    let configs = [
        (adamw(), None),
        (momentum().with_max_norm(Some(0.1)).with_adaptive(true), None),
        (config().with_decouple(false), None),
        (burn_base.clone(), Some(lion.clone())),
        (burn_base.with_decouple(false).with_max_norm(Some(0.1)), Some(lion)),
    ];
    for (config, external) in configs {
        let init = || match &external {
            None => target.init(&config),
            Some(base) => {
                let config = config.clone().with_route(target.policy);
                config.init_with(base.clone(), &target.device).map_err(text)
            }
        };
        let (mut optim, mut reference) = (init()?, init()?);
        let mut model = Mlp::new(&target.device);
        let mut want = model.clone();
        for (batch, (factors, outcome)) in STEPS.into_iter().enumerate() {
            let what = format!("{config}, step {batch}");
            let report;
            (model, report) = step(&mut optim, model, batch as u64, factors).map_err(text)?;
            let found = report.outcome().map_err(text)?;
            if found != outcome {
                return Err(format!("{what}: {found:?}, not {outcome:?}"));
            }
            if outcome == Outcome::Whole {
                (want, _) = step(&mut reference, want, batch as u64, factors).map_err(text)?;
            }
            same(&what, &model, &parameters(&want))?;
            let id = model.a.weight.id;
            let states = (optim.state(id).map_err(text)?, reference.state(id).map_err(text)?);
            if states.0 != states.1 {
                return Err(format!("{what}: the states are {states:?}"));
            }
        }
        let skipped = optim.skipped_steps().map_err(text)?;
        if skipped != 4 {
            return Err(format!("{config}: {skipped} steps skipped"));
        }
        // `base_step` skips as well.
        let alone = grads(&(model.exact(9) * f32::NAN), &model);
        model = optim.base_step(0.01, model, alone).map_err(text)?;
        same("after a base step over NaNs", &model, &parameters(&want))?;
        let alone = grads(&model.exact(9), &model);
        model = optim.base_step(0.01, model, alone).map_err(text)?;
        let alone = grads(&want.exact(9), &want);
        want = reference.base_step(0.01, want, alone).map_err(text)?;
        same("after a base step", &model, &parameters(&want))?;
    }
    Ok(())
}

/// With `NonFinitePolicy::BaseStep`, the base optimizer steps on `g` if only `g~` is not finite.
pub(crate) fn falls_back(target: &Target) -> Result<(), String> {
    for config in [adamw(), momentum().with_max_norm(Some(0.1)), config().with_decouple(false)] {
        let policy = config.clone().with_non_finite(NonFinitePolicy::BaseStep);
        let (mut optim, mut reference) = (target.init(&policy)?, target.init(&config)?);
        let mut model = Mlp::new(&target.device);
        let mut want = model.clone();
        for (batch, (factors, _)) in (0..).zip(STEPS) {
            let report;
            (model, report) = step(&mut optim, model, batch, factors).map_err(text)?;
            let outcome = match factors.map(f32::is_finite) {
                [true, true] => Outcome::Whole,
                [true, false] => Outcome::Base,
                [false, _] => Outcome::Skipped,
            };
            if report.outcome().map_err(text)? != outcome {
                return Err(format!("{config}, step {batch}: not {outcome:?}"));
            }
            match outcome {
                Outcome::Whole => {
                    (want, _) = step(&mut reference, want, batch, factors).map_err(text)?;
                }
                Outcome::Base => {
                    let alone = grads(&want.exact(batch), &want);
                    want = reference.base_step(0.01, want, alone).map_err(text)?;
                }
                _ => {}
            }
            super::nets::close(&format!("{config}, step {batch}"), &model, &want)?;
        }
    }
    Ok(())
}

/// With `NonFinitePolicy::Refuse`, the error returns the model, and the next step is not affected.
pub(crate) fn refuses(target: &Target) -> Result<(), String> {
    for lean in [false, true] {
        let config = adamw().with_lean(lean);
        let refusing = config.clone().with_non_finite(NonFinitePolicy::Refuse);
        let (mut optim, mut reference) = (target.init(&refusing)?, target.init(&config)?);
        let mut model = Mlp::new(&target.device);
        let mut want = model.clone();
        for (batch, (factors, outcome)) in (0..).zip(STEPS) {
            if lean && factors[0].is_finite() && outcome != Outcome::Whole {
                continue; // Lean mode cannot undo its first phase.
            }
            let before = parameters(&model);
            let stepped = step(&mut optim, model, batch, factors);
            if outcome == Outcome::Whole {
                (model, _) = stepped.map_err(text)?;
                (want, _) = step(&mut reference, want, batch, factors).map_err(text)?;
                same("between refusals", &model, &parameters(&want))?;
                continue;
            }
            let first = factors[0].is_finite();
            model = refused(
                "a step over NaNs",
                stepped,
                &before,
                |error| matches!(error, WsamError::NonFinite { gradient, .. } if *gradient == first),
            )?;
        }
        let alone = grads(&(model.exact(0) * f32::INFINITY), &model);
        let before = parameters(&model);
        refused("a base step", optim.base_step(0.1, model, alone), &before, |error| {
            matches!(error, WsamError::NonFinite { gradient: false, .. })
        })?;
    }
    Ok(())
}

/// In lean mode a non-finite `g` skips the step. A non-finite `g~` leaves the weights at the point where the
/// second pass ran.
pub(crate) fn lean(target: &Target) -> Result<(), String> {
    let config = momentum().with_lean(true);
    let (mut optim, mut reference) = (target.init(&config)?, target.init(&config)?);
    let mut model = Mlp::new(&target.device);
    let mut want = model.clone();
    for (batch, (factors, outcome)) in (0..).zip(STEPS) {
        let halfway = factors[0].is_finite() && outcome != Outcome::Whole;
        let mut ran_on = Vec::new();
        let mut pass = 0;
        let (stepped, report) = optim
            .step(0.01, model, |model| {
                pass += 1;
                ran_on = parameters(model);
                model.exact(batch) * factors[pass - 1]
            })
            .map_err(text)?;
        model = stepped;
        let found = report.outcome().map_err(text)?;
        if found != if halfway { Outcome::Halfway } else { outcome } {
            return Err(format!("step {batch}: {found:?}"));
        }
        if halfway {
            same("a halfway step", &model, &ran_on)?;
            // The reference takes the first phase too, so its state advances in the same way.
            let first = grads(&want.exact(batch), &want);
            let ascended = reference.lean_ascend(0.01, want, first).map_err(text)?;
            want = ascended.abandon();
        } else if outcome == Outcome::Whole {
            (want, _) = step(&mut reference, want, batch, factors).map_err(text)?;
        }
        same(&format!("step {batch}"), &model, &parameters(&want))?;
    }
    Ok(())
}

/// With `NonFinitePolicy::Propagate`, a NaN reaches the weights.
pub(crate) fn propagates(target: &Target) -> Result<(), String> {
    let config = adamw().with_non_finite(NonFinitePolicy::Propagate);
    let mut optim = target.init(&config)?;
    let model = Mlp::new(&target.device);
    let (model, report) = step(&mut optim, model, 0, [1.0, f32::NAN]).map_err(text)?;
    let finite = parameters(&model).iter().all(|(_, values)| values.iter().all(|x| x.is_finite()));
    if finite || report.outcome().map_err(text)? != Outcome::Whole {
        return Err("the NaN did not reach the weights".into());
    }
    Ok(())
}

/// A loss scale that is a power of two changes no bit, whether it is fixed or dynamic.
pub(crate) fn scales(target: &Target) -> Result<(), String> {
    let fixed = LossScaleConfig::fixed(1024.0);
    let grown = LossScaleConfig::new().with_initial(4.0).with_interval(2);
    for lean in [false, true] {
        for (scale, last) in [(fixed.clone(), 1024.0), (grown.clone(), 16.0)] {
            let config = adamw().with_lean(lean);
            let scaled = config.clone().with_loss_scale(Some(scale));
            let (mut optim, mut reference) = (target.init(&scaled)?, target.init(&config)?);
            let mut model = Mlp::new(&target.device);
            let mut want = model.clone();
            for batch in 0..6 {
                let (report, want_report);
                (model, report) = step(&mut optim, model, batch, [1.0; 2]).map_err(text)?;
                (want, want_report) = step(&mut reference, want, batch, [1.0; 2]).map_err(text)?;
                same(&format!("scaled, step {batch}"), &model, &parameters(&want))?;
                let losses = [report.loss(), want_report.loss()];
                let [loss, want_loss] = losses.map(|loss| loss.into_scalar::<f32>());
                // Burn may sum the loss in another order.
                if (loss - want_loss).abs() > 1e-5 * want_loss.abs() + 1e-6 {
                    return Err(format!("the report's loss is {loss}, expected {want_loss}"));
                }
            }
            // The outcomes of five steps are known when the sixth begins.
            if optim.loss_scale() != last {
                return Err(format!("the scale ends at {}, expected {last}", optim.loss_scale()));
            }
        }
    }
    overflows(target)
}

fn overflows(target: &Target) -> Result<(), String> {
    let largest = 2f64.powi(120);
    let scale = LossScaleConfig::new().with_initial(largest).with_backoff(2f64.powi(-30));
    // AdamW's update does not depend on the scale of the loss. Only the decoupled sharpness term would.
    let config = adamw().with_decouple(false);
    let (mut optim, mut reference) =
        (target.init(&config.clone().with_loss_scale(Some(scale)))?, target.init(&config)?);
    let mut model = Mlp::new(&target.device);
    let mut want = model.clone();
    let steep = [1e9; 2];
    for batch in 0..4 {
        let taken = batch >= 2;
        // By `ascend` and `descend`.
        let scale = optim.loss_scale();
        let first = grads(&(model.exact(batch) * steep[0] * scale), &model);
        let ascended = optim.ascend(model, first).map_err(text)?;
        let second = grads(&(ascended.model().exact(batch) * steep[1] * scale), ascended.model());
        model = optim.descend(0.01, ascended, second).map_err(text)?;
        if taken {
            (want, _) = step(&mut reference, want, batch, steep).map_err(text)?;
        }
        // The outcome of the first step affects the scale of the third.
        let want_scale = largest * 2f64.powi(-30 * (batch.min(2) as i32));
        if optim.loss_scale() != want_scale {
            return Err(format!("step {batch}: the scale is {}", optim.loss_scale()));
        }
        super::nets::close(&format!("overflowing, step {batch}"), &model, &want)?;
    }
    Ok(())
}

pub(crate) fn misuse() -> Result<(), String> {
    let device = burn::tensor::Device::flex();
    let new = LossScaleConfig::new;
    for (scale, name) in [
        (new().with_initial(0.0), "loss scale"),
        (new().with_initial(f64::NAN), "loss scale"),
        (new().with_initial(1e40), "loss scale"),
        (new().with_growth(0.5), "growth"),
        (new().with_backoff(0.0), "backoff"),
        (new().with_backoff(1.5), "backoff"),
        (new().with_interval(0), "interval"),
    ] {
        match adamw().with_loss_scale(Some(scale)).init(&device) {
            Err(WsamError::Hyperparameter(error)) if error.name == name => {}
            other => return Err(format!("{name}: {:?}", other.map(|_| ()))),
        }
    }
    Ok(())
}
