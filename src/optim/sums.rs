//! Gradients and losses over micro-batches.

use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::Tensor;

/// Sum of gradients over micro-batches, as in Burn's training loops, and of losses if they are known.
pub(crate) struct Sum<M> {
    one: Option<GradientsParams>,
    more: GradientsAccumulator<M>,
    loss: Option<Tensor<1>>,
    pub(crate) len: usize,
}

impl<M> Default for Sum<M> {
    fn default() -> Self {
        Self { one: None, more: GradientsAccumulator::new(), loss: None, len: 0 }
    }
}

impl<M: Module> Sum<M> {
    pub(crate) fn add(&mut self, model: &M, grads: GradientsParams, loss: Option<Tensor<1>>) {
        self.len += 1;
        // Avoid the accumulator for one batch, the usual case.
        match (self.len, self.one.take()) {
            (1, _) => self.one = Some(grads),
            (_, first) => {
                if let Some(first) = first {
                    self.more.accumulate(model, first);
                }
                self.more.accumulate(model, grads);
            }
        }
        let loss = loss.map(Tensor::without_autodiff);
        self.loss = match (self.loss.take(), loss) {
            (Some(sum), Some(loss)) => Some(sum + loss),
            (sum, loss) => sum.or(loss),
        };
    }

    pub(crate) fn take(mut self) -> (GradientsParams, Option<Tensor<1>>) {
        (self.one.unwrap_or_else(|| self.more.grads()), self.loss)
    }
}
