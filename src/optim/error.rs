//! Errors of the optimizer, and how they return the model.

use super::pass_schedule::NextStep;
use super::replicas::error::ReplicaError;
use crate::method::{IncompatibleOptions, InvalidHyperparameter};
use burn::tensor::{DType, Device};

/// Error of a step, or of making an optimizer. Parameters are named by their path in the module.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WsamError {
    /// A hyperparameter or learning rate is outside its domain.
    #[error(transparent)]
    Hyperparameter(#[from] InvalidHyperparameter),
    /// A group of the configuration matches none of the model's parameters.
    #[error("groups[{group}] matches no parameter of the model")]
    EmptyGroup {
        /// Index in [`WsamConfig::groups`](crate::WsamConfig::groups).
        group: usize,
    },
    /// A Burn optimizer was passed with a configuration for another base optimizer, or is missing.
    #[error("the base is {base}, and {} Burn optimizer was passed: {}",
        if *handed_in { "a" } else { "no" },
        if *handed_in { "configure WsamConfig::burn" } else { "call WsamConfig::init_with" })]
    BurnOptimizer {
        /// The configured base optimizer.
        base: &'static str,
        /// Whether a Burn optimizer was passed.
        handed_in: bool,
    },
    /// An option that WSAM does not support around a Burn optimizer: lean mode, master weights, or a group's
    /// learning-rate factor or weight decay.
    #[error(
        "{what} is not supported around a Burn optimizer: configure it in the Burn optimizer, if it has it"
    )]
    NotWithBurnOptimizer {
        /// The option.
        what: &'static str,
    },
    /// The learning rate is Burn's `ModuleLearningRate::default()`, which holds no rate. Burn panics when its
    /// rate is read; this error is that panic, caught. A program built with `panic = "abort"` aborts instead, so
    /// pass a number or a scheduler's rates.
    #[error(
        "the learning rate is ModuleLearningRate::default(), which holds no rate: pass a number or the \
         rates of a scheduler"
    )]
    NoLearningRate,
    /// Two options of the configuration contradict each other, or one disables the other.
    #[error("{option} cannot be combined with {other}: {reason}")]
    Conflict {
        /// One option.
        option: &'static str,
        /// The other one.
        other: &'static str,
        /// The reason, and what to do.
        reason: &'static str,
    },
    /// The policy requires the fused route, and the device does not allow it.
    #[error("the fused route is not possible: {reason}")]
    NotFused {
        /// The reason, and what to do.
        reason: String,
    },
    /// No GPU adapter was found, or not the requested one.
    #[error("no GPU adapter: {reason}")]
    NoAdapter {
        /// wgpu's message.
        reason: String,
    },
    /// A parameter needs a larger allocation than the device binds or Burn makes.
    #[error(
        "{param} is {dtype:?} and needs {bytes} bytes in one piece, in f32 for its optimizer state or master \
         weights, but the device allocates at most {limit}: split the parameter, or use a base optimizer \
         without state and no master weights"
    )]
    TooLarge {
        /// Path of the parameter.
        param: String,
        /// Its elements' type.
        dtype: DType,
        /// Bytes of the largest of its tensors: state, master weights or the weight itself.
        bytes: u64,
        /// The largest allocation in bytes.
        limit: u64,
    },
    /// The loss is not on an autodiff graph, so it has no gradient.
    #[error("the loss is not on an autodiff graph: make the model on device.autodiff()")]
    NoAutodiff,
    /// A step over micro-batches got an empty list.
    #[error("the list of micro-batches is empty, but a step needs at least one")]
    NoMicroBatches,
    /// The weights are not one finite positive number for each micro-batch.
    #[error(
        "{micro_batches} micro-batches have the weights {weights:?}, but each needs one that is finite and above 0"
    )]
    MicroBatchWeights {
        /// Number of micro-batches passed.
        micro_batches: usize,
        /// Their weights.
        weights: Vec<f64>,
    },
    /// A data-parallel step got no shard, or more shards than there are replicas.
    #[error("{shards} shards were passed for {replicas} replicas, but each shard needs a replica")]
    Shards {
        /// Number of replicas.
        replicas: usize,
        /// Number of shards passed.
        shards: usize,
    },
    /// The weights are not one finite positive number for each shard.
    #[error(
        "{shards} shards have the weights {weights:?}, but each needs one that is finite and above 0"
    )]
    ShardWeights {
        /// Number of shards passed.
        shards: usize,
        /// Their weights.
        weights: Vec<f64>,
    },
    /// A replica was added under the name of another one.
    #[error("there is a replica named {name}: remove it first, or choose another name")]
    ReplicaName {
        /// The name.
        name: String,
    },
    /// A replica failed in a data-parallel step.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// No parameter of the model has a gradient. Most likely the gradients are of another model.
    #[error(
        "none of the model's parameters has a gradient among the {gradients} passed: pass the gradients of this model"
    )]
    NoGradients {
        /// Number of gradients passed.
        gradients: usize,
    },
    /// A parameter had a gradient in the first pass, but not in the second.
    #[error(
        "{param} had a gradient in the first pass, but not in the second: set missing_gradient to Hold or UseFirst \
         to accept such parameters"
    )]
    MissingGradient {
        /// The parameter's path.
        param: String,
    },
    /// A parameter has a gradient in the second pass, but not in the first.
    #[error(
        "{param} has a gradient in the second pass, but not in the first: set missing_gradient = Hold to leave \
         such parameters unchanged"
    )]
    MissingFirstGradient {
        /// The parameter's path.
        param: String,
    },
    /// A loss does not have exactly one element.
    #[error(
        "the loss has shape {shape:?}, but it must have one element: reduce it, for example with mean()"
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
        "{param} has {found} elements, but its optimizer state has {state}: if the parameter was recreated, \
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
    /// Lean mode is set with the coupled form, whose base step needs `g~`.
    #[error("lean mode takes the base step before g~ is known, so it requires decouple = true")]
    LeanCoupled,
    /// Lean mode is set with master weights, which it does not support.
    #[error("lean mode does not support master weights: leave lean or master_weights off")]
    LeanMasters,
    /// Stochastic rounding is set, but the route is tensor operations.
    #[error("stochastic rounding requires the fused route, but the route is {route}")]
    StochasticRounding {
        /// The route, with the reason it was chosen.
        route: String,
    },
    /// The step's gradients were not finite, and the policy is
    /// [`Refuse`](crate::NonFinitePolicy::Refuse).
    #[error("{} not finite; the step was skipped", if *gradient { "g~ is" } else { "g is" })]
    NonFinite {
        /// Whether `g` was finite.
        gradient: bool,
        /// Whether `g~` was finite; true if it was not checked.
        perturbed: bool,
    },
    /// A loss scale was configured for a training under `SupervisedTraining`, whose model computes its gradients
    /// itself.
    #[error(
        "loss_scale is not supported under SupervisedTraining: the model's TrainStep computes the gradient"
    )]
    LossScale,
    /// A call for a step of one gradient, where the next step takes two, or the other way round.
    #[error(
        "{call} was called, but the next step of {method} is {expected}: ask Wsam::next_step which calls it takes"
    )]
    NextStep {
        /// The function that was called.
        call: &'static str,
        /// Name of the method.
        method: &'static str,
        /// The next step.
        expected: NextStep,
    },
    /// The ascent was made by another optimizer.
    #[error(
        "the ascent was made by another optimizer: pass it to the one whose ascend returned it"
    )]
    ForeignAscent,
    /// A record could not be written or read, or is invalid.
    #[error("the record cannot be used: {reason}")]
    Record {
        /// The reason.
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
    /// The engine rejected a call, or failed.
    #[cfg(feature = "fused-wsam")]
    #[error(transparent)]
    Engine(#[from] crate::engine::EngineError),
    /// Burn could not return a tensor's buffer, or run pending work.
    #[error("Burn's backend failed: {reason}")]
    Backend {
        /// Burn's message.
        reason: String,
    },
}

impl From<IncompatibleOptions> for WsamError {
    fn from(IncompatibleOptions { first, second, reason, .. }: IncompatibleOptions) -> Self {
        Self::Conflict { option: first, other: second, reason }
    }
}

/// Error of a step, with the model as it was before the step.
///
/// `?` in a function that returns [`WsamError`] keeps the error and drops the model. To continue, take
/// [`model`](Rejected::model).
#[derive(thiserror::Error)]
#[error("{error}")]
pub struct Rejected<M> {
    /// The model before the step. Boxed to keep `Result` small.
    pub model: Box<M>,
    /// Why the step failed.
    #[source]
    pub error: WsamError,
}

impl<M> Rejected<M> {
    pub(crate) fn new(model: M, error: WsamError) -> Self {
        Self { model: Box::new(model), error }
    }

    /// From a model and the error that it is returned with.
    pub(crate) fn from_parts((model, error): (M, WsamError)) -> Self {
        Self::new(model, error)
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
