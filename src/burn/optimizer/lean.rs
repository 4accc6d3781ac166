//! The step in lean mode, in two calls.

use super::{LeanClimb, Way, Wsam, rejected};
use crate::burn::ascended::LeanAscended;
use crate::burn::error::{Rejected, WsamError};
use crate::burn::rates::Rates;
use crate::burn::report::Norms;
use crate::burn::runner;
use crate::method::Coupling;
use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::module::Module;
use burn::optim::GradientsParams;

impl Wsam {
    /// The first half of a step in lean mode: climbs to `w + e_w`, and takes the base optimizer's
    /// step already.
    ///
    /// The decoupled form's base step needs `g` alone, so `g` need not live through the second pass:
    /// 4 bytes a parameter beside the base optimizer's peak, where an ordinary step has 8 and the
    /// authors' code 12. The price: `w` and the state's old values are gone before `g~` is known, so
    /// that a second half that fails cannot take the first one back.
    ///
    /// # Errors
    ///
    /// [`Rejected`] with the model unharmed: as [`ascend`](Self::ascend), a learning rate that is not
    /// finite, the coupled form.
    pub fn lean_ascend<M: Module>(
        &mut self,
        lr: impl Into<ModuleLearningRate>,
        model: M,
        grads: GradientsParams,
    ) -> Result<LeanAscended<M>, Rejected<M>> {
        match Rates::new(lr) {
            Ok(rates) => self.lean_ascend_at(&rates, model, grads),
            Err(error) => Err(Rejected::new(model, error)),
        }
    }

    pub(in crate::burn) fn lean_ascend_at<M: Module>(
        &mut self,
        rates: &Rates,
        model: M,
        grads: GradientsParams,
    ) -> Result<LeanAscended<M>, Rejected<M>> {
        if self.hyper.coupling == Coupling::Coupled {
            return Err(Rejected::new(model, WsamError::LeanCoupled));
        }
        if self.has_masters() {
            return Err(Rejected::new(model, WsamError::LeanMasters));
        }
        let (way, external, context) = match self.settled_parts() {
            Ok(parts) => parts,
            Err(error) => return Err(Rejected::new(model, error)),
        };
        if external.is_some() {
            let what = "lean mode";
            return Err(Rejected::new(model, WsamError::NotWithBurnOptimizer { what }));
        }
        let ascended = match way {
            Way::TensorOps(ops) => runner::lean_ascend(ops, context, rates, model, grads)
                .map(|(models, pending)| (models, LeanClimb::TensorOps(Box::new(pending)))),
            #[cfg(feature = "fused-wsam")]
            Way::Fused(fused) => runner::lean_ascend(fused, context, rates, model, grads)
                .map(|(models, pending)| (models, LeanClimb::Fused(Box::new(pending)))),
        };
        let ((perturbed, anchor), climb) = ascended.map_err(rejected)?;
        let optimizer = self.identity;
        let ascended = LeanAscended { perturbed, anchor, climb, optimizer };
        self.unless_refused(ascended, LeanAscended::abandon)
    }

    /// The second half of a step in lean mode, at the learning rate of the first.
    ///
    /// # Errors
    ///
    /// [`Rejected`] with the model [abandoned](LeanAscended::abandon), at `w + e_w`: a parameter whose
    /// second gradient is missing, an ascent of another optimizer.
    pub fn lean_descend<M: Module>(
        &mut self,
        ascended: LeanAscended<M>,
        grads: GradientsParams,
    ) -> Result<M, Rejected<M>> {
        self.lean_descend_reported(ascended, grads).map(|(model, _)| model)
    }

    pub(in crate::burn) fn lean_descend_reported<M: Module>(
        &mut self,
        ascended: LeanAscended<M>,
        grads: GradientsParams,
    ) -> Result<(M, Norms), Rejected<M>> {
        let LeanAscended { perturbed, anchor, climb, optimizer } = ascended;
        if optimizer != self.identity {
            return Err(Rejected::new(anchor, WsamError::ForeignAscent));
        }
        let (way, _, context) = self.parts();
        let models = (perturbed, anchor);
        let descended = match (way, climb) {
            (Way::TensorOps(ops), LeanClimb::TensorOps(pending)) => {
                runner::lean_descend(ops, context, models, *pending, grads)
            }
            #[cfg(feature = "fused-wsam")]
            (Way::Fused(fused), LeanClimb::Fused(pending)) => {
                runner::lean_descend(fused, context, models, *pending, grads)
            }
            #[cfg(feature = "fused-wsam")]
            _ => Err((models.1, WsamError::ForeignAscent)),
        };
        self.unless_refused(descended.map_err(rejected)?, |(model, _)| model)
    }
}
