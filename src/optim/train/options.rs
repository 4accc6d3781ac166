//! Options of a training.

use super::schedule::{Schedule, StepInfo};
use crate::optim::options::Perturbation;
use burn::tensor::{Device, Tensor};
use burn::train::TrainStep;
use std::sync::Arc;
use std::time::Duration;

/// The loss in what a model's [`TrainStep`] returns.
pub(super) type LossOf<M> = dyn Fn(&<M as TrainStep>::Output) -> Tensor<1>;

/// Options of a training, fixed before it begins.
#[derive(Clone)]
pub(super) struct StepOptions {
    pub(super) perturbation: Perturbation,
    pub(super) rho: Option<Schedule>,
    pub(super) gamma: Option<Schedule>,
    /// For training on several devices, the first of which is the optimizer's.
    pub(super) devices: Option<Vec<Device>>,
    pub(super) timeout: Duration,
    pub(super) active: Option<Arc<dyn Fn(StepInfo) -> bool + Send + Sync>>,
}
