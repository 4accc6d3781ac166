//! Description of the last step.

use super::schedule::StepInfo;
use crate::method::Passes;
use crate::optim::report::{Norms, StepReport};
use burn::tensor::Tensor;

/// A step of the training.
#[derive(Debug)]
#[non_exhaustive]
pub struct TrainingStep {
    /// Position in the training.
    pub at: StepInfo,
    /// The learning rate.
    pub lr: f64,
    /// Radius of the perturbation.
    pub rho: f64,
    /// Weight of the sharpness.
    pub gamma: f64,
    /// Whether it was a step of the method, or one of the base optimizer alone.
    pub perturbed: bool,
    /// How many gradients the step took.
    pub passes: Passes,
    pub(super) report: Option<StepReport>,
}

impl TrainingStep {
    /// Losses, sharpness and norms, for steps with an active method under a strategy that knows the loss
    /// ([`WsamTraining::strategy_with_loss`](super::WsamTraining::strategy_with_loss)). Under gradient
    /// accumulation losses are sums over the micro-batches, as gradients are.
    pub fn report(&self) -> Option<&StepReport> {
        self.report.as_ref()
    }
}

/// The report of a step of one pass, if its loss is known.
pub(super) fn one_pass_report(loss: Option<Tensor<1>>, norms: Norms) -> Option<StepReport> {
    Some(StepReport { loss: loss?, perturbed_loss: None, norms })
}

/// The report of a step of two passes, if both losses are known.
pub(super) fn report(
    loss: Option<Tensor<1>>,
    perturbed_loss: Option<Tensor<1>>,
    norms: Norms,
) -> Option<StepReport> {
    Some(StepReport { loss: loss?, perturbed_loss: Some(perturbed_loss?), norms })
}
