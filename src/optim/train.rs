//! WSAM in burn-train's [`SupervisedTraining`](burn::train::SupervisedTraining).
//!
//! A training script changes only its optimizer and its strategy. Metrics, renderer, checkpointers, early
//! stopping, schedulers, gradient accumulation and interruption are still Burn's. The model's [`TrainStep`] is
//! called twice a step, or once in steps of one pass.
//!
//! ```
//! use burn::data::dataloader::{DataLoaderBuilder, batcher::Batcher};
//! use burn::data::dataset::InMemDataset;
//! use burn::module::Module;
//! use burn::nn::{Linear, LinearConfig};
//! use burn::tensor::{Device, Tensor};
//! use burn::train::metric::LossMetric;
//! use burn::train::{
//!     InferenceStep, RegressionOutput, SupervisedTraining, TrainOutput, TrainStep,
//! };
//! use burn_wsam::train::WsamTraining;
//! use burn_wsam::{AdamWBaseConfig, WsamConfig};
//!
//! # #[derive(Module, Debug)]
//! # struct Model {
//! #     linear: Linear,
//! # }
//! #
//! # impl Model {
//! #     fn forward(&self, x: Tensor<2>) -> RegressionOutput {
//! #         let (output, targets) = (self.linear.forward(x.clone()), x);
//! #         let loss = (output.clone() - targets.clone()).powi_scalar(2).mean();
//! #         RegressionOutput::new(loss, output, targets)
//! #     }
//! # }
//! #
//! # impl TrainStep for Model {
//! #     type Input = Tensor<2>;
//! #     type Output = RegressionOutput;
//! #
//! #     fn step(&self, x: Tensor<2>) -> TrainOutput<RegressionOutput> {
//! #         let item = self.forward(x);
//! #         TrainOutput::new(self, item.loss.backward(), item)
//! #     }
//! # }
//! #
//! # impl InferenceStep for Model {
//! #     type Input = Tensor<2>;
//! #     type Output = RegressionOutput;
//! #
//! #     fn step(&self, x: Tensor<2>) -> RegressionOutput {
//! #         self.forward(x)
//! #     }
//! # }
//! #
//! # struct Batches;
//! #
//! # impl Batcher<f32, Tensor<2>> for Batches {
//! #     fn batch(&self, items: Vec<f32>, device: &Device) -> Tensor<2> {
//! #         Tensor::<1>::from_floats(items.as_slice(), device).reshape([-1, 1])
//! #     }
//! # }
//! #
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = std::env::temp_dir().join(format!("burn-wsam-doc-{}", std::process::id()));
//! # let loader = || {
//! #     let items = InMemDataset::new(vec![0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]);
//! #     DataLoaderBuilder::new(Batches).batch_size(4).build(items)
//! # };
//! // On a GPU: burn_wsam::device()?.autodiff()
//! let device = Device::flex().autodiff();
//! let config = WsamConfig::adamw(AdamWBaseConfig::new());
//! let wsam = WsamTraining::new(config.init(&device)?);
//! println!("{}", wsam.route());
//!
//! # let model = Model { linear: LinearConfig::new(1, 1).init(&device) };
//! // Was: Learner::new(model, AdamWConfig::new().init(), 1e-3)
//! let learner = wsam.learner(model, 1e-3);
//! let result = SupervisedTraining::new(&folder, loader(), loader())
//!     .metric_train_numeric(LossMetric::new())
//!     .metric_valid_numeric(LossMetric::new())
//!     .with_default_checkpointers()
//!     .with_training_strategy(wsam.strategy())
//!     .num_epochs(2)
//! #   .with_application_logger(None)
//!     .launch(learner);
//! assert!(result.error.is_none());
//! # std::fs::remove_dir_all(folder)?;
//! # Ok(())
//! # }
//! ```
//!
//! # What a checkpoint holds
//!
//! Besides the model and the scheduler, a checkpoint holds `optim-{epoch}.bpk`: the base optimizer's state, in
//! the format of Burn's optimizers, and the number of steps taken. A training that is stopped after any epoch
//! and resumed with `.checkpoint(epoch)` ends with the same weights as an uninterrupted one, bit for bit, if it
//! gets the same batches in the same order (Burn's shuffled loader restarts its order) and uses no random numbers
//! other than those that [`mask_seed`](crate::WsamConfig::mask_seed) seeds. A checkpoint of Burn's `Sgd`, `Adam`
//! or `AdamW` can be resumed with WSAM around the same optimizer, and vice versa.
//!
//! The state is read before the training continues. With its own optimizers, Burn 0.22.1 reads it in the thread
//! that writes the file, so on wgpu their checkpoints may hold the state of later steps. The last checkpoint of a
//! training is correct: resume from that one.
//!
//! # What is different from Burn's own strategy
//!
//! - The optimizer's device, and others with [`WsamTraining::with_execution`]; the learner's model is moved there.
//!   Autodiff checkpointing is a
//!   property of the model's device here: `device.autodiff().gradient_checkpointing()`. A
//!   strategy does not receive the setting of `SupervisedTraining::gradient_checkpointing`.
//! - An overridden `TrainStep::optimize` gets new weights in place of gradients. Changes to the model after the
//!   optimizer's step work as usual; changes to gradients belong in `step`. It is called once more than there are
//!   steps: before the first one, with the model's current weights.
//! - A step that returns an error ends the training: see [`WsamTrainingError`].

