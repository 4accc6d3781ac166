//! The phases of a step over a module, on any route: collects the module's parameters, runs the route's backend on
//! them, and makes the module with the results.

use super::copies::{assign, perturbed_copy};
use super::error::WsamError;
use super::groups::{check_groups, group_of};
use super::options::MissingGradientPolicy;
use super::param_entries::{Collected, ParamEntry, collect, collect_perturbed};
use super::params::StepParams;
use super::rates::Rates;
use super::report::Norms;
use super::shared_params::{SharedParams, shared_params};
use super::step_backend::{Moved, OnePassUpdate, PhaseOutput, StepBackend, StepContext, TensorOf};
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
    perturbed: &M,
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
    let (model, shared) = shared_params::<R::Layout, M>(model);
    let collected = collect_entries(backend, context, &model, grads);
    let stepped = collected.and_then(|collected| {
        let params = collected.params();
        let rates = rates.of(&params.names)?;
        let in_place = may_step_in_place(backend, shared.as_ref(), &collected.entries);
        let context = StepContext { in_place, ..context };
        let build = |tensors| (!in_place).then(|| stepped_copy::<R, M>(&model, &params, tensors));
        backend.one_pass_step(context, update, &rates, collected.entries, build)
    });
    finish(backend, model, stepped)
}

/// Whether nothing but the model refers to the weights of the entries, and the route can move them.
fn may_step_in_place<R: StepBackend>(
    backend: &R,
    shared: Option<&SharedParams>,
    entries: &[ParamEntry<TensorOf<R>>],
) -> bool {
    let is_own = |shared: &SharedParams| shared.excludes(entries.iter().map(|entry| entry.id));
    shared.is_some_and(is_own) && backend.may_move(entries)
}

/// The model for the second pass, and the model that the descent steps. In place both are one, unless the model has
/// running statistics, of which the second pass needs its own.
pub(crate) type AscendedModels<M> = (Option<M>, M);

/// Returns the models for the second pass and for the descent, and the state of the descent; on an error the
/// unchanged model.
///
/// A model that is ascended `in_place` must get its weights back before it is used otherwise: see [`restore`].
#[allow(clippy::type_complexity)]
pub(crate) fn ascend<R: StepBackend, M: Module>(
    backend: &mut R,
    context: StepContext<'_>,
    model: M,
    grads: GradientsParams,
    in_place: bool,
) -> Result<(AscendedModels<M>, PendingStep<R::AscentState>), (M, WsamError)> {
    let (model, shared) = match in_place {
        true => shared_params::<R::Layout, M>(model),
        false => (model, None),
    };
    let collected = match collect_entries(backend, context, &model, grads) {
        Ok(collected) => collected,
        Err(error) => return Err((model, error)),
    };
    let (params, whole, entries) = (collected.params(), collected.whole, collected.entries);
    let in_place = may_step_in_place(backend, shared.as_ref(), &entries);
    let statistics = shared.is_some_and(|shared| shared.statistics);
    let build = |tensors| match in_place {
        true => statistics.then(|| with_own_statistics::<R, M>(&model)),
        false => Some(perturbed_copy::<R::Layout, M>(&model, params.values(tensors), whole)),
    };
    match backend.ascend(StepContext { in_place, ..context }, entries, build) {
        Ok(output) => {
            Ok(((output.built, model), PendingStep { params, ascent_state: output.rest }))
        }
        Err(error) => Err((model, error)),
    }
}

/// Returns the model with its weights as they were before the ascent.
pub(crate) fn restore<R: StepBackend, M: Module>(
    (perturbed, anchor): AscendedModels<M>,
    pending: &PendingStep<R::AscentState>,
) -> M {
    drop(perturbed);
    let Some(moved) = R::moved(&pending.ascent_state) else { return anchor };
    let (anchor, is_own) = take_back::<R, M>(anchor, &pending.params, &moved);
    if is_own {
        // This fails only if Burn's server does, and then the weights cannot be read in any memory.
        let _ = moved.move_back();
    }
    anchor
}

/// Returns whether nothing but the model refers to the moved tensors, with the model. Otherwise its tensors are
/// replaced by others over the memory of `w`, and what else refers to the tensors stays at `w + e_w`.
fn take_back<R: StepBackend, M: Module>(
    model: M,
    params: &StepParams,
    moved: &Moved<R>,
) -> (M, bool) {
    let (model, shared) = shared_params::<R::Layout, M>(model);
    let ids = || params.names.iter().map(|(id, _)| *id);
    if moved.is_same_thread() && shared.is_some_and(|shared| shared.excludes(ids())) {
        return (model, true);
    }
    (assign::<R::Layout, M>(model, params.values(moved.originals())), false)
}

