//! What became of the last step, and what the next one learns from it.

use super::{Way, Wsam};
use crate::burn::error::{Rejected, WsamError};
use crate::burn::loss_scale::LossScale;
use crate::burn::runner::Runner;
use crate::burn::verdict::{Finite, Settled};
use crate::method::Outcome;

impl Wsam {
    /// Steps that were left out because their gradients were not finite. Waits for the last step.
    ///
    /// # Errors
    ///
    /// [`WsamError`] if the device was lost.
    pub fn skipped_steps(&self) -> Result<u64, WsamError> {
        Ok(self.skipped + self.last_outcome()?.map_or(0, |settled| settled.uncounted()))
    }

    /// What losses are to be multiplied by in both passes of the next step, for those who call
    /// [`ascend`](Self::ascend) and [`descend`](Self::descend): 1 without a configured
    /// [`loss_scale`](crate::WsamConfig::loss_scale). Ask before each step: what the scale learns from
    /// one step shows in the scale of the second step after it.
    pub fn loss_scale(&self) -> f64 {
        self.options.loss_scale.as_ref().map_or(1.0, LossScale::scale)
    }

    /// What was stepped, or an error if the step was left out and is to be an error.
    pub(super) fn unless_refused<M, T>(
        &self,
        stepped: T,
        model: impl FnOnce(T) -> M,
    ) -> Result<T, Rejected<M>> {
        if !self.options.refuses {
            return Ok(stepped);
        }
        match self.last_outcome() {
            Ok(Some(Settled { finite, outcome })) if outcome != Outcome::Whole => {
                let Finite { gradient, perturbed } = finite;
                Err(Rejected::new(model(stepped), WsamError::NonFinite { gradient, perturbed }))
            }
            Ok(_) => Ok(stepped),
            Err(error) => Err(Rejected::new(model(stepped), error)),
        }
    }

    pub(in crate::burn) fn last_outcome(&self) -> Result<Option<Settled>, WsamError> {
        match &self.way {
            Way::TensorOps(ops) => ops.last_outcome(),
            #[cfg(feature = "fused-wsam")]
            Way::Fused(fused) => fused.last_outcome(),
        }
    }

    /// Learns from the last step.
    pub(in crate::burn) fn settle(&mut self) -> Result<(), WsamError> {
        let settled = match &mut self.way {
            Way::TensorOps(ops) => ops.settle()?,
            #[cfg(feature = "fused-wsam")]
            Way::Fused(fused) => fused.settle()?,
        };
        self.learn_pending();
        if let Some(settled) = settled {
            self.skipped += settled.uncounted();
            if let Some(scale) = &mut self.options.loss_scale {
                scale.update(settled.outcome);
            }
        }
        Ok(())
    }
}
