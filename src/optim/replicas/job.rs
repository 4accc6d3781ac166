//! What the optimizer's thread and a replica's thread send each other.

use super::error::ReplicaPass;
use super::exchange::{Layout, Values};
use super::report::Span;
use crate::optim::error::WsamError;
use crate::optim::optimizer::ReplicaAscent;
use burn::tensor::TensorData;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

/// Work for a replica.
pub(super) struct Job<M, B> {
    pub(super) work: Work<M, B>,
    pub(super) settings: PassSettings,
    pub(super) answers: Answers,
}

pub(super) enum Work<M, B> {
    /// The first pass; the second one too if there is an `ascent`.
    First {
        /// The whole model and the values of its frozen parameters, if the replica has no copy of it.
        model: Option<(M, Arc<Values>)>,
        layout: Arc<Layout>,
        /// Weights and running statistics.
        values: Arc<Values>,
        batch: B,
        /// Whether to return the running statistics of the first pass.
        returns_statistics: bool,
        /// For a perturbation along the replica's own gradient.
        ascent: Option<Arc<ReplicaAscent>>,
    },
    /// The second pass at these weights, over the batch of the first one.
    Second { values: Arc<Values> },
}

/// Settings of a replica's passes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PassSettings {
    /// Place of the shard.
    pub(crate) part: usize,
    /// Weight of the replica's loss in the average.
    pub(crate) share: f64,
    pub(crate) loss_scale: f64,
    pub(crate) mask_seed: Option<u64>,
    /// Number of the step, for the masks.
    pub(crate) step: u64,
    /// Whether a NaN or an infinity is an error.
    pub(crate) checks_finite: bool,
}

/// The result of a pass, on the host.
pub(super) struct Passed {
    pub(super) pass: ReplicaPass,
    pub(super) grads: Values,
    pub(super) loss: Option<TensorData>,
    pub(super) statistics: Option<Values>,
    pub(super) compute: Span,
    pub(super) exchange: Span,
}

/// Sends a replica's answers to one step.
#[derive(Clone)]
pub(super) struct Answers {
    pub(super) sender: Sender<(usize, Result<Passed, WsamError>)>,
    /// Place of the shard.
    pub(super) part: usize,
    /// Beginning of the step.
    pub(super) began: Instant,
}

impl Answers {
    pub(super) fn send(&self, answer: Result<Passed, WsamError>) {
        // The step may have ended with the error of another replica, and nothing waits for this answer.
        let _ = self.sender.send((self.part, answer));
    }

    /// Time since the beginning of the step.
    pub(super) fn now(&self) -> Duration {
        self.began.elapsed()
    }
}
