//! Configurations of the base optimizer, with the fields and defaults of Burn's own optimizers.

use crate::method::{Base, Moments, Momentum};
use burn::config::Config;
use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;

/// SGD as the base optimizer; fields and defaults of [`burn::optim::SgdConfig`].
#[derive(Config, Debug)]
#[non_exhaustive]
pub struct SgdBaseConfig {
    /// L2 penalty, if any.
    pub weight_decay: Option<WeightDecayConfig>,
    /// Momentum, if any. Mind that Burn's default dampening is 0.1.
    pub momentum: Option<MomentumConfig>,
}

/// Adam as the base optimizer; fields and defaults of [`burn::optim::AdamConfig`].
#[derive(Config, Debug)]
#[non_exhaustive]
pub struct AdamBaseConfig {
    /// Decay of the first moment.
    #[config(default = 0.9)]
    pub beta_1: f64,
    /// Decay of the second moment.
    #[config(default = 0.999)]
    pub beta_2: f64,
    /// Added to the root of the second moment.
    #[config(default = 1e-5)]
    pub epsilon: f64,
    /// Divide by the largest second moment seen.
    #[config(default = false)]
    pub amsgrad: bool,
    /// L2 penalty, if any.
    pub weight_decay: Option<WeightDecayConfig>,
}

/// AdamW as the base optimizer; fields and defaults of [`burn::optim::AdamWConfig`], without its
/// cautious weight decay.
#[derive(Config, Debug)]
#[non_exhaustive]
pub struct AdamWBaseConfig {
    /// Decay of the first moment.
    #[config(default = 0.9)]
    pub beta_1: f64,
    /// Decay of the second moment.
    #[config(default = 0.999)]
    pub beta_2: f64,
    /// Added to the root of the second moment.
    #[config(default = 1e-5)]
    pub epsilon: f64,
    /// Decoupled weight decay.
    #[config(default = 1e-4)]
    pub weight_decay: f64,
    /// Divide by the largest second moment seen.
    #[config(default = false)]
    pub amsgrad: bool,
}

/// The base optimizer of a [`WsamConfig`](crate::WsamConfig).
#[derive(Config, Debug)]
#[non_exhaustive]
pub enum BaseConfig {
    /// Stochastic gradient descent.
    Sgd(SgdBaseConfig),
    /// Adam with an L2 penalty.
    Adam(AdamBaseConfig),
    /// AdamW.
    AdamW(AdamWBaseConfig),
    /// The Burn optimizer, or the user's own, that [`WsamConfig::init_with`](crate::WsamConfig::init_with) takes.
    Burn,
}

impl From<SgdBaseConfig> for BaseConfig {
    fn from(config: SgdBaseConfig) -> Self {
        Self::Sgd(config)
    }
}

impl From<AdamBaseConfig> for BaseConfig {
    fn from(config: AdamBaseConfig) -> Self {
        Self::Adam(config)
    }
}

impl From<AdamWBaseConfig> for BaseConfig {
    fn from(config: AdamWBaseConfig) -> Self {
        Self::AdamW(config)
    }
}

impl BaseConfig {
    pub(super) fn base(&self) -> Base {
        let penalty =
            |decay: &Option<WeightDecayConfig>| decay.as_ref().map_or(0.0, |d| d.penalty.into());
        match self {
            Self::Sgd(config) => Base::Sgd {
                momentum: config.momentum.as_ref().map(|m| Momentum {
                    momentum: m.momentum,
                    dampening: m.dampening,
                    nesterov: m.nesterov,
                }),
                weight_decay: penalty(&config.weight_decay),
            },
            Self::Adam(config) => Base::Adam(Moments {
                beta_1: config.beta_1,
                beta_2: config.beta_2,
                epsilon: config.epsilon,
                weight_decay: penalty(&config.weight_decay),
                amsgrad: config.amsgrad,
            }),
            Self::AdamW(config) => Base::AdamW(Moments {
                beta_1: config.beta_1,
                beta_2: config.beta_2,
                epsilon: config.epsilon,
                weight_decay: config.weight_decay,
                amsgrad: config.amsgrad,
            }),
            // Around a Burn optimizer the engine keeps no state and applies no weight decay.
            Self::Burn => Base::Sgd { momentum: None, weight_decay: 0.0 },
        }
    }
}
