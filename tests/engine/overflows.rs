//! Finite gradients whose norm overflows f32, and infinite gradients.

use super::*;
use burn_wsam::method::{Clip, ClipScope, Group, NormScope};
use burn_wsam_support::engine_route::engine;
use burn_wsam_support::golden::Tensors;
use burn_wsam_support::gpu::Gpu;
use burn_wsam_support::lean_route::LeanRoute;

const LENS: [usize; 2] = [8, 5];
const LR: f64 = 2e-38;

fn all(value: f64) -> Tensors {
    LENS.iter().map(|len| vec![value; *len]).collect()
}

/// Settings that use norms in different ways.
pub(crate) fn variants() -> Vec<Hyperparameters> {
    let clip = |scope| Some(Clip { max_norm: 0.5, scope });
    let own = Group { norm: NormScope::Own, ..Group::default() };
    vec![
        sgd(),
        Hyperparameters { coupling: Coupling::Coupled, gamma: 0.5, ..sgd() },
        Hyperparameters { adaptive: true, ..sgd() },
        Hyperparameters { clip: clip(ClipScope::Both), ..sgd() },
        Hyperparameters { clip: clip(ClipScope::PerturbedOnly), adaptive: true, ..sgd() },
        Hyperparameters { groups: vec![own], ..sgd() },
    ]
}

/// Matches the oracle: under a norm that overflows f32 the perturbation is zero and clipped gradients are zero, and
/// policies that check gradients skip the step.
pub(crate) fn norms(gpu: &Gpu) -> Result<(), String> {
    let engine = engine(gpu)?;
    let weight = all(1.0);
    for variant in variants() {
        for non_finite in [NonFinite::Propagate, NonFinite::Skip, NonFinite::BaseStep] {
            let hyper = Hyperparameters { non_finite, ..variant.clone() };
            let groups = [0, hyper.groups.len()];
            for placement in [Placement::OutOfPlace, Placement::InPlace] {
                let route = EngineRoute::new(&engine, hyper.clone(), placement, &weight);
                let mut route = route.with_groups(&groups).untracked();
                overflows(&hyper, &mut route)
                    .map_err(|error| format!("{hyper:?}, {placement:?}: {error}"))?;
            }
            if hyper.coupling == Coupling::Decoupled {
                let route = LeanRoute::new(&engine, hyper.clone(), LR, &weight);
                let mut route = route.with_groups(&groups).untracked();
                overflows(&hyper, &mut route)
                    .map_err(|error| format!("{hyper:?}, lean: {error}"))?;
            }
        }
        let hyper = propagating(variant);
        infinities(&hyper, &|| {
            let route = EngineRoute::new(&engine, hyper.clone(), Placement::OutOfPlace, &weight);
            Box::new(route.with_groups(&[0, hyper.groups.len()]))
        })?;
    }
    Ok(())
}

/// Compares one step over elements of 3e38 with the oracle.
fn overflows(hyper: &Hyperparameters, route: &mut dyn Route) -> Result<(), String> {
    let (weight, grad) = (all(1.0), all(3e38));
    if route.ascend(&grad)? != weight {
        return Err("an infinite norm perturbed the weights".into());
    }
    let groups = [0, hyper.groups.len()];
    let oracle = burn_wsam::reference::Oracle::with_groups(hyper.clone(), weight, &groups);
    let mut oracle = OracleRoute(oracle.map_err(|error| error.to_string())?.with_f32_norms());
    oracle.ascend(&grad)?;
    let (got, want) = (route.descend(LR, &grad)?, oracle.descend(LR, &grad)?);
    compare(0, "weight", &got, &want, SINGLE, &mut Worst::default())
}

/// One infinite or NaN element: an infinity affects only its own weight, a NaN all weights in its norm.
fn infinities(hyper: &Hyperparameters, route: &dyn Fn() -> Box<dyn Route>) -> Result<(), String> {
    for bad in [f64::INFINITY, f64::NEG_INFINITY, f64::NAN] {
        let mut grad = all(0.5);
        grad[0][3] = bad;
        let found = route().ascend(&grad)?;
        for (i, x) in found[0].iter().enumerate() {
            let right = if bad.is_nan() || i == 3 { x.is_nan() } else { *x == 1.0 };
            if !right {
                return Err(format!("{hyper:?}: {bad} made element {i} {x}"));
            }
        }
    }
    Ok(())
}
