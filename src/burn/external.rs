//! Steps around a base optimizer of Burn's: what it steps on comes from the route, and the sharpness
//! step follows it. Where gradients may not be finite, the host waits to know before it lets it step.

use super::error::WsamError;
use super::rates::Rates;
use super::report::Norms;
use super::runner::{Context, Half, Pending, Runner, TensorOf, by_id, names, slots};
use super::slots::{Collected, assign, collect_perturbed, gradients, weights};
use crate::method::{Coupling, Outcome};
use burn::module::Module;
use burn::optim::{GradientsParams, ModuleOptimizer};

/// A Burn optimizer as the base.
pub(crate) struct External(pub(crate) ModuleOptimizer);

impl std::fmt::Debug for External {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("External").finish_non_exhaustive()
    }
}

impl External {
    fn step<R: Runner, M: Module>(
        &mut self,
        rates: &Rates,
        model: M,
        names: &[(burn::module::ParamId, String)],
        mixed: Vec<TensorOf<R>>,
    ) -> M {
        let grads = gradients::<R::Form, M>(&model, names, mixed);
        self.0.step(rates.burn(), model, grads)
    }
}

/// The stepped model, or `anchor` as it was; if the sharpness step fails, the model as the base
/// optimizer left it.
pub(crate) fn descend<R: Runner, M: Module>(
    runner: &mut R,
    external: &mut External,
    context: Context<'_>,
    rates: &Rates,
    (perturbed, anchor): (M, M),
    pending: Pending<R::Kept>,
    grads: GradientsParams,
) -> Result<(M, Norms), (M, WsamError)> {
    let Pending { names, kept } = pending;
    let collected = collect_perturbed::<R::Form, M>(perturbed, grads, context.device, &names);
    let mixed = collected.and_then(|grads| {
        // Before anything is stepped.
        let rates = rates.of(&names)?;
        Ok((rates, runner.mix(context, kept, grads)?))
    });
    let (each, Half { built: tensors, rest, retired }) = match mixed {
        Ok(mixed) => mixed,
        Err(error) => return Err((anchor, error)),
    };
    // It steps on the host's word, so the host must know.
    let model = match runner.last_outcome() {
        Ok(Some(settled)) if settled.outcome == Outcome::Skipped => {
            return match runner.sharpen(context, &each, rest, None) {
                Ok(half) => Ok((anchor, half.rest)),
                Err(error) => Err((anchor, error)),
            };
        }
        Ok(_) => external.step::<R, M>(rates, anchor, &names, tensors),
        Err(error) => return Err((anchor, error)),
    };
    runner.retire(retired);
    let stepped = match context.hyper.coupling {
        Coupling::Coupled => Ok(None),
        Coupling::Decoupled => weights::<R::Form, M>(&model, &names).map(Some),
    };
    let sharpened = stepped.and_then(|weights| runner.sharpen(context, &each, rest, weights));
    match sharpened {
        // Without a sharpness step there are no tensors, and the model stays as it is.
        Ok(Half { built, rest, retired }) => {
            let model = assign::<R::Form, M>(model, by_id(&names, built));
            runner.retire(retired);
            Ok((model, rest))
        }
        Err(error) => Err((model, error)),
    }
}

/// The model stepped by the base optimizer alone, or as it was.
pub(crate) fn base_step<R: Runner, M: Module>(
    runner: &mut R,
    external: &mut External,
    context: Context<'_>,
    rates: &Rates,
    model: M,
    grads: GradientsParams,
) -> Result<M, (M, WsamError)> {
    let clipped = slots(runner, context, &model, grads).and_then(|Collected { slots, .. }| {
        let names = names(&slots);
        rates.of(&names)?;
        Ok((names, runner.clip(context, slots)?))
    });
    let decided = clipped.and_then(|clipped| Ok((clipped, runner.last_outcome()?)));
    match decided {
        Ok((_, Some(settled))) if settled.outcome == Outcome::Skipped => Ok(model),
        Ok(((names, tensors), _)) => Ok(external.step::<R, M>(rates, model, &names, tensors)),
        Err(error) => Err((model, error)),
    }
}
