//! The trait of the two routes, tensor operations and engine, and the code they share: it collects a module's
//! parameters, runs a backend on them, and assigns the results.

use super::copies::{assign, perturbed_copy};
use super::error::WsamError;
use super::forms::{TensorLayout, computed_in};
use super::groups::{check_groups, group_of};
use super::missing::MissingGradientPolicy;
use super::param_entries::{Collected, ParamEntry, collect, collect_perturbed};
use super::params::StepParams;
use super::pending::ResolvedOutcome;
use super::rates::Rates;
use super::record::LoadedState;
use super::report::Norms;
use crate::method::{Hyperparameters, InGroup};
use burn::module::{Module, ParamGroup, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{Bool, DType, Device, Tensor};

/// Settings that both halves of a step use.
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
    /// What to do with parameters that have a gradient in only one pass.
    pub(crate) missing_gradient: MissingGradientPolicy,
    /// Factor on all gradients of the step: the inverse of the loss scale of its first half.
    pub(crate) inv_scale: f64,
    pub(crate) device: &'a Device,
}

impl StepContext<'_> {
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

pub(super) type TensorOf<R> = <<R as StepBackend>::Layout as TensorLayout>::Tensor;

/// Output of one half of a step.
pub(crate) struct PhaseOutput<R: StepBackend, T, K> {
    /// Result of `build` for the new tensors.
    pub(crate) built: T,
    /// State for the next half, or the norms.
    pub(crate) rest: K,
    /// Tensors to release after the old module was dropped.
    pub(crate) released: Vec<TensorOf<R>>,
}

/// Output of a half that returns its tensors without a `build`.
pub(crate) type TensorOutput<R, K> = PhaseOutput<R, Vec<TensorOf<R>>, K>;

/// Backend of a route.
///
/// Each half of a step takes a closure `build`, which makes a module from the new tensors, in the order of the
/// entries. It is called once, and may run before the tensors are written, while the route waits for Burn. On an
/// error the built module is dropped.
pub(crate) trait StepBackend: Sized {
    type Layout: TensorLayout;
    /// State between an ascent and its descent.
    type AscentState;
    type LeanAscentState;
    /// State between a mix and its sharpness step.
    type MixState;

    /// Supported element types, their names for errors, and the name of the route.
    const TYPES: (&'static [DType], &'static str, &'static str);

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

    /// Removes the parameters at `places`, which must be sorted, from a step between its halves.
    fn exclude(ascent_state: &mut Self::AscentState, places: &[usize]);

    /// The gradient of the first pass, with its loss scale.
    fn first_gradient(ascent_state: &Self::AscentState, place: usize) -> Option<TensorOf<Self>>;

    /// The base optimizer's step alone.
    fn base_step<T>(
        &mut self,
        context: StepContext<'_>,
        rates: &[f64],
        entries: Vec<ParamEntry<TensorOf<Self>>>,
        build: impl FnOnce(Vec<TensorOf<Self>>) -> T,
    ) -> Result<PhaseOutput<Self, T, ()>, WsamError>;

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
        entries: Vec<ParamEntry<TensorOf<Self>>>,
    ) -> Result<Vec<TensorOf<Self>>, WsamError>;

    /// Takes the sharpness step from the weights after the Burn optimizer's step. In the coupled form `weights`
    /// is `None` and there is no sharpness step.
    fn sharpen(
        &mut self,
        context: StepContext<'_>,
        rates: &[f64],
        mixed: Self::MixState,
        weights: Option<Vec<TensorOf<Self>>>,
    ) -> Result<TensorOutput<Self, Norms>, WsamError>;

    /// Outcome of the last submitted step; `None` if gradients are not checked. Waits for that step only.
    fn latest_outcome(&self) -> Result<Option<ResolvedOutcome>, WsamError>;

    /// Whether the last submitted step is skipped, as a boolean on the device. `None` if gradients are not
    /// checked.
    fn skipped_flag(&self) -> Result<Option<Tensor<1, Bool>>, WsamError>;

    /// Number of skipped steps that the step count of `id` still includes; for `None`, that of the optimizer.
    /// Waits for pending steps.
    fn overcount(&self, id: Option<ParamId>) -> Result<u64, WsamError>;

    /// Final outcomes in step order. Waits for them.
    fn decided_outcomes(&self) -> Result<Vec<ResolvedOutcome>, WsamError>;

    /// Removes the final outcomes, in step order, with the parameters whose step counts include them.
    #[allow(clippy::type_complexity)]
    fn take_outcomes(&mut self) -> Result<Vec<(ResolvedOutcome, Vec<ParamId>)>, WsamError>;

