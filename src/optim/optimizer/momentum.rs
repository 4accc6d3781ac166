//! Momentum-SAM's step: one pass, at weights perturbed along the momentum.

use super::Wsam;
use crate::optim::ascended::Ascended;
use crate::optim::error::{Rejected, WsamError};
use crate::optim::pass::Pass;
use crate::optim::pass_schedule::StepKind;
use crate::optim::rates::Rates;
use crate::optim::report::StepReport;
use burn::module::Module;

impl Wsam {
    /// The first phase of a step of Momentum-SAM: perturbs the weights to `w - rho m / (||m|| + eps)`, without a
    /// gradient. `m` is the momentum after the last step. Parameters that have not taken a step stay at `w`.
    ///
    /// [`Ascended::model`] is the perturbed model, for the only pass of the step; then call
    /// [`descend`](Self::descend). Between steps the model is at `w`, so it can be validated and saved: perturbed
    /// weights exist only inside of [`Ascended`], which is not a module. The authors' code leaves the perturbed
    /// weights in the model between steps, and moves them back for a validation.
    ///
    /// The perturbed model shares its running statistics with `model`, because no other pass advances them.
    ///
    /// # Errors
    ///
    /// [`Rejected`] with the unchanged model: [`WsamError::NextStep`] under another method and before
    /// [`start_step`](crate::WsamConfig::start_step); a lost device.
    pub fn ascend_along_momentum<M: Module>(
        &mut self,
        model: M,
    ) -> Result<Ascended<M>, Rejected<M>> {
        // The momentum of a skipped first step is not valid, so pending outcomes must be resolved first.
        let expected = self.resolve_outcomes().and_then(|()| {
            self.expect("ascend_along_momentum", |kind| kind == StepKind::AlongMomentum)
        });
        if let Err(error) = expected {
            return Err(Rejected::new(model, error));
        }
        let scale = self.loss_scale();
        let (backend, _, context) = self.parts(scale);
        match backend.ascend_along_momentum(context, &model) {
            Ok((perturbed, ascent_state)) => Ok(Ascended {
                perturbed: Some(perturbed),
                anchor: model,
                ascent_state,
                optimizer: self.identity,
                loss_scale: scale,
            }),
            Err(error) => Err(Rejected::new(model, error)),
        }
    }

    /// A whole step, whose only pass is `only`.
    pub(super) fn momentum_phases<M: Module>(
        &mut self,
        rates: &Rates,
        model: M,
        only: impl FnOnce(&M) -> Result<Pass, WsamError>,
    ) -> Result<(M, StepReport), Rejected<M>> {
        let ascended = self.ascend_along_momentum(model)?;
        let (grads, loss) = match only(ascended.model()) {
            Ok(pass) => pass,
            Err(error) => return Err(Rejected::new(ascended.restore(), error)),
        };
        let (model, norms) = self.descend_reported(rates, ascended, grads)?;
        Ok((model, StepReport { loss, perturbed_loss: None, norms }))
    }
}
