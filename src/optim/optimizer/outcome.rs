//! Outcomes of steps, read by the host after they ran: counts of steps, and the loss scale.

use super::Wsam;
use crate::method::Outcome;
use crate::optim::error::{Rejected, WsamError};
use crate::optim::loss_scale::{LossScale, ScaleState};
use crate::optim::pending::{Finite, ResolvedOutcome};
use crate::optim::run_state::RunState;
use crate::optim::statistics::RunningStatistics;
use burn::module::Module;

impl Wsam {
    /// Number of steps skipped because their gradients were not finite. Waits for pending steps.
    ///
    /// # Errors
    ///
    /// [`WsamError`] if the device was lost.
    pub fn skipped_steps(&self) -> Result<u64, WsamError> {
        Ok(self.skipped + self.backend.overcount()?)
    }

    /// The factor for the losses of the next step, for callers of [`ascend`](Self::ascend) and
    /// [`descend`](Self::descend): 1 without a configured [`loss_scale`](crate::WsamConfig::loss_scale).
    /// Call it before each first pass. Both passes use the same factor;
    /// [`Ascended::loss_scale`](crate::Ascended::loss_scale) returns it for the second pass. It changes only when
    /// a step ends (in `descend`, `lean_descend` or `base_step`), and the outcome of one step affects the second
    /// step after it. If steps of several models interleave, no step of another model may end between a model's
    /// first pass and its ascent.
    pub fn loss_scale(&self) -> f64 {
        self.options.loss_scale.as_ref().map_or(1.0, LossScale::scale)
    }

    /// Restores running statistics if the last step, which must be `model`'s, was skipped. The device
    /// decides, and the host does not wait. For callers of [`ascend`](Self::ascend) and
    /// [`descend`](Self::descend), or of [`base_step`](Self::base_step): see [`RunningStatistics`]. Where the
    /// last step returned an error, [`RunningStatistics::restore`] does it.
    ///
    /// # Errors
    ///
    /// [`Rejected`] if the device was lost.
    pub fn restore_statistics_if_skipped<M: Module>(
        &self,
        model: M,
        statistics: &RunningStatistics,
    ) -> Result<M, Rejected<M>> {
        if statistics.is_empty() {
            return Ok(model);
        }
        match self.backend.skipped_flag() {
            Ok(Some(skipped)) => Ok(statistics.restore_if(model, &skipped)),
            Ok(None) => Ok(model),
            Err(error) => Err(Rejected::new(model, error)),
        }
    }

    /// Returns `stepped`, or an error if the step was skipped and the policy is `Refuse`.
    pub(super) fn error_if_skipped<M, T>(
        &self,
        stepped: T,
        model: impl FnOnce(T) -> M,
    ) -> Result<T, Rejected<M>> {
        if !self.options.error_on_skip {
            return Ok(stepped);
        }
        match self.backend.latest_outcome() {
            Ok(Some(ResolvedOutcome { finite, outcome, .. })) if outcome != Outcome::Whole => {
                let Finite { gradient, perturbed } = finite;
                Err(Rejected::new(model(stepped), WsamError::NonFinite { gradient, perturbed }))
            }
            Ok(_) => Ok(stepped),
            Err(error) => Err(Rejected::new(model(stepped), error)),
        }
    }

    /// Reads the outcomes of pending steps and corrects all step counts. The outcomes are applied to the loss
    /// scale later, when a step ends, because the losses of the current step are already multiplied by it.
    pub(in crate::optim) fn resolve_outcomes(&mut self) -> Result<(), WsamError> {
        for resolved in self.backend.resolve_outcomes()? {
            self.steps = self.steps.saturating_sub(resolved.overcount());
            self.skipped += resolved.overcount();
            self.options.schedule.resolve(resolved.outcome, resolved.gradient_norm);
            if self.options.loss_scale.is_some() {
                self.unapplied.push(resolved.outcome);
            }
        }
        Ok(())
    }

    /// Applies the outcomes that were read to the loss scale.
    pub(super) fn update_loss_scale(&mut self) {
        let Some(scale) = &mut self.options.loss_scale else { return };
        self.unapplied.drain(..).for_each(|outcome| scale.update(outcome));
    }

    /// State between two steps. Waits for pending steps.
    pub(in crate::optim) fn run_state(&self) -> Result<RunState, WsamError> {
        let pending = self.backend.decided_outcomes()?;
        let skipped: u64 = pending.iter().map(ResolvedOutcome::overcount).sum();
        let loss_scale = self.options.loss_scale.as_ref().map(|loss_scale| {
            let pending = pending.iter().map(|resolved| resolved.outcome);
            let outcomes = self.unapplied.iter().copied().chain(pending);
            let pending = outcomes.map(|outcome| outcome == Outcome::Whole).collect();
            ScaleState { pending, ..loss_scale.state() }
        });
        let mut schedule = self.options.schedule.clone();
        for resolved in &pending {
            schedule.resolve(resolved.outcome, resolved.gradient_norm);
        }
        let (steps, passes) = (self.steps.saturating_sub(skipped), schedule.state());
        Ok(RunState { steps, skipped: self.skipped + skipped, loss_scale, passes })
    }

    /// Continues from a record's state. Call it after pending outcomes were resolved. A loss scale in the record
    /// is used only if the configured one is dynamic.
    pub(in crate::optim) fn set_run_state(&mut self, state: RunState) {
        let RunState { steps, skipped, loss_scale, passes } = state;
        (self.steps, self.skipped) = (steps, skipped);
        self.options.schedule.resume(&self.hyper.method, passes);
        self.unapplied.clear();
        if let (Some(own), Some(state)) = (&mut self.options.loss_scale, loss_scale) {
            own.resume(state.scale, state.good_steps);
            let outcome = |whole| if whole { Outcome::Whole } else { Outcome::Skipped };
            self.unapplied = state.pending.into_iter().map(outcome).collect();
        }
    }
}
