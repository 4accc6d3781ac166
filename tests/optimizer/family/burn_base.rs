//! A Burn optimizer as the base of WSAM's relatives.

use super::{methods, momentum};
use crate::Target;
use crate::nets::{Mlp, close, text};
use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdamWConfig, ModuleOptimizer, SgdConfig};
use burn_wsam::{
    AdamWBaseConfig, BaseConfig, IntervalConfig, MethodConfig, NonFinitePolicy, WsamConfig,
};

/// Burn's SGD and AdamW as the base step like the built-in ones, over NaNs too.
pub(crate) fn as_built_in(target: &Target) -> Result<(), String> {
    let sgd = SgdConfig::new()
        .with_momentum(Some(MomentumConfig::new()))
        .with_weight_decay(Some(WeightDecayConfig::new(1e-2)));
    let pairs: [(BaseConfig, ModuleOptimizer); 2] = [
        (momentum().into(), sgd.init()),
        (AdamWBaseConfig::new().into(), AdamWConfig::new().init()),
    ];
    for (built_in, burn) in pairs {
        for method in methods().into_iter().filter(|m| !matches!(m, MethodConfig::MomentumSam)) {
            let config = || {
                let config = WsamConfig::burn().with_rho(0.1).with_method(method.clone());
                config.with_non_finite(NonFinitePolicy::BaseStep)
            };
            let mut variants = vec![config(), config().with_max_norm(Some(0.2))];
            if !matches!(method, MethodConfig::LookSam(_)) {
                variants.push(config().with_pass_rule(IntervalConfig::new(2).into()));
            }
            for config in variants {
                let mut optim = target.with_burn_base(&config, burn.clone())?;
                let mut want_optim = target.init(&config.clone().with_base(built_in.clone()))?;
                let mut model = Mlp::new(&target.device);
                let mut want = model.clone();
                for batch in 0..7 {
                    let factor = |pass: usize| match (batch, pass) {
                        (2, 0) | (3, 1) => f32::NAN,
                        _ => 1.0,
                    };
                    let mut calls = 0;
                    let stepped = optim.step(0.01, model, |model| {
                        calls += 1;
                        model.loss(batch) * factor(calls - 1)
                    });
                    (model, _) = stepped.map_err(text)?;
                    let mut calls = 0;
                    let stepped = want_optim.step(0.01, want, |model| {
                        calls += 1;
                        model.loss(batch) * factor(calls - 1)
                    });
                    (want, _) = stepped.map_err(text)?;
                    close(&format!("{config}, step {batch}"), &model, &want)?;
                }
            }
        }
    }
    Ok(())
}
