//! Loss scaling: losses are multiplied so that small gradients do not underflow, and the kernels divide.

use crate::method::{InvalidHyperparameter, Outcome};
use burn::config::Config;

/// A dynamic loss scale, as in `torch.amp.GradScaler`: it grows after a number of consecutive whole steps, and
/// shrinks after each step that was not taken whole.
#[derive(Config, Debug, PartialEq)]
#[non_exhaustive]
pub struct LossScaleConfig {
    /// The first scale.
    #[config(default = 65536.0)]
    pub initial: f64,
    /// Factor of growth, at least 1: at 1, with a `backoff` of 1, the scale is fixed.
    #[config(default = 2.0)]
    pub growth: f64,
    /// Factor after a step with non-finite gradients, in `(0, 1]`.
    #[config(default = 0.5)]
    pub backoff: f64,
    /// Consecutive whole steps before the scale grows, at least 1.
    #[config(default = 2000)]
    pub interval: usize,
}

/// Largest scale. The inverse of a larger one is out of the range of `f32`.
const LARGEST: f64 = (1_u128 << 120) as f64;

impl LossScaleConfig {
    /// A constant scale.
    pub fn fixed(scale: f64) -> Self {
        Self::new().with_initial(scale).with_growth(1.0).with_backoff(1.0)
    }

    /// Whether the scale may ever change.
    pub(super) fn is_dynamic(&self) -> bool {
        self.growth != 1.0 || self.backoff != 1.0
    }

    pub(super) fn validate(&self) -> Result<(), InvalidHyperparameter> {
        let check = |name, value, expected, inside| match inside {
            true => Ok(()),
            false => Err(InvalidHyperparameter { name, value, expected }),
        };
        let Self { initial, growth, backoff, interval } = *self;
        let scales = LARGEST.recip()..=LARGEST;
        check("loss scale", initial, "within 2^-120 and 2^120", scales.contains(&initial))?;
        check("growth", growth, "finite and at least 1", growth >= 1.0 && growth.is_finite())?;
        check("backoff", backoff, "above 0 and at most 1", backoff > 0.0 && backoff <= 1.0)?;
        check("interval", interval as f64, "at least 1", interval >= 1)
    }
}

/// State of a loss scale.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ScaleState {
    pub(super) scale: f64,
    /// Consecutive whole steps since the scale last changed.
    pub(super) good_steps: usize,
    /// Outcomes that are not yet applied to the scale, in step order: whether each step was taken whole. The
    /// outcome of a step is applied during the next step, so a resumed run needs it.
    pub(super) pending: Vec<bool>,
}

/// The current loss scale of an optimizer.
#[derive(Clone, Debug)]
pub(crate) struct LossScale {
    config: LossScaleConfig,
    scale: f64,
    /// Consecutive whole steps.
    taken: usize,
}

impl LossScale {
    pub(crate) fn new(config: LossScaleConfig) -> Self {
        Self { scale: config.initial, config, taken: 0 }
    }

    pub(crate) fn scale(&self) -> f64 {
        self.scale
    }

    /// The current state, for a record.
    pub(super) fn state(&self) -> ScaleState {
        ScaleState { scale: self.scale, good_steps: self.taken, pending: Vec::new() }
    }

    /// Continues from a record's values. A fixed scale keeps the configured value.
    pub(super) fn resume(&mut self, scale: f64, good_steps: usize) {
        let LossScaleConfig { growth, backoff, .. } = self.config;
        if growth != 1.0 || backoff != 1.0 {
            self.scale = scale.clamp(LARGEST.recip(), LARGEST);
            self.taken = good_steps;
        }
    }

    /// Updates the scale after a step. Call it in the order of the steps.
    pub(crate) fn update(&mut self, outcome: Outcome) {
        if outcome != Outcome::Whole {
            self.scale = (self.scale * self.config.backoff).max(LARGEST.recip());
            self.taken = 0;
            return;
        }
        self.taken += 1;
        // A record's count may exceed the interval of this configuration.
        if self.taken >= self.config.interval {
            self.scale = (self.scale * self.config.growth).min(LARGEST);
            self.taken = 0;
        }
    }
}
