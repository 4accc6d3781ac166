//! Steps in place: the model's tensors get other memory where nothing else refers to them. Nothing that refers to
//! them may see it, and the numbers must be those of steps that replace the tensors.

mod held;
mod threads;

pub(crate) use held::{first_pass, second_pass};
pub(crate) use threads::{elsewhere, validation};

use super::Target;
use super::misuse::refused;
use super::nets::{ConvNet, Mlp, close, config, data, grads, parameters, same, text};
use burn::optim::GradientsParams;
use burn_wsam::{AdamWBaseConfig, Ascended, Wsam, WsamConfig, WsamError};

fn adamw() -> WsamConfig {
    WsamConfig::new(AdamWBaseConfig::new().into())
}

/// The ways to take a step.
#[derive(Clone, Copy, Debug)]
enum Call {
    Step,
    Phases,
    LeanPhases,
    Base,
}

const CALLS: [Call; 4] = [Call::Step, Call::Phases, Call::LeanPhases, Call::Base];

/// Takes one step on [`Mlp::exact`].
fn take(optim: &mut Wsam, call: Call, model: Mlp, batch: u64) -> Result<Mlp, String> {
    let second = |model: &Mlp| grads(&model.exact(batch), model);
    match call {
        Call::Step => {
            let step = optim.step(0.01, model, |model| model.exact(batch));
            step.map(|(model, _)| model).map_err(text)
        }
        Call::Phases => {
            let first = grads(&model.exact(batch), &model);
            let ascended = optim.ascend(model, first).map_err(text)?;
            let second = second(ascended.model());
            optim.descend(0.01, ascended, second).map_err(text)
        }
        Call::LeanPhases => {
            let first = grads(&model.exact(batch), &model);
            let ascended = optim.lean_ascend(0.01, model, first).map_err(text)?;
            let second = second(ascended.model());
            optim.lean_descend(ascended, second).map_err(text)
        }
        Call::Base => {
            let first = grads(&model.exact(batch), &model);
            optim.base_step(0.01, model, first).map_err(text)
        }
    }
}

/// Checks whether the last step was in place, on the fused route with Burn's fusion. Other steps never are.
fn check_in_place(what: &str, optim: &Wsam, want: bool) -> Result<(), String> {
    #[cfg(feature = "fused-wsam")]
    if let Some(stats) = optim.last_step_stats() {
        let want = want && cfg!(feature = "fusion");
        // A step in place makes no tensor. Each of its phases waits for Burn's server twice.
        let right = match want {
            true => stats.in_place && stats.tensors_made == 0 && stats.server_calls <= 4,
            false => !stats.in_place && (stats.tensors_made > 0 || !cfg!(feature = "fusion")),
        };
        if !right {
            return Err(format!("{what}: in place should be {want}: {stats:?}"));
        }
    }
    let _ = (what, optim, want);
    Ok(())
}

/// A model with two steps behind it, so that its weights are in an arena.
fn stepped(target: &Target) -> Result<(Wsam, Mlp), String> {
    let mut optim = target.init(&adamw())?;
    let mut model = Mlp::new(&target.device);
    for batch in 0..2 {
        model = take(&mut optim, Call::Phases, model, batch)?;
    }
    Ok((optim, model))
}

/// In a plain loop every step but the first is in place, with the dispatches and bytes of steps that replace the
/// tensors. Steps that are forced out of place in between have the same bits.
pub(crate) fn loops(target: &Target) -> Result<(), String> {
    for call in CALLS {
        let (mut own, mut forced) = (target.init(&adamw())?, target.init(&adamw())?);
        let mut model = Mlp::new(&target.device);
        let mut want = super::nets::fork(&model);
        for batch in 0..8 {
            let what = format!("{call:?}, step {batch}");
            model = take(&mut own, call, model, batch)?;
            check_in_place(&what, &own, batch > 0)?;
            // A clone forces the first four steps out of place. The others alternate.
            let clone = (batch < 4 || batch % 2 == 0).then(|| want.clone());
            want = take(&mut forced, call, want, batch)?;
            check_in_place(&what, &forced, clone.is_none())?;
            #[cfg(feature = "fused-wsam")]
            if let (Some(got), Some(other)) = (own.last_step_stats(), forced.last_step_stats())
                && (got.dispatches, got.submissions, got.bytes(), got.extra_bytes)
                    != (other.dispatches, other.submissions, other.bytes(), other.extra_bytes)
            {
                return Err(format!("{what}: {got:?}, out of place {other:?}"));
            }
            same(&what, &model, &parameters(&want))?;
            drop(clone);
        }
    }
    Ok(())
}

/// Modules with running statistics: steps in place advance them once, as others do.
pub(crate) fn statistics(target: &Target) -> Result<(), String> {
    let (mut own, mut forced) = (target.init(&config())?, target.init(&config())?);
    let mut model = ConvNet::new(&target.device);
    let mut want = super::nets::fork(&model);
    for batch in 0..4 {
        let step = own.step(0.01, model, |model| model.loss(batch)).map_err(text)?;
        check_in_place("with running statistics", &own, batch > 0)?;
        model = step.0;
        let clone = want.clone();
        want = forced.step(0.01, want, |model| model.loss(batch)).map_err(text)?.0;
        drop(clone);
        // `valid` applies the updates of running statistics that Burn has deferred.
        let (_, _) = (super::nets::fork(&model), super::nets::fork(&want));
        close("running statistics and weights", &model, &want)?;
    }
    Ok(())
}

