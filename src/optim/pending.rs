//! Outcomes that the host has not read yet. The device decides whether a step is taken; the host reads the
//! outcome when it needs the step count.

use super::error::WsamError;
use crate::method::{NonFinite, Outcome};
use burn::module::ParamId;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Which gradients of a step are finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Finite {
    pub(crate) gradient: bool,
    pub(crate) perturbed: bool,
}

/// What the device says about a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ReadBack {
    pub(crate) finite: Finite,
    /// `||g||`, if the step computed it.
    pub(crate) gradient_norm: Option<f64>,
}

/// An outcome that was read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ResolvedOutcome {
    pub(crate) finite: Finite,
    /// `||g||`, if the step computed it.
    pub(crate) gradient_norm: Option<f64>,
    pub(crate) outcome: Outcome,
}

impl ResolvedOutcome {
    /// Steps to subtract from the step counts: 1 for a skipped step, which was counted when it was submitted.
    pub(crate) fn overcount(&self) -> u64 {
        u64::from(self.outcome == Outcome::Skipped)
    }
}

/// Token that connects the second phase of a lean step to its first phase.
pub(crate) type LeanStep = Arc<()>;

/// A step whose outcome is still on the device. Until it is read, the step counts as taken.
#[derive(Debug)]
struct PendingOutcome<R> {
    /// Parameters whose step counts include this step.
    ids: Vec<ParamId>,
    policy: NonFinite,
    /// Token of a lean step whose second phase has not been submitted.
    lean_step: Option<Weak<()>>,
    lean: bool,
    readback: R,
    known: Mutex<Option<ReadBack>>,
}

impl<R> PendingOutcome<R> {
    /// Reads the outcome from the device at the first call, and returns the stored one afterwards.
    fn resolve(
        &self,
        read: impl FnOnce(&R) -> Result<ReadBack, WsamError>,
    ) -> Result<ResolvedOutcome, WsamError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let ReadBack { finite, gradient_norm } = match *known {
            Some(known) => known,
            None => *known.insert(read(&self.readback)?),
        };
        let outcome = self.policy.outcome(self.lean, finite.gradient, finite.perturbed);
        Ok(ResolvedOutcome { finite, gradient_norm, outcome })
    }

    /// Whether the outcome is final. It is not while the second phase of a lean step may follow, unless the first
    /// phase skipped the step.
    fn is_decided(&self, outcome: Outcome) -> bool {
        let is_open = self.lean_step.as_ref().is_some_and(|step| step.strong_count() > 0);
        !is_open || outcome == Outcome::Skipped
    }
}

/// A submitted step to add to the queue.
pub(crate) struct Submitted<R> {
    pub(crate) ids: Vec<ParamId>,
    pub(crate) policy: NonFinite,
    pub(crate) readback: R,
}

/// Queue of one optimizer's unread outcomes, in step order. Steps of several models may interleave, so each entry
/// lists its parameters.
#[derive(Debug)]
pub(crate) struct PendingOutcomes<R> {
    queue: Vec<PendingOutcome<R>>,
    /// Index in `queue` of the last submitted step. `None` after the queue was resolved.
    latest: Option<usize>,
}

impl<R> Default for PendingOutcomes<R> {
    fn default() -> Self {
        Self { queue: Vec::new(), latest: None }
    }
}

impl<R> PendingOutcomes<R> {
    /// Adds a step that ends with this submission.
    pub(crate) fn push(&mut self, step: Submitted<R>) {
        self.push_entry(step, None);
    }

    /// Adds a lean step after its first phase, which decides whether the step is skipped.
    pub(crate) fn push_lean(&mut self, step: Submitted<R>, lean: &LeanStep) {
        self.push_entry(step, Some(Arc::downgrade(lean)));
    }

    fn push_entry(&mut self, step: Submitted<R>, lean_step: Option<Weak<()>>) {
        let Submitted { ids, policy, readback } = step;
        let (lean, known) = (lean_step.is_some(), Mutex::new(None));
        self.queue.push(PendingOutcome { ids, policy, lean_step, lean, readback, known });
        self.latest = Some(self.queue.len() - 1);
    }

    /// Completes a lean step with the readback of its second phase. Does nothing if the step was resolved as
    /// skipped between the phases, because `g` was not finite.
    pub(crate) fn complete(&mut self, lean: &LeanStep, readback: R) {
        let is_same_step = |entry: &PendingOutcome<R>| {
            entry
                .lean_step
                .as_ref()
                .is_some_and(|step| std::ptr::eq(step.as_ptr(), &raw const **lean))
        };
        self.latest = self.queue.iter().position(is_same_step);
        if let Some(entry) = self.latest.and_then(|place| self.queue.get_mut(place)) {
            entry.lean_step = None;
            entry.readback = readback;
            entry.known = Mutex::new(None);
        }
    }

    /// Outcome of the last submitted step; `None` if the policy does not check gradients, or it was resolved.
    pub(crate) fn latest(
        &self,
        read: impl FnOnce(&R) -> Result<ReadBack, WsamError>,
    ) -> Result<Option<ResolvedOutcome>, WsamError> {
        let entry = self.latest.and_then(|place| self.queue.get(place));
        entry.map(|entry| entry.resolve(read)).transpose()
    }

    /// Readback and policy of the last submitted step, and whether the step is lean.
    pub(crate) fn latest_readback(&self) -> Option<(&R, NonFinite, bool)> {
        let entry = self.latest.and_then(|place| self.queue.get(place))?;
        Some((&entry.readback, entry.policy, entry.lean))
    }

    /// Number of skipped steps that the step count of `id` still includes; for `None`, that of the optimizer.
    pub(crate) fn overcount(
        &self,
        id: Option<ParamId>,
        read: impl Fn(&R) -> Result<ReadBack, WsamError>,
    ) -> Result<u64, WsamError> {
        let counts = |entry: &&PendingOutcome<R>| id.is_none_or(|id| entry.ids.contains(&id));
        let entries = self.queue.iter().filter(counts);
        entries.map(|entry| Ok(entry.resolve(&read)?.overcount())).sum()
    }

    /// All outcomes that are final.
    pub(crate) fn decided(
        &self,
        read: impl Fn(&R) -> Result<ReadBack, WsamError>,
    ) -> Result<Vec<ResolvedOutcome>, WsamError> {
        let mut decided = Vec::new();
        for entry in &self.queue {
            let resolved = entry.resolve(&read)?;
            if entry.is_decided(resolved.outcome) {
                decided.push(resolved);
            }
        }
        Ok(decided)
    }

    /// Reads all final outcomes, and removes them from the queue with their parameters. A lean step between its
    /// phases stays queued, unless its `g` was not finite. On an error the queue is unchanged.
    pub(crate) fn resolve(
        &mut self,
        read: impl Fn(&R) -> Result<ReadBack, WsamError>,
    ) -> Result<Vec<(ResolvedOutcome, Vec<ParamId>)>, WsamError> {
        let resolved =
            self.queue.iter().map(|entry| entry.resolve(&read)).collect::<Result<Vec<_>, _>>()?;
        let mut done = Vec::new();
        let mut open = Vec::new();
        for (entry, resolved) in self.queue.drain(..).zip(resolved) {
            if entry.is_decided(resolved.outcome) {
                done.push((resolved, entry.ids));
            } else {
                open.push(entry);
            }
        }
        self.queue = open;
        self.latest = None;
        Ok(done)
    }
}
