//! Configurations of the method: WSAM or one of its relatives.

use crate::method::Method;
use burn::config::Config;

/// The method of a [`WsamConfig`](crate::WsamConfig). [`Method`] has the equations and the sources.
///
/// ```
/// use burn::tensor::Device;
/// use burn_wsam::{GsamConfig, SgdBaseConfig, WsamConfig};
///
/// # fn main() -> Result<(), burn_wsam::WsamError> {
/// let config = WsamConfig::sgd(SgdBaseConfig::new())
///     .with_method(GsamConfig::new().with_alpha(0.3).into())
///     .with_rho(0.05);
/// let optim = config.init(&Device::flex())?;
/// assert_eq!(optim.hyperparameters().method.name(), "GSAM");
/// # Ok(())
/// # }
/// ```
#[derive(Config, Debug)]
#[non_exhaustive]
pub enum MethodConfig {
    /// WSAM, with [`gamma`](crate::WsamConfig::gamma) and [`decouple`](crate::WsamConfig::decouple), which the other
    /// methods do not read.
    Wsam,
    /// GSAM.
    Gsam(GsamConfig),
    /// Friendly-SAM.
    FriendlySam(FriendlySamConfig),
    /// LookSAM.
    LookSam(LookSamConfig),
    /// Momentum-SAM. Requires a base optimizer with a momentum or first moment, and no Burn optimizer as the base.
    MomentumSam,
}

/// [`Method::Gsam`].
#[derive(Config, Debug)]
#[non_exhaustive]
pub struct GsamConfig {
    /// Weight of the part of `g` that is orthogonal to `g~`, at least 0; with 0 it is SAM.
    #[config(default = 0.4)]
    pub alpha: f64,
}

/// [`Method::FriendlySam`].
#[derive(Config, Debug)]
#[non_exhaustive]
pub struct FriendlySamConfig {
    /// Share of the average that is subtracted from `g`, at least 0; with 0 it is SAM.
    #[config(default = 1.0)]
    pub sigma: f64,
    /// Decay of the average, in `[0, 1]`.
    #[config(default = 0.9)]
    pub lambda: f64,
}

/// [`Method::LookSam`].
#[derive(Config, Debug)]
#[non_exhaustive]
pub struct LookSamConfig {
    /// Length of the correction over `||g||`, at least 0.
    #[config(default = 0.7)]
    pub alpha: f64,
    /// Steps from one SAM step to the next, at least 1; with 1 it is SAM.
    #[config(default = 5)]
    pub k: u32,
}

impl From<GsamConfig> for MethodConfig {
    fn from(config: GsamConfig) -> Self {
        Self::Gsam(config)
    }
}

impl From<FriendlySamConfig> for MethodConfig {
    fn from(config: FriendlySamConfig) -> Self {
        Self::FriendlySam(config)
    }
}

impl From<LookSamConfig> for MethodConfig {
    fn from(config: LookSamConfig) -> Self {
        Self::LookSam(config)
    }
}

impl MethodConfig {
    pub(in crate::optim) fn method(&self) -> Method {
        match self {
            Self::Wsam => Method::Wsam,
            Self::Gsam(GsamConfig { alpha }) => Method::Gsam { alpha: *alpha },
            Self::FriendlySam(FriendlySamConfig { sigma, lambda }) => {
                Method::FriendlySam { sigma: *sigma, lambda: *lambda }
            }
            Self::LookSam(LookSamConfig { alpha, k }) => Method::LookSam { alpha: *alpha, k: *k },
            Self::MomentumSam => Method::MomentumSam,
        }
    }
}