mod checkpoint;
mod devices;
mod devices_epoch;
mod error;
mod options;
mod pass_through;
mod queue;
mod report;
mod run;
mod schedule;
mod shared;
mod sharpness;
mod strategy;
mod weights;

pub use error::WsamTrainingError;
pub use report::TrainingStep;
pub use schedule::{Schedule, StepInfo};
pub use sharpness::SharpnessMetric;

use super::optimizer::Wsam;
use super::options::Perturbation;
use super::route::Route;
use burn::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
use burn::optim::ModuleOptimizer;
use burn::tensor::Tensor;
use burn::train::{
    ExecutionStrategy, Learner, LearnerModel, MultiDeviceOptim, TrainStep, TrainingStrategy,
};
use options::{LossOf, StepOptions};
use pass_through::PassThroughOptimizer;
use shared::Shared;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use strategy::Strategy;

/// WSAM for a [`SupervisedTraining`](burn::train::SupervisedTraining): makes the learner and its strategy, and
/// reports on the training. See the [module](self).
///
/// This is a handle: clones refer to the same training. Only one training may run at a time.
#[derive(Clone)]
pub struct WsamTraining {
    shared: Arc<Shared>,
    options: StepOptions,
    route: Route,
}

impl WsamTraining {
    /// A training with this optimizer, on its device.
    pub fn new(wsam: Wsam) -> Self {
        let route = wsam.route().clone();
        let options = StepOptions {
            perturbation: Perturbation::Whole,
            rho: None,
            gamma: None,
            devices: None,
            timeout: Duration::from_secs(600),
            active: None,
        };
        Self { shared: Arc::new(Shared::new(wsam)), options, route }
    }

    /// Sets where passes run: on the optimizer's device, which is the default, or on several devices, of which it is
    /// the first.
    ///
    /// On several devices each has a [replica](crate::Replicas) of the model and its own part of the training data,
    /// as under Burn's own strategy: gradients of all devices are added up, and the optimizer steps on the first
    /// device. Outputs reach the metrics on the device that computed them. Running statistics are those of the first
    /// device. With [`Perturbation::EachMicroBatch`] each device is perturbed along its own gradient, also if
    /// gradients are accumulated.
    ///
    /// # Errors
    ///
    /// [`WsamTrainingError::Execution`] if the first device is not the optimizer's, for `OptimSharded` and for
    /// `DistributedDataParallel`.
    pub fn with_execution(
        mut self,
        strategy: ExecutionStrategy,
    ) -> Result<Self, WsamTrainingError> {
        let fail = |strategy, reason| Err(WsamTrainingError::Execution { strategy, reason });
        let (name, devices) = match strategy {
            ExecutionStrategy::SingleDevice(device) => ("SingleDevice", vec![device]),
            ExecutionStrategy::MultiDevice(devices, MultiDeviceOptim::OptimMainDevice) => {
                ("MultiDevice", devices)
            }
            ExecutionStrategy::MultiDevice(_, MultiDeviceOptim::OptimSharded) => {
                return fail("MultiDevice", "WSAM steps on one device, so use OptimMainDevice");
            }
            ExecutionStrategy::DistributedDataParallel { .. } => {
                return fail("DistributedDataParallel", "use MultiDevice with OptimMainDevice");
            }
        };
        if devices.first() != Some(self.shared.wsam().device()) {
            return fail(name, "its first device must be the one that the optimizer was made for");
        }
        self.options.devices = (devices.len() > 1).then_some(devices);
        Ok(self)
    }

