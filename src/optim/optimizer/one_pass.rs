//! Which calls the next step takes, and steps over one gradient.

use super::Wsam;
use crate::method::Method;
use crate::optim::error::{Rejected, WsamError};
use crate::optim::pass::Pass;
use crate::optim::pass_schedule::{NextStep, StepKind};
use crate::optim::rates::Rates;
use crate::optim::report::{Norms, StepReport};
use crate::optim::step_backend::{OnePassUpdate, StepContext};
use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::module::Module;
use burn::optim::GradientsParams;

impl Wsam {
    /// Returns the calls that the next step takes, for callers of [`ascend`](Self::ascend) and
    /// [`descend`](Self::descend): it follows from the method, the pass rule and the steps taken. With a pass rule, a
    /// [`start_step`](crate::WsamConfig::start_step) or LookSAM, this waits for the last step's outcome.
    ///
    /// ```
    /// # use burn::nn::{Linear, LinearConfig};
    /// # use burn::optim::GradientsParams;
    /// # use burn::tensor::{Device, Distribution, Tensor};
    /// # use burn_wsam::{LookSamConfig, NextStep, SgdBaseConfig, WsamConfig, WsamError};
    /// # fn main() -> Result<(), WsamError> {
    /// # let device = Device::flex().autodiff();
    /// # let mut model = LinearConfig::new(4, 1).init(&device);
    /// # let x = Tensor::<2>::random([8, 4], Distribution::Default, &device);
    /// # let loss = |model: &Linear| model.forward(x.clone()).powi_scalar(2).mean();
    /// let config = WsamConfig::sgd(SgdBaseConfig::new());
    /// let mut optim = config.with_method(LookSamConfig::new().into()).init(&device)?;
    /// let grads_of = |model: &Linear| GradientsParams::from_grads(loss(model).backward(), model);
    /// for _ in 0..6 {
    ///     model = match optim.next_step()? {
    ///         NextStep::OnePass => {
    ///             let grads = grads_of(&model);
    ///             optim.one_pass_step(0.1, model, grads)?
    ///         }
    ///         NextStep::AlongMomentum => {
    ///             let ascended = optim.ascend_along_momentum(model)?;
    ///             let grads = grads_of(ascended.model());
    ///             optim.descend(0.1, ascended, grads)?
    ///         }
    ///         _ => {
    ///             let grads = grads_of(&model);
    ///             let ascended = optim.ascend(model, grads)?;
    ///             let grads = grads_of(ascended.model());
    ///             optim.descend(0.1, ascended, grads)?
    ///         }
    ///     };
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`WsamError`] if the device was lost.
    pub fn next_step(&mut self) -> Result<NextStep, WsamError> {
        Ok(self.next_kind()?.next_step())
    }

    /// One step over one gradient, where [`next_step`](Self::next_step) is [`NextStep::OnePass`]: the base
    /// optimizer's on `g`, or LookSAM's on `g + alpha ||g|| h`.
    ///
    /// # Errors
    ///
    /// [`Rejected`] with the unchanged model, as [`base_step`](Self::base_step), and [`WsamError::NextStep`] if the
    /// next step takes other calls.
    pub fn one_pass_step<M: Module>(
        &mut self,
        lr: impl Into<ModuleLearningRate>,
        model: M,
        grads: GradientsParams,
    ) -> Result<M, Rejected<M>> {
        let is_one_pass = |kind: StepKind| kind.next_step() == NextStep::OnePass;
        let begun = Rates::new(lr)
            .and_then(|rates| Ok((rates, self.expect("one_pass_step", is_one_pass)?)));
        let (rates, kind) = match begun {
            Ok(begun) => begun,
            Err(error) => return Err(Rejected::new(model, error)),
        };
        let stepped = self.one_pass_at(&rates, model, grads, kind, false);
        stepped.map(|(model, _)| model)
    }

    /// How the next step is taken.
    pub(in crate::optim) fn next_kind(&mut self) -> Result<StepKind, WsamError> {
        let is_looksam = matches!(self.hyper.method, Method::LookSam { .. });
        if is_looksam || self.options.schedule.varies() {
            self.resolve_outcomes()?;
        }
        Ok(self.options.schedule.next(&self.hyper.method, self.steps))
    }

    /// Returns the next step's kind, or an error for a call that is not part of the next step.
    pub(super) fn expect(
        &mut self,
        call: &'static str,
        is_fitting: impl Fn(StepKind) -> bool,
    ) -> Result<StepKind, WsamError> {
        let kind = self.next_kind()?;
        let (method, expected) = (self.hyper.method.name(), kind.next_step());
        if is_fitting(kind) {
            Ok(kind)
        } else {
            Err(WsamError::NextStep { call, method, expected })
        }
    }

    /// A step of one pass at `w`, of this kind. Norms that it does not need are computed if `is_reported`.
    pub(in crate::optim) fn one_pass_at<M: Module>(
        &mut self,
        rates: &Rates,
        model: M,
        grads: GradientsParams,
        kind: StepKind,
        is_reported: bool,
    ) -> Result<(M, Norms), Rejected<M>> {
        // The loss of `grads` was multiplied by the current scale, so read it before an outcome changes it.
        let scale = self.loss_scale();
        if let Err(error) = self.resolve_outcomes() {
            return Err(Rejected::new(model, error));
        }
        let update = match kind {
            StepKind::OnePass => OnePassUpdate::Corrected,
            _ => OnePassUpdate::Gradient,
        };
        let (backend, base, context) = self.parts(scale);
        let context = StepContext { track_norms: context.track_norms && is_reported, ..context };
        let stepped = backend.one_pass_step(base, context, update, rates, model, grads);
        let stepped = stepped.map_err(Rejected::from_parts)?;
        self.count_step(kind);
        self.error_if_skipped(stepped, |(model, _)| model)
    }

    /// Runs the rest of a step after its first pass at `w`, with or without a second pass.
    pub(super) fn rest_of_step<M: Module>(
        &mut self,
        rates: &Rates,
        model: M,
        (grads, loss): Pass,
        second: impl FnOnce(&M) -> Result<Pass, WsamError>,
    ) -> Result<(M, StepReport), Rejected<M>> {
        match self.next_kind() {
            Ok(kind) if kind.next_step() == NextStep::OnePass => {
                let (model, norms) = self.one_pass_at(rates, model, grads, kind, true)?;
                Ok((model, StepReport { loss, perturbed_loss: None, norms }))
            }
            Ok(_) => self.phases(rates, model, (grads, loss), second),
            Err(error) => Err(Rejected::new(model, error)),
        }
    }
}
