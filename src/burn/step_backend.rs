//! What a route must be able to do. Tensor operations and the engine each do it in their own way;
//! the way from the module to a list of parameters and back is the same for both.

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

/// What both halves of every step need to know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StepContext<'a> {
    pub(crate) hyper: &'a Hyperparameters,
    /// Which parameters the hyperparameters' groups are for.
    pub(crate) groups: &'a [ParamGroup],
    pub(crate) track_norms: bool,
    /// Seed of this step for stochastic rounding, which requires the fused route.
    #[cfg_attr(not(feature = "fused-wsam"), allow(dead_code))]
    pub(crate) rounding_seed: Option<u64>,
    /// Whether parameters in half precision have master weights.
    pub(crate) master_weights: bool,
    /// What to do with parameters that have a gradient in one pass alone.
    pub(crate) missing_gradient: MissingGradientPolicy,
    /// What gradients are multiplied by, from a step's first half on.
    pub(crate) inv_scale: f64,
    pub(crate) device: &'a Device,
}

impl StepContext<'_> {
    /// Whether a slot has master weights.
    pub(crate) fn has_master<T>(&self, entry: &ParamEntry<T>) -> bool {
        self.master_weights && computed_in(entry.dtype) != entry.dtype
    }

    /// The method as a slot's group sees it.
    pub(crate) fn in_group<T>(&self, entry: &ParamEntry<T>) -> InGroup {
        // Slots have no other groups than those there are.
        self.hyper.in_group(entry.group).unwrap_or_else(|| self.hyper.in_no_group())
    }
}

pub(super) type TensorOf<R> = <<R as StepBackend>::Layout as TensorLayout>::Tensor;

/// What was built of a half's tensors, and what is left for the caller.
pub(crate) struct PhaseOutput<R: StepBackend, T, K> {
    pub(crate) built: T,
    pub(crate) rest: K,
    /// Given up once the old module is gone.
    pub(crate) released: Vec<TensorOf<R>>,
}

/// A half whose tensors are handed on as they are.
pub(crate) type TensorOutput<R, K> = PhaseOutput<R, Vec<TensorOf<R>>, K>;

/// Halves take a `build`, which makes a module of the half's tensors in the order of the slots. It is
/// called once, maybe before they hold anything, while a route waits for Burn; on an error what it
/// built is dropped.
pub(crate) trait StepBackend: Sized {
    type Layout: TensorLayout;
    /// From an ascent to its descent.
    type AscentState;
    type LeanAscentState;
    /// From a mix to its sharpness step.
    type MixState;

    /// Element types it takes, in values and in words, and what it is called.
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

    /// Takes the parameters at `places`, which ascend, out of a step between its halves.
    fn exclude(ascent_state: &mut Self::AscentState, places: &[usize]);

    /// The gradient of the first pass, as that pass returned it.
    fn first_gradient(ascent_state: &Self::AscentState, place: usize) -> Option<TensorOf<Self>>;

    /// The base optimizer's step alone.
    fn base_step<T>(
        &mut self,
        context: StepContext<'_>,
        rates: &[f64],
        entries: Vec<ParamEntry<TensorOf<Self>>>,
        build: impl FnOnce(Vec<TensorOf<Self>>) -> T,
    ) -> Result<PhaseOutput<Self, T, ()>, WsamError>;

    /// What a base optimizer elsewhere steps on: `a g + b g~`, clipped.
    fn mix(
        &mut self,
        context: StepContext<'_>,
        ascent_state: Self::AscentState,
        grads_perturbed: Vec<TensorOf<Self>>,
    ) -> Result<TensorOutput<Self, Self::MixState>, WsamError>;

    /// The clipped gradients alone, for a step without a second pass.
    fn clip(
        &mut self,
        context: StepContext<'_>,
        entries: Vec<ParamEntry<TensorOf<Self>>>,
    ) -> Result<Vec<TensorOf<Self>>, WsamError>;

    /// The sharpness step, from the weights that such an optimizer left; in the coupled form there is
    /// none, and no weights.
    fn sharpen(
        &mut self,
        context: StepContext<'_>,
        rates: &[f64],
        mixed: Self::MixState,
        weights: Option<Vec<TensorOf<Self>>>,
    ) -> Result<TensorOutput<Self, Norms>, WsamError>;

    /// The outcome of the step that was submitted last; `None` where nothing is checked. Waits for that step,
    /// and for nothing after it.
    fn latest_outcome(&self) -> Result<Option<ResolvedOutcome>, WsamError>;

    /// One truth value on the device: whether the step that was submitted last is skipped. `None` where
    /// nothing is checked.
    fn skipped_flag(&self, device: &Device) -> Result<Option<Tensor<1, Bool>>, WsamError>;

    /// By how much the steps of `id`, or of all parameters together, are counted too high. Waits for the
    /// steps that are pending.
    fn overcount(&self, id: Option<ParamId>) -> Result<u64, WsamError>;

    /// The outcomes that are decided, in the order of the steps. Waits for them.
    fn decided_outcomes(&self) -> Result<Vec<ResolvedOutcome>, WsamError>;

    /// Takes the outcomes that are decided, in the order of the steps, with the parameters that counted them.
    #[allow(clippy::type_complexity)]
    fn take_outcomes(&mut self) -> Result<Vec<(ResolvedOutcome, Vec<ParamId>)>, WsamError>;

    /// A parameter's count of steps, if it has a state.
    fn step_mut(&mut self, id: ParamId) -> Option<&mut u64>;

    /// Resolves pending outcomes: the step counts are right afterwards. To be called before a step count is
    /// needed.
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

    /// Forgets the states of `ids` and takes those that were loaded. On an error nothing changed.
    fn replace_states(
        &mut self,
        device: &Device,
        ids: &[ParamId],
        loaded: Vec<LoadedState>,
    ) -> Result<(), WsamError>;

    /// Drops the states of parameters that are `gone`.
    fn forget(&mut self, gone: &dyn Fn(ParamId) -> bool);

    /// Elements of a parameter's state, if it has any.
    fn state_len(&self, id: ParamId) -> Option<usize>;

    fn release(&self, tensors: Vec<TensorOf<Self>>);
}

/// An ascent's leavings, with the parameters that took part.
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

/// What the second half of a step works on.
type SecondPhase<R> = (StepParams, <R as StepBackend>::AscentState, Vec<TensorOf<R>>);

/// Takes the second gradients, and applies the policy for parameters that have a gradient in one pass alone.
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

/// The model stepped by the base optimizer alone, or as it was.
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

/// The perturbed copy of `model`, and what its descent needs.
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

/// The stepped model, or `anchor` as it was.
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

/// What was built of a half that was taken, or the module before it.
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

/// The module with the new weights. It shares all else with `model`, which is to go.
fn stepped_copy<R: StepBackend, M: Module>(
    model: &M,
    params: &StepParams,
    tensors: Vec<TensorOf<R>>,
) -> M {
    assign::<R::Layout, M>(model.clone(), params.values(tensors))
}

/// The perturbed copy, the model at the perturbed weights with its own running statistics, and
/// what the descent needs. On an error the model is as it was.
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

/// The stepped model, or `anchor` as it was.
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