    /// Sets the longest time that a pass on one of several devices may take, 10 minutes by default. A device that
    /// takes longer ends the training with [`WsamError::Replica`](crate::WsamError::Replica).
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = timeout;
        self
    }

    /// Sets how weights are perturbed if gradients are accumulated; by default once, along the whole gradient.
    pub fn with_perturbation(mut self, perturbation: Perturbation) -> Self {
        self.options.perturbation = perturbation;
        self
    }

    /// The radius of the perturbation for each step. A value outside its domain ends the training.
    pub fn with_rho(mut self, rho: impl Into<Schedule>) -> Self {
        self.options.rho = Some(rho.into());
        self
    }

    /// The weight of the sharpness for each step. A value outside its domain ends the training.
    pub fn with_gamma(mut self, gamma: impl Into<Schedule>) -> Self {
        self.options.gamma = Some(gamma.into());
        self
    }

    /// Sets for each step whether the method is active. In other steps the base optimizer steps alone, with one pass
    /// and the same state. A [pass rule](crate::WsamConfig::pass_rule) still applies to active steps, and
    /// [`start_step`](crate::WsamConfig::start_step) starts the method at a step. For example, WSAM for the last part of
    /// a training, by epochs:
    ///
    /// ```
    /// # use burn_wsam::{SgdBaseConfig, WsamConfig, train::WsamTraining};
    /// # fn main() -> Result<(), burn_wsam::WsamError> {
    /// # let device = burn::tensor::Device::flex();
    /// # let wsam = WsamConfig::sgd(SgdBaseConfig::new()).init(&device)?;
    /// let training = WsamTraining::new(wsam).with_active(|at| at.epoch > 15);
    /// # let _ = training;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// The result should depend only on the argument, otherwise a resumed training may differ.
    pub fn with_active(
        mut self,
        active: impl Fn(StepInfo) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.options.active = Some(Arc::new(active));
        self
    }

    /// The learner: `Learner::new` with WSAM as its optimizer. It requires
    /// [`strategy`](Self::strategy); under another strategy its weights do not change, and an error is
    /// logged.
    ///
    /// Burn's per-tensor gradient clipping is not supported: use
    /// [`max_norm`](crate::WsamConfig::max_norm).
    pub fn learner<M: LearnerModel>(
        &self,
        model: M,
        lr_scheduler: impl Into<ModuleLrScheduler>,
    ) -> Learner<M> {
        let optimizer = ModuleOptimizer::from(PassThroughOptimizer(self.shared.clone()));
        Learner::new(model, optimizer, lr_scheduler)
    }

    /// The strategy, for
    /// [`with_training_strategy`](burn::train::SupervisedTraining::with_training_strategy).
    pub fn strategy<M: LearnerModel>(&self) -> TrainingStrategy<M>
    where
        <M as TrainStep>::Input: Clone,
    {
        TrainingStrategy::Custom(Arc::new(Strategy::new(
            self.shared.clone(),
            self.options.clone(),
            None,
        )))
    }

    /// [`strategy`](Self::strategy) with a function that returns the loss in the output of the model's
    /// `TrainStep`, which the sharpness needs: `|output| output.loss.clone()` for Burn's own outputs. The host
    /// does not wait for the value.
    pub fn strategy_with_loss<M: LearnerModel>(
        &self,
        loss: impl Fn(&<M as TrainStep>::Output) -> Tensor<1> + 'static,
    ) -> TrainingStrategy<M>
    where
        <M as TrainStep>::Input: Clone,
    {
        let loss: Option<Box<LossOf<M>>> = Some(Box::new(loss));
        TrainingStrategy::Custom(Arc::new(Strategy::new(
            self.shared.clone(),
            self.options.clone(),
            loss,
        )))
    }

    /// The sharpness of each step as a metric. It has values under
    /// [`strategy_with_loss`](Self::strategy_with_loss).
    pub fn sharpness_metric(&self) -> SharpnessMetric {
        SharpnessMetric::new(self.shared.clone())
    }

    /// The route steps take, with the reason it was chosen.
    pub fn route(&self) -> &Route {
        &self.route
    }

    /// The last step; `None` before the first one of the training.
    pub fn last_step(&self) -> Option<Arc<TrainingStep>> {
        self.shared.training().last.clone()
    }

    /// Cost of the last step of WSAM; `None` before the first one and in tensor operations.
    #[cfg(feature = "fused-wsam")]
    pub fn last_step_stats(&self) -> Option<crate::engine::StepStats> {
        self.shared.wsam().last_step_stats()
    }

    /// The error of this crate that ended the training, if any.
    pub fn error(&self) -> Option<Arc<WsamTrainingError>> {
        self.shared.training().error.clone()
    }
}

impl fmt::Debug for WsamTraining {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WsamTraining").field("route", &self.route).finish_non_exhaustive()
    }
}
