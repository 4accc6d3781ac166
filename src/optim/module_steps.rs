//! The phases of a step over a module, on any route: collects the module's parameters, runs the route's backend on
//! them, and makes the module with the results.

use super::copies::{assign, perturbed_copy};
use super::error::WsamError;
use super::groups::{check_groups, group_of};
use super::options::MissingGradientPolicy;
use super::param_entries::{Collected, collect, collect_perturbed};
use super::params::StepParams;
use super::rates::Rates;
use super::report::Norms;
use super::step_backend::{OnePassUpdate, PhaseOutput, StepBackend, StepContext, TensorOf};
use burn::module::Module;
use burn::optim::GradientsParams;

/// State of a step between its phases, with its parameters.
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

/// Input of the second phase of a step.
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

/// Returns the model stepped over one gradient, or the unchanged model on an error.
pub(crate) fn one_pass_step<R: StepBackend, M: Module>(
    backend: &mut R,
    context: StepContext<'_>,
    update: OnePassUpdate,
    rates: &Rates,
    model: M,
    grads: GradientsParams,
) -> Result<(M, Norms), (M, WsamError)> {
    let collected = collect_entries(backend, context, &model, grads);
    let stepped = collected.and_then(|collected| {
        let params = collected.params();
        let rates = rates.of(&params.names)?;
        let build = |tensors| stepped_copy::<R, M>(&model, &params, tensors);
        backend.one_pass_step(context, update, &rates, collected.entries, build)
    });
    finish(backend, model, stepped)
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
pub(super) fn finish<R: StepBackend, M: Module, T, K>(
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
pub(super) fn stepped_copy<R: StepBackend, M: Module>(
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