    /// A parameter's step count, if it has a state.
    fn step_mut(&mut self, id: ParamId) -> Option<&mut u64>;

    /// Resolves pending outcomes and corrects the step counts. Call it before a step count is needed.
    fn resolve_outcomes(&mut self) -> Result<Vec<ResolvedOutcome>, WsamError> {
        let outcomes = self.take_outcomes()?;
        for (resolved, ids) in &outcomes {
            for id in ids {
                if let Some(step) = self.step_mut(*id) {
                    *step = step.saturating_sub(resolved.overcount());
                }
            }
        }
        Ok(outcomes.into_iter().map(|(resolved, _)| resolved).collect())
    }

    /// Replaces the states of `ids` by `loaded`. On an error nothing has changed.
    fn replace_states(
        &mut self,
        device: &Device,
        ids: &[ParamId],
        loaded: Vec<LoadedState>,
    ) -> Result<(), WsamError>;

    /// Drops the states of parameters that are `is_dropped`.
    fn forget(&mut self, is_dropped: &dyn Fn(ParamId) -> bool);

    /// Number of elements of a parameter's state, if it has one.
    fn state_len(&self, id: ParamId) -> Option<usize>;

    fn release(&self, tensors: Vec<TensorOf<Self>>);
}

/// State of a step between its halves, with its parameters.
#[derive(Debug)]
pub(crate) struct PendingStep<K> {
    pub(crate) params: StepParams,
    pub(super) ascent_state: K,
}

pub(super) fn collect_entries<R: StepBackend, M: Module>(
    backend: &R,
    context: StepContext<'_>,
    model: &M,
    grads: GradientsParams,
) -> Result<Collected<R::Layout>, WsamError> {
    let mut collected = collect::<R::Layout, M>(model, grads, context.device)?;
    let (types, expected, route) = R::TYPES;
    for entry in &mut collected.entries {
        entry.group = group_of(context.groups, entry.id, &entry.path);
        let param = || entry.path.clone();
        if !types.contains(&entry.dtype) {
            let found = entry.dtype;
            return Err(WsamError::DType { param: param(), found, expected, route });
        }
        match backend.state_len(entry.id) {
            Some(state) if state != entry.len => {
                return Err(WsamError::State { param: param(), found: entry.len, state });
            }
            _ => {}
        }
    }
    check_groups(context.groups, model, collected.entries.iter().map(|entry| entry.group))?;
    Ok(collected)
}

/// Input of the second half of a step.
type SecondPhase<R> = (StepParams, <R as StepBackend>::AscentState, Vec<TensorOf<R>>);

/// Collects the second gradients, and applies the policy for parameters that have a gradient in only one pass.
pub(super) fn second_phase<R: StepBackend, M: Module>(
    context: StepContext<'_>,
    perturbed: M,
    pending: PendingStep<R::AscentState>,
    grads: GradientsParams,
) -> Result<SecondPhase<R>, WsamError> {
    let PendingStep { params, mut ascent_state } = pending;
    let gradients = grads.len();
    let collected = collect_perturbed::<R::Layout, M>(perturbed, grads, context.device, &params)?;
    match context.missing_gradient {
        MissingGradientPolicy::Refuse => {
            Ok((params.clone(), ascent_state, collected.all(&params)?))
        }
        MissingGradientPolicy::Hold => {
            let missing = collected.missing();
            if missing.len() == params.names.len() && !missing.is_empty() {
                return Err(WsamError::NoGradients { gradients });
            }
            if !missing.is_empty() {
                R::exclude(&mut ascent_state, &missing);
            }
            Ok((
                params.without(&missing),
                ascent_state,
                collected.grads.into_iter().flatten().collect(),
            ))
        }
        MissingGradientPolicy::UseFirst => {
            let grads = collected.grads.into_iter().enumerate();
            let grads = grads.map(|(i, grad)| grad.or_else(|| R::first_gradient(&ascent_state, i)));
            let grads = grads.flatten().collect();
            Ok((params, ascent_state, grads))
        }
    }
}

/// Returns the model stepped by the base optimizer alone, or the unchanged model on an error.
pub(crate) fn base_step<R: StepBackend, M: Module>(
    backend: &mut R,
    context: StepContext<'_>,
    rates: &Rates,
    model: M,
    grads: GradientsParams,
) -> Result<M, (M, WsamError)> {
    let collected = collect_entries(backend, context, &model, grads);
    let stepped = collected.and_then(|collected| {
        let params = collected.params();
        let rates = rates.of(&params.names)?;
        let build = |tensors| stepped_copy::<R, M>(&model, &params, tensors);
        backend.base_step(context, &rates, collected.entries, build)
    });
    finish(backend, model, stepped).map(|(model, ())| model)
}

