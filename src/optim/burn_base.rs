//! Steps around a Burn optimizer as the base. The route computes the gradient for it and takes the sharpness
//! step afterwards. If gradients are checked, the host waits for the outcome before the optimizer steps.

use super::copies::{assign, with_ids};
use super::error::WsamError;
use super::module_steps::{AscendedModels, PendingStep, collect_entries, second_phase};
use super::param_entries::{step_gradients, step_weights};
use super::params::StepParams;
use super::rates::Rates;
use super::report::Norms;
use super::step_backend::{OnePassUpdate, PhaseOutput, StepBackend, StepContext, TensorOf};
use crate::method::Outcome;
use burn::module::{Module, ParamId};
use burn::optim::{GradientsParams, ModuleOptimizer};

/// A Burn optimizer as the base.
pub(crate) struct BurnBase(pub(crate) ModuleOptimizer);

impl std::fmt::Debug for BurnBase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("BurnBase").finish_non_exhaustive()
    }
}

impl BurnBase {
    fn step<R: StepBackend, M: Module>(
        &mut self,
        rates: &Rates,
        model: M,
        params: &StepParams,
        mixed: Vec<TensorOf<R>>,
    ) -> M {
        let grads = step_gradients::<R::Layout, M>(&model, params.values(mixed));
        if params.before.is_empty() {
            return self.0.step(rates.burn(), model, grads);
        }
        // Burn's optimizers step the first parameter with an id. For this step only the parameters that take part
        // keep their ids.
        let mut taking_part = params.values(vec![(); params.names.len()]);
        let mut ids = Vec::new();
        let model = with_ids(model, |id| {
            ids.push(id);
            taking_part.take(id).map_or_else(ParamId::new, |()| id)
        });
        let mut ids = ids.into_iter();
        with_ids(self.0.step(rates.burn(), model, grads), |id| ids.next().unwrap_or(id))
    }
}

/// Returns the stepped model, or `anchor` unchanged on an error. The ascent must not have been in place. If the sharpness step fails, returns the model
/// after the base optimizer's step.
pub(crate) fn descend<R: StepBackend, M: Module>(
    backend: &mut R,
    base: &mut BurnBase,
    context: StepContext<'_>,
    rates: &Rates,
    (perturbed, anchor): AscendedModels<M>,
    pending: PendingStep<R::AscentState>,
    grads: GradientsParams,
) -> Result<(M, Norms), (M, WsamError)> {
    let second_pass = perturbed.as_ref().unwrap_or(&anchor);
    let second = second_phase::<R, M>(context, second_pass, pending, grads);
    drop(perturbed);
    let mixed = second.and_then(|(params, ascent_state, grads)| {
        // Check the rates before anything is stepped.
        let rates = rates.of(&params.names)?;
        Ok((params, rates, backend.mix(context, ascent_state, grads)?))
    });
    let (params, each, PhaseOutput { built: tensors, rest, released }) = match mixed {
        Ok(mixed) => mixed,
        Err(error) => return Err((anchor, error)),
    };
    // The Burn optimizer runs unconditionally, so the host needs the outcome first.
    let model = match backend.latest_outcome() {
        Ok(Some(resolved)) if resolved.outcome == Outcome::Skipped => {
            return match backend.sharpen(context, &each, rest, None) {
                Ok(output) => Ok((anchor, output.rest)),
                Err(error) => Err((anchor, error)),
            };
        }
        Ok(_) => base.step::<R, M>(rates, anchor, &params, tensors),
        Err(error) => return Err((anchor, error)),
    };
    backend.release(released);
    let stepped = match context.has_sharpness_step() {
        false => Ok(None),
        true => step_weights::<R::Layout, M>(&model, &params).map(Some),
    };
    let sharpened = stepped.and_then(|weights| backend.sharpen(context, &each, rest, weights));
    match sharpened {
        // Without a sharpness step `built` is empty, so the model does not change.
        Ok(PhaseOutput { built, rest, released }) => {
            let model = assign::<R::Layout, M>(model, params.values(built));
            backend.release(released);
            Ok((model, rest))
        }
        Err(error) => Err((model, error)),
    }
}

/// Returns the model stepped over one gradient, or the unchanged model on an error.
pub(crate) fn one_pass_step<R: StepBackend, M: Module>(
    backend: &mut R,
    base: &mut BurnBase,
    context: StepContext<'_>,
    update: OnePassUpdate,
    rates: &Rates,
    model: M,
    grads: GradientsParams,
) -> Result<(M, Norms), (M, WsamError)> {
    let clipped = collect_entries(backend, context, &model, grads).and_then(|collected| {
        let params = collected.params();
        rates.of(&params.names)?;
        Ok((params, backend.clip(context, update, collected.entries)?))
    });
    let decided = clipped.and_then(|clipped| Ok((clipped, backend.latest_outcome()?)));
    match decided {
        Ok(((_, output), Some(resolved))) if resolved.outcome == Outcome::Skipped => {
            Ok((model, output.rest))
        }
        Ok(((params, PhaseOutput { built, rest, .. }), _)) => {
            Ok((base.step::<R, M>(rates, model, &params, built), rest))
        }
        Err(error) => Err((model, error)),
    }
}
