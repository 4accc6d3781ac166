//! Errors that end a training before its last epoch.

use crate::optim::error::{Rejected, WsamError};

/// Error of this crate that ended a [`SupervisedTraining`](burn::train::SupervisedTraining) with WSAM. The
/// training stops as it does for Burn's own errors:
/// [`LearningResult::error`](burn::train::LearningResult::error) holds the message, and
/// [`WsamTraining::error`](super::WsamTraining::error) the value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WsamTrainingError {
    /// The optimizer rejected a step, a scheduled value or the state of a checkpoint.
    #[error(transparent)]
    Wsam(#[from] WsamError),
    /// WSAM does not support an execution strategy, or its main device is not the optimizer's.
    #[error("the execution strategy {strategy} is not possible: {reason}")]
    Execution {
        /// The strategy.
        strategy: &'static str,
        /// The reason, and what to do.
        reason: &'static str,
    },
    /// New weights did not reach the learner's model.
    #[error(
        "{taken} of {sent} parameters reached WSAM's own optimizer: make the learner with \
         WsamTraining::learner, and let TrainStep::optimize pass on all gradients it gets"
    )]
    NotTaken {
        /// Number of parameters passed to the learner.
        sent: usize,
        /// Number of parameters that reached its optimizer.
        taken: usize,
    },
    /// A frozen parameter precedes a trainable one with the same id, so Burn's learner would assign the new
    /// weights to the frozen one.
    #[error(
        "{frozen} is frozen and precedes {trainable}, which has the same id: Burn's learner would assign the new \
         weights to {frozen}. Declare the trained module first, or give the frozen one new ids"
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
