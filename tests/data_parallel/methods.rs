//! WSAM's relatives and steps of one pass over replicas.

use super::Target;
use super::local::{SCOPES, replicas};
use super::nets::{Mlp, parameters, same, text};
use burn_wsam::{
    AdamWBaseConfig, AeSamConfig, FriendlySamConfig, GsamConfig, IntervalConfig, LookSamConfig,
    MethodConfig, Perturbation, Shard, WsamConfig, WsamError,
};

fn base() -> WsamConfig {
    WsamConfig::new(AdamWBaseConfig::new().into()).with_rho(0.1)
}

/// Each with whether replicas can be perturbed along their own gradients.
fn configs() -> Vec<(&'static str, bool, WsamConfig)> {
    let method = |method| base().with_method(method);
    vec![
        ("GSAM", true, method(MethodConfig::Gsam(GsamConfig::new()))),
        ("Friendly-SAM", false, method(MethodConfig::FriendlySam(FriendlySamConfig::new()))),
        ("LookSAM", true, method(MethodConfig::LookSam(LookSamConfig::new().with_k(3)))),
        ("Momentum-SAM", false, method(MethodConfig::MomentumSam)),
        ("every third step", true, base().with_pass_rule(IntervalConfig::new(3).into())),
        ("AE-SAM", true, base().with_pass_rule(AeSamConfig::new(20).into())),
        ("a start at step 4", true, base().with_start_step(4)),
    ]
}

/// Steps equal those over micro-batches with the same weights on one device, bit for bit, and take as many passes.
pub(crate) fn accumulated(target: &Target) -> Result<(), String> {
    for (name, has_each, config) in configs() {
        for scope in SCOPES {
            let (mut optim, mut single) = (target.init(&config)?, target.init(&config)?);
            let mut replicas = replicas(&vec![target.device.clone(); 2], Mlp::exact)?;
            let mut model = Mlp::new(&target.device);
            let mut want = model.clone();
            let weights = [1.0, 3.0];
            for at in 0..10 {
                let batches = [10 * at, 10 * at + 1];
                let shards = batches.iter().zip(weights).map(|(b, w)| Shard::new(*b, w)).collect();
                let what = format!("{name}, {scope:?}, step {at}");
                let before = parameters(&model);
                let stepped = optim.step_data_parallel(0.01, model, scope, &mut replicas, shards);
                let report = match stepped {
                    Ok((stepped, report)) => {
                        model = stepped;
                        report.step
                    }
                    Err(rejected) if scope == Perturbation::EachMicroBatch && !has_each => {
                        let is_right = matches!(rejected.error, WsamError::Conflict { .. });
                        if !is_right {
                            return Err(format!("{what}: {}", rejected.error));
                        }
                        same(&what, &*rejected.model, &before)?;
                        break;
                    }
                    Err(rejected) => return Err(format!("{what}: {}", rejected.error)),
                };
                let stepped = single.step_accumulated_weighted(
                    0.01,
                    want,
                    scope,
                    &batches,
                    &weights,
                    |model, batch| model.exact(*batch),
                );
                let (stepped, report_want) = stepped.map_err(text)?;
                want = stepped;
                same(&what, &model, &parameters(&want))?;
                if report.passes() != report_want.passes() {
                    let (got, want) = (report.passes(), report_want.passes());
                    return Err(format!("{what}: {got:?}, expected {want:?}"));
                }
                if scope == Perturbation::EachMicroBatch && !has_each {
                    return Err(format!("{what}: was accepted"));
                }
            }
        }
    }
    Ok(())
}
