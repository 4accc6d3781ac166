//! The result of a pass over the data, a loss and its gradient, and sums of both over micro-batches.

use super::error::WsamError;
use super::walk::for_each_param;
use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::Tensor;

/// Result of a pass over the data: the gradient, and the loss without autodiff.
pub(crate) type Pass = (GradientsParams, Tensor<1>);

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

/// Normalises the weights of the micro-batches to a sum of 1.
pub(crate) fn shares(micro_batches: usize, weights: &[f64]) -> Result<Vec<f64>, WsamError> {
    if micro_batches == 0 {
        return Err(WsamError::NoMicroBatches);
    }
    let sum: f64 = weights.iter().sum();
    let sound = weights.iter().all(|weight| *weight > 0.0) && sum.is_finite();
    if weights.len() != micro_batches || !sound {
        return Err(WsamError::MicroBatchWeights { micro_batches, weights: weights.to_vec() });
    }
    Ok(weights.iter().map(|weight| weight / sum).collect())
}

/// Returns the gradient of `share * scale * loss` at `model`, and `share * loss`.
pub(crate) fn pass<M: Module>(
    model: &M,
    loss: Tensor<1>,
    scale: f64,
    share: f64,
) -> Result<Pass, WsamError> {
    check_loss(&loss)?;
    let times = |loss: Tensor<1>, by| if by == 1.0 { loss } else { loss * by };
    let loss = times(loss, share);
    let grads = GradientsParams::from_grads(times(loss.clone(), scale).backward(), model);
    Ok((grads, loss.without_autodiff()))
}

/// Returns an error for a loss without autodiff, or with more or less than one element.
pub(crate) fn check_loss(loss: &Tensor<1>) -> Result<(), WsamError> {
    check_loss_shape(loss)?;
    if loss.is_autodiff() { Ok(()) } else { Err(WsamError::NoAutodiff) }
}

pub(crate) fn check_loss_shape(loss: &Tensor<1>) -> Result<(), WsamError> {
    let shape = loss.shape();
    match shape.num_elements() {
        1 => Ok(()),
        _ => Err(WsamError::LossShape { shape: shape.to_vec() }),
    }
}

/// Returns the sums as a pass.
pub(crate) fn summed<M: Module>(sum: Sum<M>) -> Result<Pass, WsamError> {
    let (grads, loss) = sum.take();
    Ok((grads, loss.ok_or(WsamError::NoMicroBatches)?))
}

/// Clones the handles of the gradients.
pub(crate) fn copied<M: Module>(model: &M, grads: &GradientsParams) -> GradientsParams {
    let mut copies = GradientsParams::new();
    for_each_param(model, |param, _| param.copy_gradient(grads, &mut copies));
    copies
}
