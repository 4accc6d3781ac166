//! Sharpness values of the last steps, on their way to the metric.

use burn::tensor::Tensor;
use std::collections::VecDeque;

/// Most steps that are queued for the metric's thread, which lags by a few. The limit bounds the memory of a
/// metric that was made but not registered.
const MAX_QUEUED: usize = 1 << 12;

/// Queue of sharpness values for the metric.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Whether a metric was made.
    wanted: bool,
    /// Iteration in the epoch, and the value.
    values: VecDeque<(usize, Tensor<1>)>,
}

impl Queue {
    pub(super) fn want(&mut self) {
        self.wanted = true;
    }

    pub(super) fn emptied(&self) -> Self {
        Self { wanted: self.wanted, values: VecDeque::new() }
    }

    pub(super) fn push(&mut self, iteration: usize, sharpness: Tensor<1>) {
        if !self.wanted {
            return;
        }
        if self.values.len() == MAX_QUEUED {
            self.values.pop_front();
        }
        self.values.push_back((iteration, sharpness));
    }

    /// Takes the value of this iteration, and drops earlier ones. Iterations come in order, and start at 1 in
    /// each epoch.
    pub(super) fn take(&mut self, iteration: usize) -> Option<Tensor<1>> {
        let at = self.values.iter().position(|(found, _)| *found == iteration)?;
        self.values.drain(..=at).next_back().map(|(_, value)| value)
    }
}
