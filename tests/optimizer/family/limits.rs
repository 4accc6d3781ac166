//! Settings under which a method equals another one, bit for bit.

use super::{bases, methods, momentum, sam};
use crate::Target;
use crate::nets::{Mlp, close, grads, parameters, same, text};
use burn_wsam::method::Passes;
use burn_wsam::{
    BaseConfig, FriendlySamConfig, GsamConfig, IntervalConfig, LookSamConfig, MethodConfig,
    SgdBaseConfig, WsamConfig,
};

const STEPS: u64 = 6;

/// Steps by the closure over an exact loss.
fn trained(target: &Target, config: &WsamConfig) -> Result<Mlp, String> {
    let mut optim = target.init(config)?;
    let mut model = Mlp::new(&target.device);
    for batch in 0..STEPS {
        (model, _) = optim.step(0.01, model, |model| model.exact(batch)).map_err(text)?;
    }
    Ok(model)
}

pub(crate) fn sam_limits(target: &Target) -> Result<(), String> {
    let limits: [MethodConfig; 3] = [
        GsamConfig::new().with_alpha(0.0).into(),
        FriendlySamConfig::new().with_sigma(0.0).into(),
        LookSamConfig::new().with_k(1).into(),
    ];
    for base in bases().into_iter().chain([BaseConfig::from(SgdBaseConfig::new())]) {
        for (adaptive, clip) in [(false, None), (true, Some(0.3))] {
            let sam = sam(base.clone()).with_adaptive(adaptive).with_max_norm(clip);
            let want = parameters(&trained(target, &sam)?);
            for method in &limits {
                let config = sam.clone().with_method(method.clone());
                same(&format!("{config}"), &trained(target, &config)?, &want)?;
            }
        }
    }
    Ok(())
}

/// Steps of the base optimizer alone.
fn base_trained(target: &Target, config: &WsamConfig) -> Result<Mlp, String> {
    let mut optim = target.init(config)?;
    let mut model = Mlp::new(&target.device);
    for batch in 0..STEPS {
        let grads = grads(&model.exact(batch), &model);
        model = optim.base_step(0.01, model, grads).map_err(text)?;
    }
    Ok(model)
}

/// At rho 0 both gradients are the same, so GSAM's orthogonal part is rounding error, and LookSAM has no direction.
pub(crate) fn rho_zero(target: &Target) -> Result<(), String> {
    for base in bases() {
        let config = WsamConfig::new(base).with_rho(0.0);
        let want = base_trained(target, &config)?;
        for method in methods() {
            let config = config.clone().with_method(method);
            close(&format!("{config}"), &trained(target, &config)?, &want)?;
        }
    }
    Ok(())
}

/// An interval of 1 is no rule, bit for bit.
pub(crate) fn interval_one(target: &Target) -> Result<(), String> {
    for config in [
        WsamConfig::new(momentum().into()).with_rho(0.1),
        sam(momentum().into()).with_max_norm(Some(0.3)),
        WsamConfig::new(momentum().into()).with_lean(true),
    ] {
        let want = parameters(&trained(target, &config)?);
        let config = config.with_pass_rule(IntervalConfig::new(1).into());
        same(&format!("{config}"), &trained(target, &config)?, &want)?;
    }
    Ok(())
}

/// An interval, and a start in the middle of a run, are WSAM's steps and the base optimizer's, bit for bit.
pub(crate) fn intervals(target: &Target) -> Result<(), String> {
    for config in [
        WsamConfig::new(momentum().into()).with_rho(0.1),
        WsamConfig::new(bases()[3].clone()).with_max_norm(Some(0.3)),
        WsamConfig::new(momentum().into()).with_lean(true),
    ] {
        let scheduled = config.clone().with_pass_rule(IntervalConfig::new(2).into());
        let mut optim = target.init(&scheduled.with_start_step(1))?;
        let mut by_hand = target.init(&config)?;
        let mut model = Mlp::new(&target.device);
        let mut want = model.clone();
        for batch in 0..STEPS {
            let mut calls = 0;
            let report;
            (model, report) = optim
                .step(0.01, model, |model| {
                    calls += 1;
                    model.exact(batch)
                })
                .map_err(text)?;
            let two = batch % 2 == 1;
            want = if two {
                by_hand.step(0.01, want, |model| model.exact(batch)).map_err(text)?.0
            } else {
                let grads = grads(&want.exact(batch), &want);
                by_hand.base_step(0.01, want, grads).map_err(text)?
            };
            same(&format!("{config}, step {batch}"), &model, &parameters(&want))?;
            let expected = if two { (2, Passes::Two) } else { (1, Passes::One) };
            if (calls, report.passes()) != expected {
                return Err(format!("step {batch}: {calls} calls, {:?}", report.passes()));
            }
            let sharpness = report.sharpness_value().map_err(text)?;
            let printed = report.to_string();
            if sharpness.is_some() != two || printed.contains("one pass") == two {
                return Err(format!("step {batch}: {printed}, sharpness {sharpness:?}"));
            }
        }
    }
    Ok(())
}
