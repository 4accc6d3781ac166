//! Learning rates: one number, or Burn's rates by parameter.

use super::error::WsamError;
use crate::method::validate_lr;
use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::module::ParamId;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Validated learning rates of a step.
pub(crate) struct Rates(ModuleLearningRate);

impl Rates {
    pub(crate) fn new(lr: impl Into<ModuleLearningRate>) -> Result<Self, WsamError> {
        let lr = lr.into();
        // `ModuleLearningRate::default()` holds no rate, and `base()` panics on it.
        let base = catch_unwind(AssertUnwindSafe(|| lr.base()));
        validate_lr(base.map_err(|_| WsamError::NoLearningRate)?)?;
        Ok(Self(lr))
    }

    /// Rate of parameters that no group matches.
    #[cfg(feature = "train")]
    pub(crate) fn base(&self) -> f64 {
        self.0.base()
    }

    /// Rates in the type that Burn's optimizers accept.
    pub(crate) fn burn(&self) -> ModuleLearningRate {
        self.0.clone()
    }

    /// Rate of each parameter.
    pub(crate) fn of(&self, names: &[(ParamId, String)]) -> Result<Vec<f64>, WsamError> {
        names
            .iter()
            .map(|(id, path)| {
                let lr = self.0.lr_from_param(*id, Some(path));
                validate_lr(lr)?;
                Ok(lr)
            })
            .collect()
    }
}
