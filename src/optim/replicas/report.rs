//! Report of a data-parallel step.

use crate::optim::report::StepReport;
use std::time::Duration;

/// A part of a step, from the beginning of the step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Time from the beginning of the step until the part began.
    pub start: Duration,
    /// Time from the beginning of the step until the part ended.
    pub end: Duration,
}

impl Span {
    /// Length of the part.
    pub fn duration(&self) -> Duration {
        self.end.saturating_sub(self.start)
    }

    /// How long the two parts ran at the same time.
    pub fn overlap(&self, other: &Span) -> Duration {
        self.end.min(other.end).saturating_sub(self.start.max(other.start))
    }
}

/// Times and bytes of one replica in a step.
///
/// Devices other than CPUs compute asynchronously: then a pass ends when the host has queued it, and the exchange
/// includes the time until the device has finished it.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ReplicaReport {
    /// Name of the replica.
    pub name: String,
    /// Forward and backward pass at `w`, with the copy of the weights to the replica and the loading of its batch.
    pub first_pass: Span,
    /// Reading `g`.
    pub first_exchange: Span,
    /// Forward and backward pass at `w + e_w`, with the perturbation or the copy of the perturbed weights.
    pub second_pass: Span,
    /// Reading `g~`.
    pub second_exchange: Span,
    /// Bytes of weights and running statistics sent to the replica. The first step on a replica also copies the
    /// whole model to it, which is not counted.
    pub bytes_sent: u64,
    /// Bytes of gradients, losses and running statistics received from the replica.
    pub bytes_received: u64,
}

/// Report of a step of [`Wsam::step_data_parallel`](crate::Wsam::step_data_parallel).
#[derive(Debug)]
#[non_exhaustive]
pub struct DataParallelReport {
    /// The step's report. Its losses are weighted averages over the replicas.
    pub step: StepReport,
    /// One for each replica that had a shard, in the order of the shards.
    pub replicas: Vec<ReplicaReport>,
}

impl DataParallelReport {
    /// Bytes of weights and running statistics sent to all replicas.
    pub fn bytes_sent(&self) -> u64 {
        self.replicas.iter().map(|replica| replica.bytes_sent).sum()
    }

    /// Bytes of gradients, losses and running statistics received from all replicas.
    pub fn bytes_received(&self) -> u64 {
        self.replicas.iter().map(|replica| replica.bytes_received).sum()
    }
}
