//! Configurations of the rule that says which steps have a second pass.

use crate::method::{AeSam, Interval, PassRule};
use burn::config::Config;

/// Which steps of a method of two passes have the second pass. The other steps are the base optimizer's, with one
/// pass and the same state.
///
/// ```
/// use burn::tensor::Device;
/// use burn_wsam::{AdamWBaseConfig, IntervalConfig, WsamConfig};
///
/// # fn main() -> Result<(), burn_wsam::WsamError> {
/// // 1.2 gradients a step on average.
/// let config = WsamConfig::adamw(AdamWBaseConfig::new())
///     .with_pass_rule(IntervalConfig::new(5).into());
/// let optim = config.init(&Device::flex())?;
/// # let _ = optim;
/// # Ok(())
/// # }
/// ```
#[derive(Config, Debug)]
#[non_exhaustive]
pub enum PassRuleConfig {
    /// Every step.
    EveryStep,
    /// Every `k`-th step, the first included.
    Interval(IntervalConfig),
    /// The steps that follow an unusually large gradient: AE-SAM.
    AeSam(AeSamConfig),
}

/// [`PassRule::Interval`]: a second pass every `every`-th step, the first included. Skipped steps do not count.
#[derive(Config, Debug)]
#[non_exhaustive]
pub struct IntervalConfig {
    /// Steps from one second pass to the next, at least 1.
    pub every: u32,
}

/// [`PassRule::AeSam`]: AE-SAM's rule (Jiang et al., ICLR 2023, <https://arxiv.org/abs/2304.14647>), one step late.
///
/// The paper compares `||g||^2` of a step with its averages before the step decides on its second pass. There the host
/// would have to wait for the first pass, while the device has nothing to do. Here each step decides by `||g||` of the
/// step *before* it, which the host reads with that step's outcome, so the rule adds no wait and no transfer. The first
/// step, and a step after one with a non-finite `g`, have a second pass.
///
/// The rule computes `||g||` in every step: 4 bytes a parameter more in steps of the base optimizer and in adaptive
/// steps, where no clipping needs it.
#[derive(Config, Debug)]
#[non_exhaustive]
pub struct AeSamConfig {
    /// Number of steps of the run, at least 1, over which the threshold changes linearly.
    pub steps: u64,
    /// Decay of both averages, in `[0, 1)`.
    #[config(default = 0.9)]
    pub decay: f64,
    /// Threshold in standard deviations at the first step.
    #[config(default = 1.0)]
    pub first_threshold: f64,
    /// Threshold at the last step and after it.
    #[config(default = -1.0)]
    pub last_threshold: f64,
}

impl From<IntervalConfig> for PassRuleConfig {
    fn from(config: IntervalConfig) -> Self {
        Self::Interval(config)
    }
}

impl From<AeSamConfig> for PassRuleConfig {
    fn from(config: AeSamConfig) -> Self {
        Self::AeSam(config)
    }
}

impl PassRuleConfig {
    pub(super) fn rule(&self) -> PassRule {
        match self {
            Self::EveryStep => PassRule::EveryStep,
            Self::Interval(IntervalConfig { every }) => {
                PassRule::Interval(Interval { every: *every })
            }
            Self::AeSam(config) => PassRule::AeSam(AeSam {
                decay: config.decay,
                first_threshold: config.first_threshold,
                last_threshold: config.last_threshold,
                ..AeSam::new(config.steps)
            }),
        }
    }
}