/// Path and values of each parameter.
type Weights = Vec<(String, Vec<f32>)>;

/// An ascended model, with its weights before.
fn ascended(target: &Target) -> Result<(Wsam, Ascended<Mlp>, Weights), String> {
    let (mut optim, model) = stepped(target)?;
    let before = parameters(&model);
    let first = grads(&model.exact(2), &model);
    let ascended = optim.ascend(model, first).map_err(text)?;
    Ok((optim, ascended, before))
}

/// A refused or abandoned step returns the weights as they were, and leaves what was kept of the perturbed model at
/// its values. The next step is right.
pub(crate) fn refusals(target: &Target) -> Result<(), String> {
    let want = {
        let (mut optim, model) = stepped(target)?;
        parameters(&take(&mut optim, Call::Phases, model, 2)?)
    };
    for refusal in ["restore", "missing", "foreign", "optimizer", "rate", "shape"] {
        for keeps in [false, true] {
            let what = format!("{refusal}, a clone of the perturbed model kept: {keeps}");
            let (mut optim, ascended, before) = ascended(target)?;
            let second = grads(&ascended.model().exact(2), ascended.model());
            let perturbed = parameters(ascended.model());
            if perturbed == before {
                return Err("the ascent did not change the weights".to_owned());
            }
            let kept = keeps.then(|| ascended.model().clone());
            let model = match refusal {
                "restore" => ascended.restore(),
                "missing" => {
                    let ids = [ascended.model().a.weight.id];
                    let mut backward = ascended.model().exact(2).backward();
                    let some = GradientsParams::from_params(&mut backward, ascended.model(), &ids);
                    refused(&what, optim.descend(0.1, ascended, some), &before, |error| {
                        matches!(error, WsamError::MissingGradient { .. })
                    })?
                }
                "foreign" => {
                    let other = Mlp::new(&target.device);
                    let foreign = grads(&other.exact(0), &other);
                    refused(&what, optim.descend(0.1, ascended, foreign), &before, |_| true)?
                }
                "optimizer" => {
                    let mut other = target.init(&adamw())?;
                    refused(&what, other.descend(0.1, ascended, second), &before, |error| {
                        matches!(error, WsamError::ForeignAscent)
                    })?
                }
                "rate" => {
                    refused(&what, optim.descend(f64::NAN, ascended, second), &before, |error| {
                        matches!(error, WsamError::Hyperparameter(_))
                    })?
                }
                _ => {
                    let mut misshapen = second;
                    let inner = target.device.clone().inner();
                    misshapen.register(ascended.model().b.weight.id, data([3, 19], 0, &inner));
                    refused(&what, optim.descend(0.1, ascended, misshapen), &before, |error| {
                        matches!(error, WsamError::Shape { .. })
                    })?
                }
            };
            same(&what, &model, &before)?;
            if let Some(kept) = &kept {
                same(&what, kept, &perturbed)?;
            }
            let after = take(&mut optim, Call::Phases, model, 2)?;
            // The clone shared the tensors of the perturbed model, so the restored model has tensors of its own.
            same(&format!("{what}, the next step"), &after, &want)?;
            if let Some(kept) = &kept {
                same(&format!("{what}, the next step"), kept, &perturbed)?;
            }
        }
    }
    Ok(())
}

/// A step whose closure fails, in either pass, returns the weights as they were. The next steps are right, and in
/// place after one step: the graph that was not run backward keeps some weights.
pub(crate) fn failing_closures(target: &Target) -> Result<(), String> {
    let (mut optim, mut want) = stepped(target)?;
    for batch in 2..4 {
        want = take(&mut optim, Call::Step, want, batch)?;
    }
    let want = parameters(&want);
    for bad in 1..=2 {
        let (mut optim, model) = stepped(target)?;
        let before = parameters(&model);
        let mut pass = 0;
        let step = optim.step(0.1, model, |model| {
            pass += 1;
            let loss = model.exact(2);
            if pass == bad { loss.without_autodiff() } else { loss }
        });
        let mut model = refused("a loss without autodiff", step, &before, |error| {
            matches!(error, WsamError::NoAutodiff)
        })?;
        for batch in 2..4 {
            model = take(&mut optim, Call::Step, model, batch)?;
        }
        check_in_place("the second step after the refused one", &optim, true)?;
        same("after the refused step", &model, &want)?;
    }
    Ok(())
}

/// An ascended model that is dropped, and a panic in the second pass: clones keep their weights.
pub(crate) fn dropped(target: &Target) -> Result<(), String> {
    let (_optim, ascended, _) = ascended(target)?;
    let (perturbed, clone) = (parameters(ascended.model()), ascended.model().clone());
    drop(ascended);
    same("a clone of a dropped model", &clone, &perturbed)?;

    let (mut optim, model) = stepped(target)?;
    let mut kept = None;
    let mut pass = 0;
    let step = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let step = optim.step(0.1, model, |model| {
            pass += 1;
            if pass == 2 {
                kept = Some((model.clone(), parameters(model)));
                std::panic::resume_unwind(Box::new("the closure's own"));
            }
            model.exact(2)
        });
        step.is_ok()
    }));
    if step.is_ok() {
        return Err("the panic did not reach the caller".to_owned());
    }
    let Some((clone, perturbed)) = kept else { return Err("no second pass".to_owned()) };
    same("a clone taken before a panic", &clone, &perturbed)?;
    // The optimizer still works.
    take(&mut optim, Call::Step, clone, 3).map(|_| ())
}
