//! Why a training ended before its last epoch.

use crate::burn::error::{Rejected, WsamError};

/// Why [`SupervisedTraining`](burn::train::SupervisedTraining) with WSAM ended by an error of ours. The
/// training stops as it does for Burn's own errors:
/// [`LearningResult::error`](burn::train::LearningResult::error) has this in words, and
/// [`WsamTraining::error`](super::WsamTraining::error) as a value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WsamTrainingError {
    /// The optimizer refused a step, a scheduled value or the state of a checkpoint.
    #[error(transparent)]
    Wsam(#[from] WsamError),
    /// New weights did not get to the learner's model.
    #[error(
        "{taken} of {sent} parameters reached WSAM's own optimizer: make the learner with \
         WsamTraining::learner, and let TrainStep::optimize hand on all gradients it gets"
    )]
    NotTaken {
        /// Parameters handed to the learner.
        sent: usize,
        /// Parameters that arrived.
        taken: usize,
    },
    /// A frozen parameter stands in front of a trainable one with the same id, where Burn's learner would
    /// deliver the new weights.
    #[error(
        "{frozen} is frozen and stands in front of {trainable}, which has the same id: Burn's learner would give \
         it the new weights. Declare the trained module first, or give the frozen one ids of its own"
    )]
    FrozenInFront {
        /// Path of the frozen parameter.
        frozen: String,
        /// Path of the trainable one.
        trainable: String,
    },
}

impl<M> From<Rejected<M>> for WsamTrainingError {
    fn from(rejected: Rejected<M>) -> Self {
        Self::Wsam(rejected.error)
    }
}