/// Returns the perturbed copy of `model`, and the state for its descent.
pub(crate) fn ascend<R: StepBackend, M: Module>(
    backend: &mut R,
    context: StepContext<'_>,
    model: &M,
    grads: GradientsParams,
) -> Result<(M, PendingStep<R::AscentState>), WsamError> {
    let collected = collect_entries(backend, context, model, grads)?;
    let (params, whole) = (collected.params(), collected.whole);
    let build = |tensors| perturbed_copy::<R::Layout, M>(model, params.values(tensors), whole);
    let output = backend.ascend(context, collected.entries, build)?;
    Ok((output.built, PendingStep { params, ascent_state: output.rest }))
}

/// Returns the stepped model, or the unchanged `anchor` on an error.
pub(crate) fn descend<R: StepBackend, M: Module>(
    backend: &mut R,
    context: StepContext<'_>,
    rates: &Rates,
    (perturbed, anchor): (M, M),
    pending: PendingStep<R::AscentState>,
    grads: GradientsParams,
) -> Result<(M, Norms), (M, WsamError)> {
    let second = second_phase::<R, M>(context, perturbed, pending, grads);
    let descended = second.and_then(|(params, ascent_state, grads)| {
        let rates = rates.of(&params.names)?;
        let build = |tensors| stepped_copy::<R, M>(&anchor, &params, tensors);
        backend.descend(context, &rates, ascent_state, grads, build)
    });
    finish(backend, anchor, descended)
}

/// Releases the old module and its tensors, and returns the output; on an error, returns the old module.
fn finish<R: StepBackend, M: Module, T, K>(
    backend: &R,
    before: M,
    output: Result<PhaseOutput<R, T, K>, WsamError>,
) -> Result<(T, K), (M, WsamError)> {
    match output {
        Ok(PhaseOutput { built, rest, released }) => {
            drop(before);
            backend.release(released);
            Ok((built, rest))
        }
        Err(error) => Err((before, error)),
    }
}

/// Returns the module with the new weights. It shares everything else with `model`, which the caller drops.
fn stepped_copy<R: StepBackend, M: Module>(
    model: &M,
    params: &StepParams,
    tensors: Vec<TensorOf<R>>,
) -> M {
    assign::<R::Layout, M>(model.clone(), params.values(tensors))
}

/// Returns the perturbed copy, the model at the perturbed weights with its own running statistics, and the state
/// for the descent. On an error returns the unchanged model.
#[allow(clippy::type_complexity)]
pub(crate) fn lean_ascend<R: StepBackend, M: Module>(
    backend: &mut R,
    context: StepContext<'_>,
    rates: &Rates,
    model: M,
    grads: GradientsParams,
) -> Result<((M, M), PendingStep<R::LeanAscentState>), (M, WsamError)> {
    let collected = match collect_entries(backend, context, &model, grads) {
        Ok(collected) => collected,
        Err(error) => return Err((model, error)),
    };
    let (params, whole, entries) = (collected.params(), collected.whole, collected.entries);
    let build = |tensors: Vec<TensorOf<R>>| {
        let perturbed = params.values(tensors.clone());
        let perturbed = perturbed_copy::<R::Layout, M>(&model, perturbed, whole);
        (perturbed, stepped_copy::<R, M>(&model, &params, tensors))
    };
    let rates = rates.of(&params.names);
    let output = rates.and_then(|rates| backend.lean_ascend(context, &rates, entries, build));
    let (modules, ascent_state) = finish(backend, model, output)?;
    Ok((modules, PendingStep { params, ascent_state }))
}

/// Returns the stepped model, or the unchanged `anchor` on an error.
pub(crate) fn lean_descend<R: StepBackend, M: Module>(
    backend: &mut R,
    context: StepContext<'_>,
    (perturbed, anchor): (M, M),
    pending: PendingStep<R::LeanAscentState>,
    grads: GradientsParams,
) -> Result<(M, Norms), (M, WsamError)> {
    let PendingStep { params, ascent_state } = pending;
    let collected = collect_perturbed::<R::Layout, M>(perturbed, grads, context.device, &params);
    let build = |tensors| stepped_copy::<R, M>(&anchor, &params, tensors);
    let grads = collected.and_then(|collected| collected.all(&params));
    let descended =
        grads.and_then(|grads| backend.lean_descend(context, ascent_state, grads, build));
    finish(backend, anchor, descended)
}
