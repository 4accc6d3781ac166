//! The two phases of a step, and a step of the base optimizer alone.

use super::Wsam;
use crate::method::Method;
use crate::optim::ascended::Ascended;
use crate::optim::error::{Rejected, WsamError};
use crate::optim::pass_schedule::StepKind;
use crate::optim::rates::Rates;
use crate::optim::report::Norms;
use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::module::Module;
use burn::optim::GradientsParams;

impl Wsam {
    /// The first phase of a step: perturbs the weights to `w + e_w`.
    ///
    /// `grads` is the gradient at `model`. [`Ascended::model`] is the perturbed model, for the
    /// second pass; then call [`descend`](Self::descend).
    ///
    /// # Errors
    ///
    /// [`Rejected`] with the unchanged model: gradients of another model, another device, an element type that
    /// the route does not support; [`WsamError::NextStep`] under LookSAM between its SAM steps and under Momentum-SAM.
    #[doc(alias = "first_step")]
    pub fn ascend<M: Module>(
        &mut self,
        model: M,
        grads: GradientsParams,
    ) -> Result<Ascended<M>, Rejected<M>> {
        // Stochastic rounding is seeded with the step count, and a skipped step may have been the first to set a
        // method's state, so pending outcomes must be resolved first.
        let waits = self.options.stochastic_rounding.is_some() || self.backend.awaits_outcome();
        if waits && let Err(error) = self.resolve_outcomes() {
            return Err(Rejected::new(model, error));
        }
        // The cycle of these methods says what a step is. A pass rule may be overruled.
        let is_cyclic = matches!(self.hyper.method, Method::LookSam { .. } | Method::MomentumSam);
        if is_cyclic && let Err(error) = self.expect("ascend", |kind| kind == StepKind::TwoPasses) {
            return Err(Rejected::new(model, error));
        }
        let scale = self.loss_scale();
        let (backend, base, context) = self.parts(scale);
        // A Burn optimizer steps the model itself.
        let in_place = base.is_none();
        let ascended = backend.ascend(context, model, grads, in_place);
        let ((perturbed, anchor), ascent_state) = ascended.map_err(Rejected::from_parts)?;
        let optimizer = self.identity;
        Ok(Ascended { perturbed, anchor, ascent_state, optimizer, loss_scale: scale })
    }

    /// The second phase: returns to `w` and takes the base optimizer's step.
    ///
    /// `grads` is the gradient at the perturbed model; `lr` the learning rate, or Burn's rates by
    /// parameter. It also ends a step of Momentum-SAM.
    ///
    /// # Errors
    ///
    /// [`Rejected`] with the model as it was before the ascent, and the optimizer's state as it
    /// was: a learning rate that is not finite, a parameter whose second gradient is missing, an
    /// ascent made by another optimizer.
    #[doc(alias = "second_step")]
    pub fn descend<M: Module>(
        &mut self,
        lr: impl Into<ModuleLearningRate>,
        ascended: Ascended<M>,
        grads: GradientsParams,
    ) -> Result<M, Rejected<M>> {
        match Rates::new(lr) {
            Ok(rates) => self.descend_reported(&rates, ascended, grads).map(|(model, _)| model),
            Err(error) => Err(Rejected::new(ascended.restore(), error)),
        }
    }

    /// One step of the base optimizer alone, for the part of a training without WSAM: one gradient, no
    /// perturbation, and the same state as WSAM's steps. It equals WSAM's step at `gamma = 0`, without the second
    /// pass. It changes nothing of what a method stores, and does not advance LookSAM's cycle.
    ///
    /// # Errors
    ///
    /// [`Rejected`] with the unchanged model, as [`ascend`](Self::ascend), and for a learning rate that is not
    /// finite.
    pub fn base_step<M: Module>(
        &mut self,
        lr: impl Into<ModuleLearningRate>,
        model: M,
        grads: GradientsParams,
    ) -> Result<M, Rejected<M>> {
        let rates = match Rates::new(lr) {
            Ok(rates) => rates,
            Err(error) => return Err(Rejected::new(model, error)),
        };
        let stepped = self.one_pass_at(&rates, model, grads, StepKind::Base, false);
        stepped.map(|(model, _)| model)
    }

    pub(in crate::optim) fn descend_reported<M: Module>(
        &mut self,
        rates: &Rates,
        ascended: Ascended<M>,
        grads: GradientsParams,
    ) -> Result<(M, Norms), Rejected<M>> {
        if ascended.optimizer != self.identity {
            return Err(Rejected::new(ascended.restore(), WsamError::ForeignAscent));
        }
        if let Err(error) = self.resolve_outcomes() {
            return Err(Rejected::new(ascended.restore(), error));
        }
        let Ascended { perturbed, anchor, ascent_state, loss_scale, .. } = ascended;
        let kind = ascent_state.kind();
        let (backend, base, context) = self.parts(loss_scale);
        let models = (perturbed, anchor);
        let descended = backend.descend(base, context, rates, models, ascent_state, grads);
        let descended = descended.map_err(Rejected::from_parts)?;
        self.count_step(kind);
        self.error_if_skipped(descended, |(model, _)| model)
    }
}
