//! Errors of a replica, which name it.

use std::fmt;
use std::time::Duration;

/// A replica failed in a step of [`Wsam::step_data_parallel`](crate::Wsam::step_data_parallel). Model and optimizer
/// are as before the step. Remove the replica with [`Replicas::remove`](crate::Replicas::remove) to go on without
/// it, or call again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("replica {replica} failed in the {pass}: {fault}")]
#[non_exhaustive]
pub struct ReplicaError {
    /// Name of the replica.
    pub replica: String,
    /// The pass in which it failed.
    pub pass: ReplicaPass,
    /// What happened.
    pub fault: ReplicaFault,
}

impl ReplicaError {
    pub(crate) fn new(replica: &str, pass: ReplicaPass, fault: ReplicaFault) -> Self {
        Self { replica: replica.to_owned(), pass, fault }
    }
}

/// A pass of a replica, with the exchange of its weights and gradients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplicaPass {
    /// The pass at `w`, from the copy of the weights to the replica until its gradients have arrived.
    First,
    /// The pass at `w + e_w`, likewise.
    Second,
}

impl fmt::Display for ReplicaPass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::First => "first pass",
            Self::Second => "second pass",
        })
    }
}

/// What happened to a replica.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplicaFault {
    /// Its thread panicked: in a closure of [`Replicas::new`](crate::Replicas::new), or in Burn, which panics if a
    /// remote worker is lost.
    #[error("its thread panicked: {message}")]
    Panicked {
        /// The panic's message.
        message: String,
    },
    /// It did not answer in time.
    #[error("no answer within {timeout:?}: remove it, or set a longer timeout")]
    TimedOut {
        /// The timeout, as set by [`Replicas::with_timeout`](crate::Replicas::with_timeout).
        timeout: Duration,
    },
    /// It still has not answered since a step in which it timed out.
    #[error("no answer since it timed out in an earlier step: remove it")]
    Hung,
    /// It returned a NaN or an infinity.
    #[error("{tensor} is not finite")]
    NotFinite {
        /// `the loss`, or `the gradient of` a parameter's path.
        tensor: String,
    },
    /// Burn could not run its work, or not read its results.
    #[error("{reason}")]
    Backend {
        /// Burn's message.
        reason: String,
    },
}
