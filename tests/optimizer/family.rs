//! WSAM's relatives and the rules for a second pass.

pub(crate) mod burn_base;
pub(crate) mod half_precision;
pub(crate) mod limits;
pub(crate) mod misuse;
pub(crate) mod oracle;
pub(crate) mod resume;
pub(crate) mod schedules;

use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn_wsam::{
    AdamBaseConfig, AdamWBaseConfig, BaseConfig, FriendlySamConfig, GsamConfig, LookSamConfig,
    MethodConfig, SgdBaseConfig, WsamConfig,
};

/// The methods, with constants that change every term.
fn methods() -> [MethodConfig; 4] {
    [
        GsamConfig::new().with_alpha(0.3).into(),
        FriendlySamConfig::new().with_sigma(0.8).with_lambda(0.7).into(),
        LookSamConfig::new().with_alpha(0.6).with_k(3).into(),
        MethodConfig::MomentumSam,
    ]
}

fn momentum() -> SgdBaseConfig {
    SgdBaseConfig::new()
        .with_momentum(Some(MomentumConfig::new()))
        .with_weight_decay(Some(WeightDecayConfig::new(1e-2)))
}

/// Base optimizers with a momentum.
fn bases() -> [BaseConfig; 4] {
    let nesterov = MomentumConfig::new().with_nesterov(true);
    [
        momentum().into(),
        momentum().with_momentum(Some(nesterov)).into(),
        AdamBaseConfig::new()
            .with_amsgrad(true)
            .with_weight_decay(Some(WeightDecayConfig::new(1e-2)))
            .into(),
        AdamWBaseConfig::new().with_epsilon(1e-3).into(),
    ]
}

/// SAM around a base optimizer.
fn sam(base: BaseConfig) -> WsamConfig {
    WsamConfig::new(base).with_rho(0.1).with_gamma(0.5).with_decouple(false)
}
