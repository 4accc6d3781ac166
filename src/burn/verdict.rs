//! What became of the last step. The device decides it, and the host finds out when it needs to know.

use super::error::WsamError;
use crate::method::{NonFinite, Outcome};
use burn::module::ParamId;
use std::sync::{Mutex, PoisonError};

/// What the device found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Finite {
    pub(crate) gradient: bool,
    pub(crate) perturbed: bool,
}

/// What became of a step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settled {
    pub(crate) finite: Finite,
    pub(crate) outcome: Outcome,
}

/// A step whose end the host does not know yet: until then its parameters count it as taken.
#[derive(Debug)]
pub(crate) struct Unsettled<E> {
    pub(crate) ids: Vec<ParamId>,
    policy: NonFinite,
    lean: bool,
    /// On the device.
    evidence: E,
    found: Mutex<Option<Finite>>,
}

impl<E> Unsettled<E> {
    pub(crate) fn new(ids: Vec<ParamId>, policy: NonFinite, lean: bool, evidence: E) -> Self {
        Self { ids, policy, lean, evidence, found: Mutex::new(None) }
    }

    /// Reads the evidence, once.
    pub(crate) fn settled(
        &self,
        read: impl FnOnce(&E) -> Result<Finite, WsamError>,
    ) -> Result<Settled, WsamError> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let finite = match *found {
            Some(finite) => finite,
            None => *found.insert(read(&self.evidence)?),
        };
        let outcome = self.policy.outcome(self.lean, finite.gradient, finite.perturbed);
        Ok(Settled { finite, outcome })
    }
}

impl Settled {
    /// By how much the step counts of the step's parameters are too high.
    pub(crate) fn uncounted(&self) -> u64 {
        u64::from(self.outcome == Outcome::Skipped)
    }
}
