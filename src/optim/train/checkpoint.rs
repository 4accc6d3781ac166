//! States of parameters from a checkpoint, which wait in the learner's optimizer until the training begins.

use crate::optim::state::Recorded;
use burn::module::ParamId;

/// State of a parameter from a checkpoint.
#[derive(Debug)]
pub(super) struct CheckpointState {
    pub(super) id: u64,
    pub(super) state: Recorded,
    /// Step count of the training, if it used this strategy.
    pub(super) steps: Option<u64>,
}

/// Parses a parameter's id, which prefixes its states in records.
pub(super) fn id(prefix: &str) -> Option<ParamId> {
    prefix.parse::<u64>().ok().map(ParamId::from)
}