/// Returns the stepped model, or on an error the model as it was before the ascent.
pub(crate) fn descend<R: StepBackend, M: Module>(
    backend: &mut R,
    context: StepContext<'_>,
    rates: &Rates,
    (perturbed, anchor): AscendedModels<M>,
    pending: PendingStep<R::AscentState>,
    grads: GradientsParams,
) -> Result<(M, Norms), (M, WsamError)> {
    let moved = R::moved(&pending.ascent_state);
    let (perturbed, anchor, in_place) = match &moved {
        Some(moved) => {
            // It shares the parameters of the anchor, and differs only in its running statistics.
            drop(perturbed);
            let (anchor, is_own) = take_back::<R, M>(anchor, &pending.params, moved);
            (None, anchor, is_own)
        }
        None => (perturbed, anchor, false),
    };
    let second_pass = perturbed.as_ref().unwrap_or(&anchor);
    let second = second_phase::<R, M>(context, second_pass, pending, grads);
    // Dropped before anything is allocated, so that the memory of `w + e_w` can be reused.
    drop(perturbed);
    let descended = second.and_then(|(params, ascent_state, grads)| {
        let rates = rates.of(&params.names)?;
        let build = |tensors| (!in_place).then(|| stepped_copy::<R, M>(&anchor, &params, tensors));
        let context = StepContext { in_place, ..context };
        backend.descend(context, &rates, ascent_state, grads, build)
    });
    if let (Err(_), true, Some(moved)) = (&descended, in_place, &moved) {
        // As in `restore`.
        let _ = moved.move_back();
    }
    finish(backend, anchor, descended)
}

/// Returns the stepped module, and the rest of the output. In place it is the module `before`, otherwise the new one:
/// then the old module and its tensors are released. On an error returns the old module.
pub(super) fn finish<R: StepBackend, M: Module, K>(
    backend: &R,
    before: M,
    output: Result<PhaseOutput<R, Option<M>, K>, WsamError>,
) -> Result<(M, K), (M, WsamError)> {
    match output {
        Ok(PhaseOutput { built: Some(built), rest, released }) => {
            drop(before);
            backend.release(released);
            Ok((built, rest))
        }
        Ok(PhaseOutput { built: None, rest, .. }) => Ok((before, rest)),
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

/// Returns a copy that shares the parameters, with its own running statistics.
fn with_own_statistics<R: StepBackend, M: Module>(model: &M) -> M {
    perturbed_copy::<R::Layout, M>(model, StepParams::default().values(Vec::new()), false)
}

/// Returns the models for the second pass and for the lean descent, the latter at the perturbed weights too, and the
/// state of the descent. On an error returns the unchanged model.
#[allow(clippy::type_complexity)]
pub(crate) fn lean_ascend<R: StepBackend, M: Module>(
    backend: &mut R,
    context: StepContext<'_>,
    rates: &Rates,
    model: M,
    grads: GradientsParams,
) -> Result<(AscendedModels<M>, PendingStep<R::LeanAscentState>), (M, WsamError)> {
    let (model, shared) = shared_params::<R::Layout, M>(model);
    let collected = match collect_entries(backend, context, &model, grads) {
        Ok(collected) => collected,
        Err(error) => return Err((model, error)),
    };
    let (params, whole, entries) = (collected.params(), collected.whole, collected.entries);
    let in_place = may_step_in_place(backend, shared.as_ref(), &entries);
    let statistics = shared.is_some_and(|shared| shared.statistics);
    let mut second_pass = None;
    let build = |tensors: Vec<TensorOf<R>>| {
        if in_place {
            second_pass = statistics.then(|| with_own_statistics::<R, M>(&model));
            return None;
        }
        let perturbed = params.values(tensors.clone());
        second_pass = Some(perturbed_copy::<R::Layout, M>(&model, perturbed, whole));
        Some(stepped_copy::<R, M>(&model, &params, tensors))
    };
    let context = StepContext { in_place, ..context };
    let rates = rates.of(&params.names);
    let output = rates.and_then(|rates| backend.lean_ascend(context, &rates, entries, build));
    let (model, ascent_state) = finish(backend, model, output)?;
    Ok(((second_pass, model), PendingStep { params, ascent_state }))
}

/// Returns the stepped model, or the unchanged `anchor` on an error.
pub(crate) fn lean_descend<R: StepBackend, M: Module>(
    backend: &mut R,
    context: StepContext<'_>,
    (perturbed, anchor): AscendedModels<M>,
    pending: PendingStep<R::LeanAscentState>,
    grads: GradientsParams,
) -> Result<(M, Norms), (M, WsamError)> {
    let PendingStep { params, ascent_state } = pending;
    let second_pass = perturbed.as_ref().unwrap_or(&anchor);
    let collected = collect_perturbed::<R::Layout, M>(second_pass, grads, context.device, &params);
    drop(perturbed);
    let (anchor, in_place) = match R::is_lean_in_place(&ascent_state) {
        true => {
            let (anchor, shared) = shared_params::<R::Layout, M>(anchor);
            let ids = params.names.iter().map(|(id, _)| *id);
            (anchor, shared.is_some_and(|shared| shared.excludes(ids)))
        }
        false => (anchor, false),
    };
    let build = |tensors| (!in_place).then(|| stepped_copy::<R, M>(&anchor, &params, tensors));
    let context = StepContext { in_place, ..context };
    let grads = collected.and_then(|collected| collected.all(&params));
    let descended =
        grads.and_then(|grads| backend.lean_descend(context, ascent_state, grads, build));
    finish(backend, anchor, descended)
}
