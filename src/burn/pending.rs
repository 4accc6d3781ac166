//! Outcomes that the host has not read yet. The device decides what a step does; the host reads that when
//! it needs to know how many steps there were.

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

/// An outcome that was read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ResolvedOutcome {
    pub(crate) finite: Finite,
    pub(crate) outcome: Outcome,
}

impl ResolvedOutcome {
    /// By how much the step counts are too high: a skipped step was counted when it was recorded.
    pub(crate) fn overcount(&self) -> u64 {
        u64::from(self.outcome == Outcome::Skipped)
    }
}

/// Ties the second half of a lean step to its first half.
pub(crate) type LeanStep = Arc<()>;

/// A step whose outcome is still on the device. Until it is read, the step counts as taken.
#[derive(Debug)]
struct PendingOutcome<R> {
    /// The parameters whose steps it counted.
    ids: Vec<ParamId>,
    policy: NonFinite,
    /// Of a lean step, while its second half is missing.
    lean_step: Option<Weak<()>>,
    lean: bool,
    readback: R,
    finite: Mutex<Option<Finite>>,
}

impl<R> PendingOutcome<R> {
    /// Reads the device once.
    fn resolve(
        &self,
        read: impl FnOnce(&R) -> Result<Finite, WsamError>,
    ) -> Result<ResolvedOutcome, WsamError> {
        let mut known = self.finite.lock().unwrap_or_else(PoisonError::into_inner);
        let finite = match *known {
            Some(finite) => finite,
            None => *known.insert(read(&self.readback)?),
        };
        let outcome = self.policy.outcome(self.lean, finite.gradient, finite.perturbed);
        Ok(ResolvedOutcome { finite, outcome })
    }

    /// Whether the outcome is the last word on the step: not if its second half may still come, unless the
    /// first one skipped the step.
    fn is_decided(&self, outcome: Outcome) -> bool {
        let is_open = self.lean_step.as_ref().is_some_and(|step| step.strong_count() > 0);
        !is_open || outcome == Outcome::Skipped
    }
}

/// What a step puts into the queue.
pub(crate) struct Submitted<R> {
    pub(crate) ids: Vec<ParamId>,
    pub(crate) policy: NonFinite,
    pub(crate) readback: R,
}

/// The outcomes of one optimizer that were not read yet, in the order of the steps. Steps of several models
/// may interleave, so each entry has its own parameters.
#[derive(Debug)]
pub(crate) struct PendingOutcomes<R> {
    queue: Vec<PendingOutcome<R>>,
    /// The place in `queue` of the step that was submitted last, until the queue is resolved.
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

    /// Adds a lean step after its first half, which decides whether it counts.
    pub(crate) fn push_lean(&mut self, step: Submitted<R>, lean: &LeanStep) {
        self.push_entry(step, Some(Arc::downgrade(lean)));
    }

    fn push_entry(&mut self, step: Submitted<R>, lean_step: Option<Weak<()>>) {
        let Submitted { ids, policy, readback } = step;
        let (lean, finite) = (lean_step.is_some(), Mutex::new(None));
        self.queue.push(PendingOutcome { ids, policy, lean_step, lean, readback, finite });
        self.latest = Some(self.queue.len() - 1);
    }

    /// Completes a lean step with what its second half found out. If `g` was not finite the step may have
    /// been resolved as skipped between the halves; then there is nothing left to find out.
    pub(crate) fn complete(&mut self, lean: &LeanStep, readback: R) {
        let own = |entry: &PendingOutcome<R>| {
            entry
                .lean_step
                .as_ref()
                .is_some_and(|step| std::ptr::eq(step.as_ptr(), &raw const **lean))
        };
        self.latest = self.queue.iter().position(own);
        if let Some(entry) = self.latest.and_then(|place| self.queue.get_mut(place)) {
            entry.lean_step = None;
            entry.readback = readback;
            entry.finite = Mutex::new(None);
        }
    }

    /// The outcome of the step that was submitted last; `None` if it is not to be looked at, or was resolved.
    pub(crate) fn latest(
        &self,
        read: impl FnOnce(&R) -> Result<Finite, WsamError>,
    ) -> Result<Option<ResolvedOutcome>, WsamError> {
        let entry = self.latest.and_then(|place| self.queue.get(place));
        entry.map(|entry| entry.resolve(read)).transpose()
    }

    /// Where the outcome of the step that was submitted last is on the device, its policy, and whether the step
    /// is lean.
    pub(crate) fn latest_readback(&self) -> Option<(&R, NonFinite, bool)> {
        let entry = self.latest.and_then(|place| self.queue.get(place))?;
        Some((&entry.readback, entry.policy, entry.lean))
    }

    /// By how much the steps of `id`, or of all parameters together, are counted too high.
    pub(crate) fn overcount(
        &self,
        id: Option<ParamId>,
        read: impl Fn(&R) -> Result<Finite, WsamError>,
    ) -> Result<u64, WsamError> {
        let counts = |entry: &&PendingOutcome<R>| id.is_none_or(|id| entry.ids.contains(&id));
        let entries = self.queue.iter().filter(counts);
        entries.map(|entry| Ok(entry.resolve(&read)?.overcount())).sum()
    }

    /// Every outcome that is decided.
    pub(crate) fn decided(
        &self,
        read: impl Fn(&R) -> Result<Finite, WsamError>,
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

    /// Reads every outcome that is decided, and takes it out of the queue with its parameters. A lean step
    /// between its halves stays, unless its `g` was not finite. On an error the queue is as it was.
    pub(crate) fn resolve(
        &mut self,
        read: impl Fn(&R) -> Result<Finite, WsamError>,
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
