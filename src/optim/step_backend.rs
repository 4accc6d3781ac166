//! What a route does: the phases of a step, on the parameters that were collected from a module.

use super::error::WsamError;
use super::half_precision::computed_in;
use super::options::MissingGradientPolicy;
use super::param_entries::ParamEntry;
use super::params::TensorLayout;
use super::report::Norms;
use super::state_store::StateStore;
use crate::method::{Coupling, Hyperparameters, InGroup, Method};
use burn::module::{ParamGroup, ParamId};
use burn::tensor::{DType, Device};
use std::sync::Arc;

/// Settings that both phases of a step use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StepContext<'a> {
    pub(crate) hyper: &'a Hyperparameters,
    /// Matchers of the hyperparameters' groups.
    pub(crate) groups: &'a [ParamGroup],
    pub(crate) track_norms: bool,
    /// Seed of this step for stochastic rounding, which requires the fused route.
    #[cfg_attr(not(feature = "fused-wsam"), allow(dead_code))]
    pub(crate) rounding_seed: Option<u64>,
    /// Whether parameters in half precision have master weights.
    pub(crate) master_weights: bool,
    /// Whether `||g||` is computed and read with the outcome, for AE-SAM's rule.
    pub(crate) reads_norm: bool,
    /// What to do with parameters that have a gradient in only one pass.
    pub(crate) missing_gradient: MissingGradientPolicy,
    /// Whether the phase gives the model's tensors other memory, instead of replacing them.
    #[cfg_attr(not(feature = "fused-wsam"), allow(dead_code))]
    pub(crate) in_place: bool,
    /// Factor on all gradients of the step: the inverse of the loss scale of its first phase.
    pub(crate) inv_scale: f64,
    pub(crate) device: &'a Device,
}

impl StepContext<'_> {
    /// Whether `||g||` is computed, also where the step does not need it.
    pub(crate) fn tracks_gradient(&self) -> bool {
        self.track_norms || self.reads_norm
    }

    /// Whether a sharpness step follows the base optimizer's step.
    pub(crate) fn has_sharpness_step(&self) -> bool {
        self.hyper.method == Method::Wsam && self.hyper.coupling == Coupling::Decoupled
    }

    /// Whether a parameter has master weights.
    pub(crate) fn has_master<T>(&self, entry: &ParamEntry<T>) -> bool {
        self.master_weights && computed_in(entry.dtype) != entry.dtype
    }

    /// The method with the settings of the parameter's group.
    pub(crate) fn in_group<T>(&self, entry: &ParamEntry<T>) -> InGroup {
        // The group always exists, because `group_of` has set it.
        self.hyper.in_group(entry.group).unwrap_or_else(|| self.hyper.in_no_group())
    }
}

/// What the base optimizer steps on in a step over one gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnePassUpdate {
    /// `g`.
    Gradient,
    /// LookSAM's `g + alpha ||g|| h`.
    Corrected,
}

pub(super) type TensorOf<R> = <<R as StepBackend>::Layout as TensorLayout>::Tensor;

/// Output of one phase of a step.
pub(crate) struct PhaseOutput<R: StepBackend, T, K> {
    /// Result of `build` for the new tensors.
    pub(crate) built: T,
    /// State for the next phase, or the norms.
    pub(crate) rest: K,
    /// Tensors to release after the old module was dropped.
    pub(crate) released: Vec<TensorOf<R>>,
}

/// Output of a half that returns its tensors without a `build`.
pub(crate) type TensorOutput<R, K> = PhaseOutput<R, Vec<TensorOf<R>>, K>;

/// The tensors of a model to which an ascent in place has given the memory of `w + e_w`.
pub(crate) trait MovedTensors<T> {
    /// Whether the thread is the one that took the ascent. On another thread a tensor becomes another one when it is
    /// taken out of the model.
    fn is_same_thread(&self) -> bool;

    /// Gives the tensors the memory of `w` again. Nothing but the model may refer to them.
    fn move_back(&self) -> Result<(), WsamError>;

    /// New tensors over the memory of `w`, in the order of the step's parameters.
    fn originals(&self) -> Vec<T>;
}

/// [`MovedTensors`] of a route.
pub(super) type Moved<R> = Arc<dyn MovedTensors<TensorOf<R>> + Send + Sync>;

/// Takes the phases of steps by one route.
///
/// Each phase of a step takes a closure `build`, which makes a module from the new tensors, in the order of the
/// entries. It is called once, and may run before the tensors are written, while the route waits for Burn. On an
/// error the built module is dropped.
///
/// If the context says so, a phase is taken in place: the model's tensors refer to other memory afterwards, `build`
/// gets no tensors, and on an error the tensors refer to the memory that they had before.
pub(crate) trait StepBackend: StateStore + Sized {
    type Layout: TensorLayout;
    /// State between an ascent and its descent.
    type AscentState;
    type LeanAscentState;
    /// State between a mix and its sharpness step.
    type MixState;
    /// State between Momentum-SAM's ascent and its step.
    type MomentumState;

