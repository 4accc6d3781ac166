//! The step in lean mode, in two calls.

use super::Wsam;
use crate::method::{Coupling, Method, NonFinite};
use crate::optim::ascended::LeanAscended;
use crate::optim::config::LEAN_METHOD;
use crate::optim::error::{Rejected, WsamError};
use crate::optim::options::LEAN_BASE_STEP;
use crate::optim::pass_schedule::StepKind;
use crate::optim::rates::Rates;
use crate::optim::report::Norms;
use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::module::Module;
use burn::optim::GradientsParams;

impl Wsam {
    /// The first phase of a step in lean mode: perturbs the weights to `w + e_w`, and takes the base optimizer's
    /// step.
    ///
    /// The decoupled form's base step needs only `g`, so `g` is freed before the second pass. Peak memory is 4
    /// bytes a parameter above the base optimizer's, compared with 8 for an ordinary step and 12 for the authors'
    /// code. In return `w` and the old state are overwritten before `g~` is known, so a failed second phase cannot
    /// undo the first one.
    ///
    /// # Errors
    ///
    /// [`Rejected`] with the unchanged model: as [`ascend`](Self::ascend), a learning rate that is not
    /// finite, a method other than WSAM, the coupled form, master weights, a Burn optimizer as the base,
    /// [`NonFinitePolicy::BaseStep`](crate::NonFinitePolicy::BaseStep).
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

    pub(in crate::optim) fn lean_ascend_at<M: Module>(
        &mut self,
        rates: &Rates,
        model: M,
        grads: GradientsParams,
    ) -> Result<LeanAscended<M>, Rejected<M>> {
        if self.hyper.method != Method::Wsam {
            let (option, other, reason) = ("lean mode", self.hyper.method.name(), LEAN_METHOD);
            return Err(Rejected::new(model, WsamError::Conflict { option, other, reason }));
        }
        if self.hyper.coupling == Coupling::Coupled {
            return Err(Rejected::new(model, WsamError::LeanCoupled));
        }
        if self.has_masters() {
            return Err(Rejected::new(model, WsamError::LeanMasters));
        }
        if self.hyper.non_finite == NonFinite::BaseStep {
            return Err(Rejected::new(model, LEAN_BASE_STEP));
        }
        if self.burn_base.is_some() {
            let what = "lean mode";
            return Err(Rejected::new(model, WsamError::NotWithBurnOptimizer { what }));
        }
        if let Err(error) = self.resolve_outcomes() {
            return Err(Rejected::new(model, error));
        }
        let loss_scale = self.loss_scale();
        let (backend, _, context) = self.parts(loss_scale);
        let ascended = backend.lean_ascend(context, rates, model, grads);
        let ((perturbed, anchor), ascent_state) = ascended.map_err(Rejected::from_parts)?;
        // The base optimizer has stepped. The loss scale stays as it is until the second phase.
        self.advance(StepKind::TwoPasses);
        let optimizer = self.identity;
        let ascended = LeanAscended { perturbed, anchor, ascent_state, optimizer, loss_scale };
        self.error_if_skipped(ascended, LeanAscended::abandon)
    }

    /// The second phase of a step in lean mode, at the learning rate of the first.
    ///
    /// # Errors
    ///
    /// [`Rejected`] with the model [abandoned](LeanAscended::abandon), at `w + e_w`: a parameter whose
    /// second gradient is missing, an ascent made by another optimizer.
    pub fn lean_descend<M: Module>(
        &mut self,
        ascended: LeanAscended<M>,
        grads: GradientsParams,
    ) -> Result<M, Rejected<M>> {
        self.lean_descend_reported(ascended, grads).map(|(model, _)| model)
    }

    pub(in crate::optim) fn lean_descend_reported<M: Module>(
        &mut self,
        ascended: LeanAscended<M>,
        grads: GradientsParams,
    ) -> Result<(M, Norms), Rejected<M>> {
        let LeanAscended { perturbed, anchor, ascent_state, optimizer, loss_scale } = ascended;
        if optimizer != self.identity {
            return Err(Rejected::new(anchor, WsamError::ForeignAscent));
        }
        let (backend, _, context) = self.parts(loss_scale);
        let models = (perturbed, anchor);
        let descended = backend.lean_descend(context, models, ascent_state, grads);
        let descended = descended.map_err(Rejected::from_parts)?;
        self.update_loss_scale();
        self.error_if_skipped(descended, |(model, _)| model)
    }
}
