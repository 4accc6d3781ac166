//! What the optimizer refuses, and how the model comes back.

use crate::method::InvalidHyperparameter;
use burn::tensor::{DType, Device};

/// Why a step, or the making of an optimizer, was refused. Parameters are named by their path in
/// the module.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WsamError {
    /// A hyperparameter or learning rate is outside its domain.
    #[error(transparent)]
    Hyperparameter(#[from] InvalidHyperparameter),
    /// A group of the configuration matches none of the model's parameters.
    #[error("groups[{group}] matches no parameter of the model")]
    EmptyGroup {
        /// Its place in [`WsamConfig::groups`](crate::WsamConfig::groups).
        group: usize,
    },
    /// A Burn optimizer was handed in beside another base optimizer, or is missing.
    #[error("the base is {base}, and {} Burn optimizer was handed in",
        if *handed_in { "a" } else { "no" })]
    BurnOptimizer {
        /// The configured base optimizer.
        base: &'static str,
        /// Whether a Burn optimizer was handed in.
        handed_in: bool,
    },
    /// Lean mode, or a group's learning-rate factor or weight decay, was asked for with a Burn optimizer as
    /// the base.
    #[error("{what} does not go with a Burn optimizer as the base: configure it there")]
    NotWithBurnOptimizer {
        /// What was asked for.
        what: &'static str,
    },
    /// The learning rates hold no rate at all. Burn's `ModuleLearningRate::default()` is the only such value,
    /// and Burn panics when it is asked for its rate: this error is that panic, caught. A program that is
    /// built with `panic = "abort"` ends there, so hand over a number or a scheduler's rates.
    #[error(
        "the learning rate is ModuleLearningRate::default(), which holds no rate: hand over a number or the \
         rates of a scheduler"
    )]
    NoLearningRate,
    /// Two options of the configuration contradict each other, or one leaves the other without effect.
    #[error("{option} does not go with {other}: {reason}")]
    Conflict {
        /// One option.
        option: &'static str,
        /// The other one.
        other: &'static str,
        /// Why, and what to do.
        reason: &'static str,
    },
    /// The policy demands the fused route, and the device does not allow it.
    #[error("the fused route is not possible: {reason}")]
    NotFused {
        /// Why, and what to do.
        reason: String,
    },
    /// There is no GPU adapter, or not the one that was asked for.
    #[error("no GPU adapter: {reason}")]
    NoAdapter {
        /// What wgpu said.
        reason: String,
    },
    /// A parameter needs more memory in one piece than the device binds or Burn allocates.
    #[error(
        "{param} is {dtype:?} and needs {bytes} bytes in one piece, in f32 for its optimizer state or master \
         weights, but the device allocates at most {limit}: split the parameter, or take a base optimizer \
         without state and no master weights"
    )]
    TooLarge {
        /// Path of the parameter.
        param: String,
        /// Its elements' type.
        dtype: DType,
        /// Bytes that its state or master weights need, or the weight itself.
        bytes: u64,
        /// The most bytes of one allocation.
        limit: u64,
    },
    /// The loss is not on an autodiff graph, so it has no gradient.
    #[error("the loss is not on an autodiff graph: make the model on device.autodiff()")]
    NoAutodiff,
    /// A step over micro-batches was handed none.
    #[error("there are no micro-batches to take the gradient of")]
    NoMicroBatches,
    /// The weights of micro-batches are not one positive number for each.
    #[error(
        "{micro_batches} micro-batches have the weights {weights:?}, but each needs one that is finite and above 0"
    )]
    MicroBatchWeights {
        /// Micro-batches handed in.
        micro_batches: usize,
        /// Their weights.
        weights: Vec<f64>,
    },
    /// None of the model's parameters has a gradient: most likely another model's gradients.
    #[error("none of the model's parameters has a gradient among the {gradients} handed in")]
    NoGradients {
        /// Gradients handed in.
        gradients: usize,
    },
    /// A parameter had a gradient in the first pass and has none in the second.
    #[error(
        "{param} had a gradient in the first pass, but has none in the second: missing_gradient says what to do \
         with such parameters"
    )]
    MissingGradient {
        /// The parameter's path.
        param: String,
    },
    /// A parameter has a gradient in the second pass and had none in the first.
    #[error(
        "{param} has a gradient in the second pass, but had none in the first: missing_gradient = Hold leaves \
         such parameters as they are"
    )]
    MissingFirstGradient {
        /// The parameter's path.
        param: String,
    },
    /// A loss is not one number.
    #[error(
        "the loss has shape {shape:?}, but it must have one element: reduce it, with mean() for one"
    )]
    LossShape {
        /// The loss's shape.
        shape: Vec<usize>,
    },
    /// A gradient has another shape than its parameter.
    #[error("{param} has shape {weight:?}, but its gradient has shape {grad:?}")]
    Shape {
        /// The parameter's path.
        param: String,
        /// The parameter's shape.
        weight: Vec<usize>,
        /// The gradient's shape.
        grad: Vec<usize>,
    },
    /// The parameter's shape changed since the optimizer last saw it.
    #[error(
        "{param} has {found} elements, but its optimizer state has {state}: if the parameter was made again, \
         call Wsam::forget with its id"
    )]
    State {
        /// The parameter's path.
        param: String,
        /// Elements the parameter has now.
        found: usize,
        /// Elements of its state.
        state: usize,
    },
    /// A parameter or gradient is on another device than the optimizer.
    #[error("{param} is on {found:?}, but the optimizer was made for {expected:?}")]
    Device {
        /// The parameter's path.
        param: String,
        /// Where it is.
        found: Box<Device>,
        /// The optimizer's device.
        expected: Box<Device>,
    },
    /// A parameter or gradient has an element type that this route does not take.
    #[error("{param} is {found:?}, but the {route} route takes {expected}")]
    DType {
        /// The parameter's path.
        param: String,
        /// Its element type.
        found: DType,
        /// What the route takes.
        expected: &'static str,
        /// The route.
        route: &'static str,
    },
    /// Lean mode was asked for with the coupled form, whose base step needs `g~`.
    #[error("lean mode takes the base step before g~ is known, so it requires decouple = true")]
    LeanCoupled,
    /// Lean mode was asked for with master weights, which it does not support.
    #[error("lean mode does not support master weights: leave lean or master_weights off")]
    LeanMasters,
    /// Stochastic rounding was asked for in tensor operations.
    #[error("stochastic rounding requires the fused route, but the route is {route}")]
    StochasticRounding {
        /// The route, and why.
        route: String,
    },
    /// The step's gradients were not finite, and the policy is
    /// [`Refuse`](crate::NonFinitePolicy::Refuse).
    #[error("{} not finite; the step was skipped", if *gradient { "g~ is" } else { "g is" })]
    NonFinite {
        /// Whether `g` was finite.
        gradient: bool,
        /// Whether `g~` was, if it was looked at.
        perturbed: bool,
    },
    /// A loss scale was configured for a training under `SupervisedTraining`, whose model computes its gradients
    /// itself.
    #[error(
        "loss_scale is not supported under SupervisedTraining: the model's TrainStep takes the gradient"
    )]
    LossScale,
    /// The descent was handed an ascent of another optimizer.
    #[error("this ascent belongs to another optimizer")]
    ForeignAscent,
    /// A record could not be written or read, or makes no sense.
    #[error("the record cannot be used: {reason}")]
    Record {
        /// Why.
        reason: String,
    },
    /// A record holds the state of a parameter that the model does not have.
    #[error("the record has a state for {param}, which the model does not have")]
    ForeignRecord {
        /// The parameter's path in the record's model.
        param: String,
    },
    /// A record's state has another shape than its parameter.
    #[error("{param} has shape {weight:?}, but its state in the record has shape {record:?}")]
    RecordShape {
        /// The parameter's path.
        param: String,
        /// The parameter's shape.
        weight: Vec<usize>,
        /// The shape in the record.
        record: Vec<usize>,
    },
    /// A record's states are not those of the base optimizer.
    #[error(
        "the record has the states {found:?} for {param}, but {base} as configured has {expected:?}"
    )]
    RecordState {
        /// The parameter's path.
        param: String,
        /// Names of the states in the record.
        found: Vec<String>,
        /// Names of the states that the base optimizer carries.
        expected: Vec<String>,
        /// The base optimizer.
        base: &'static str,
    },
    /// The engine refused, or failed.
    #[cfg(feature = "fused-wsam")]
    #[error(transparent)]
    Engine(#[from] crate::engine::EngineError),
    /// Burn could not give access to a tensor's buffer, or run what was pending.
    #[error("Burn's backend failed: {reason}")]
    Backend {
        /// What it said.
        reason: String,
    },
}

/// A refused step: the model as it was before the step, and why.
///
/// `?` in a function that returns [`WsamError`] keeps the reason and drops the model; a caller who
/// wants to go on takes [`model`](Rejected::model).
#[derive(thiserror::Error)]
#[error("{error}")]
pub struct Rejected<M> {
    /// The model, unharmed. Boxed, so that a result stays small.
    pub model: Box<M>,
    /// Why the step was refused.
    #[source]
    pub error: WsamError,
}

impl<M> Rejected<M> {
    pub(crate) fn new(model: M, error: WsamError) -> Self {
        Self { model: Box::new(model), error }
    }
}

impl<M> std::fmt::Debug for Rejected<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rejected").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<M> From<Rejected<M>> for WsamError {
    fn from(rejected: Rejected<M>) -> Self {
        rejected.error
    }
}