    /// Supported element types, their names for errors, and the name of the route.
    const TYPES: (&'static [DType], &'static str, &'static str);

    /// Whether a phase over these entries may be taken in place, if nothing but the model refers to its tensors.
    fn may_move(&self, _entries: &[ParamEntry<TensorOf<Self>>]) -> bool {
        false
    }

    /// The model's tensors, if the ascent was taken in place.
    fn moved(_ascent_state: &Self::AscentState) -> Option<Moved<Self>> {
        None
    }

    /// Whether this thread took the lean ascent in place.
    fn is_lean_in_place(_ascent_state: &Self::LeanAscentState) -> bool {
        false
    }

    fn ascend<T>(
        &mut self,
        context: StepContext<'_>,
        entries: Vec<ParamEntry<TensorOf<Self>>>,
        build: impl FnOnce(Vec<TensorOf<Self>>) -> T,
    ) -> Result<PhaseOutput<Self, T, Self::AscentState>, WsamError>;

    fn descend<T>(
        &mut self,
        context: StepContext<'_>,
        rates: &[f64],
        ascent_state: Self::AscentState,
        grads_perturbed: Vec<TensorOf<Self>>,
        build: impl FnOnce(Vec<TensorOf<Self>>) -> T,
    ) -> Result<PhaseOutput<Self, T, Norms>, WsamError>;

    fn lean_ascend<T>(
        &mut self,
        context: StepContext<'_>,
        rates: &[f64],
        entries: Vec<ParamEntry<TensorOf<Self>>>,
        build: impl FnOnce(Vec<TensorOf<Self>>) -> T,
    ) -> Result<PhaseOutput<Self, T, Self::LeanAscentState>, WsamError>;

    fn lean_descend<T>(
        &mut self,
        context: StepContext<'_>,
        ascent_state: Self::LeanAscentState,
        grads_perturbed: Vec<TensorOf<Self>>,
        build: impl FnOnce(Vec<TensorOf<Self>>) -> T,
    ) -> Result<PhaseOutput<Self, T, Norms>, WsamError>;

    /// Removes the parameters at `places`, which must be sorted, from a step between its phases.
    fn exclude(ascent_state: &mut Self::AscentState, places: &[usize]);

    /// The gradient of the first pass, with its loss scale.
    fn first_gradient(ascent_state: &Self::AscentState, place: usize) -> Option<TensorOf<Self>>;

    /// A step over one gradient: the base optimizer's alone, or LookSAM's between its SAM steps.
    fn one_pass_step<T>(
        &mut self,
        context: StepContext<'_>,
        update: OnePassUpdate,
        rates: &[f64],
        entries: Vec<ParamEntry<TensorOf<Self>>>,
        build: impl FnOnce(Vec<TensorOf<Self>>) -> T,
    ) -> Result<PhaseOutput<Self, T, Norms>, WsamError>;

    /// Whether a parameter has a momentum. Call it after pending outcomes were resolved.
    fn has_momentum(&self, context: StepContext<'_>, id: ParamId) -> bool;

    /// Momentum-SAM's perturbed weights, in the order of the entries, which have a momentum and are perturbed. Their
    /// gradients are not read.
    fn perturb_along_momentum(
        &mut self,
        context: StepContext<'_>,
        entries: Vec<ParamEntry<TensorOf<Self>>>,
    ) -> Result<(Vec<TensorOf<Self>>, Self::MomentumState), WsamError>;

    /// Momentum-SAM's step from the entries' weights. `perturbed` are the weights at which the gradients were taken.
    fn momentum_step<T>(
        &mut self,
        context: StepContext<'_>,
        rates: &[f64],
        ascent: Self::MomentumState,
        entries: Vec<ParamEntry<TensorOf<Self>>>,
        perturbed: Vec<TensorOf<Self>>,
        build: impl FnOnce(Vec<TensorOf<Self>>) -> T,
    ) -> Result<PhaseOutput<Self, T, Norms>, WsamError>;

    /// Computes the gradient for a Burn optimizer as the base: `a g + b g~`, clipped.
    fn mix(
        &mut self,
        context: StepContext<'_>,
        ascent_state: Self::AscentState,
        grads_perturbed: Vec<TensorOf<Self>>,
    ) -> Result<TensorOutput<Self, Self::MixState>, WsamError>;

    /// Computes the clipped gradients for a Burn optimizer's step without a second pass.
    fn clip(
        &mut self,
        context: StepContext<'_>,
        update: OnePassUpdate,
        entries: Vec<ParamEntry<TensorOf<Self>>>,
    ) -> Result<TensorOutput<Self, Norms>, WsamError>;

    /// Takes the sharpness step from the weights after the Burn optimizer's step. In the coupled form `weights`
    /// is `None` and there is no sharpness step.
    fn sharpen(
        &mut self,
        context: StepContext<'_>,
        rates: &[f64],
        mixed: Self::MixState,
        weights: Option<Vec<TensorOf<Self>>>,
    ) -> Result<TensorOutput<Self, Norms>, WsamError>;

    /// Drops tensors that a step has replaced.
    fn release(&self, tensors: Vec<TensorOf<Self>>);
}
