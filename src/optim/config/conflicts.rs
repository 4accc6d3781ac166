//! Pairs of options that contradict each other, or of which one disables the other.

use super::WsamConfig;
use crate::method::{Hyperparameters, Method};
use crate::optim::error::WsamError;
use crate::optim::loss_scale::LossScaleConfig;
use crate::optim::options::{LEAN_BASE_STEP, MissingGradientPolicy, NonFinitePolicy};

/// Why lean mode is WSAM's alone.
pub(in crate::optim) const LEAN_METHOD: &str = "lean mode takes the base step on g before the second pass, which only WSAM's decoupled form allows; leave lean off";

impl WsamConfig {
    /// Returns an error for options that another option disables.
    pub(super) fn check_conflicts(&self, hyper: &Hyperparameters) -> Result<(), WsamError> {
        let conflict = |option, other, reason| Err(WsamError::Conflict { option, other, reason });
        let propagates = self.non_finite == NonFinitePolicy::Propagate;
        if propagates && self.loss_scale.as_ref().is_some_and(LossScaleConfig::is_dynamic) {
            return conflict(
                "a dynamic loss_scale",
                "non_finite = Propagate",
                "a dynamic scale needs to know which gradients were finite, and Propagate does not check them; \
                 use LossScaleConfig::fixed or another policy",
            );
        }
        hyper.validate_pairs()?;
        self.pass_rule.rule().validate_pair(&hyper.method)?;
        if propagates && self.pass_rule.rule().reads_norm() {
            return conflict(
                "AE-SAM's rule",
                "non_finite = Propagate",
                "the rule reads the norm of a step together with its outcome, and Propagate has none; use another \
                 policy",
            );
        }
        if self.lean && hyper.method != Method::Wsam {
            return conflict("lean mode", hyper.method.name(), LEAN_METHOD);
        }
        if self.lean && self.non_finite == NonFinitePolicy::BaseStep {
            return Err(LEAN_BASE_STEP);
        }
        if self.lean && self.missing_gradient != MissingGradientPolicy::Refuse {
            return conflict(
                "lean mode",
                "missing_gradient",
                "a lean step takes the base step before the second gradients are known; use Refuse",
            );
        }
        if self.clip_perturbed_only && self.max_norm.is_none() {
            return conflict(
                "clip_perturbed_only",
                "max_norm = None",
                "clipping requires max_norm; set max_norm too",
            );
        }
        Ok(())
    }
}
