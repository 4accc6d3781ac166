//! Norms that overflow `f32`, and blends whose weights cancel, on every route.

use super::Target;
use burn_wsam::method::{Base, Clip, ClipScope, Coupling, Hyperparameters, Momentum, NonFinite};
use burn_wsam::reference::Oracle;
use burn_wsam_support::burn_route::BurnRoute;
use burn_wsam_support::golden::{Golden, Tensors};
use burn_wsam_support::replay::{OracleRoute, Route, Tolerance, Worst, compare};

fn sgd() -> Hyperparameters {
    Hyperparameters::new(Base::Sgd { momentum: None, weight_decay: 0.0 })
}

/// A golden file's model, from values in place of a file.
fn model(hyper: &Hyperparameters, lr: f64, weight: &Tensors) -> Golden {
    Golden {
        file: String::new(),
        hyper: hyper.clone(),
        lr,
        shapes: weight.iter().map(|tensor| vec![tensor.len()]).collect(),
        weight: weight.clone(),
        grad: Vec::new(),
        grad_perturbed: Vec::new(),
        expected: Vec::new(),
    }
}

/// Steps over gradients of 3e38, whose norm is infinite in `f32`, match the oracle: the perturbation is zero, a
/// clipped gradient is zero, and policies that check gradients skip the step. One infinite element affects only
/// its own weight.
pub(crate) fn norms(target: &Target) -> Result<(), String> {
    let device = target.device.clone().inner();
    let all = |value: f64| vec![vec![value; 8], vec![value; 5]];
    let (weight, grad, lr) = (all(1.0), all(3e38), 2e-38);
    let clip = |scope| Some(Clip { max_norm: 0.5, scope });
    let momentum = Some(Momentum { momentum: 0.9, dampening: 0.0, nesterov: false });
    let forms = [
        sgd(),
        Hyperparameters::new(Base::Sgd { momentum, weight_decay: 0.0 }),
        Hyperparameters { coupling: Coupling::Coupled, gamma: 0.5, ..sgd() },
        Hyperparameters { adaptive: true, ..sgd() },
        Hyperparameters { clip: clip(ClipScope::Both), ..sgd() },
        Hyperparameters { clip: clip(ClipScope::PerturbedOnly), adaptive: true, ..sgd() },
    ];
    for form in forms {
        for non_finite in [NonFinite::Propagate, NonFinite::Skip, NonFinite::BaseStep] {
            let hyper = Hyperparameters { non_finite, ..form.clone() };
            for lean in [false, true] {
                // Lean mode supports neither.
                if lean
                    && (hyper.coupling == Coupling::Coupled || non_finite == NonFinite::BaseStep)
                {
                    continue;
                }
                let make = if lean { BurnRoute::lean } else { BurnRoute::new };
                let made = || make(&model(&hyper, lr, &weight), &device, target.policy);
                let fail = |error: String| format!("{hyper:?}, lean {lean}: {error}");
                let mut route = made().map_err(fail)?;
                if route.ascend(&grad).map_err(fail)? != weight {
                    return Err(fail("an infinite norm perturbed the weights".to_owned()));
                }
                let oracle = Oracle::new(hyper.clone(), weight.clone()).with_f32_norms();
                let mut oracle = OracleRoute(oracle);
                oracle.ascend(&grad)?;
                let got = route.descend(lr, &grad).map_err(fail)?;
                let want = oracle.descend(lr, &grad)?;
                let mut worst = Worst::default();
                compare(0, "weight", &got, &want, Tolerance::SINGLE, &mut worst).map_err(fail)?;
                if non_finite == NonFinite::Propagate {
                    let mut bad = all(0.5);
                    bad[0][3] = f64::INFINITY;
                    let found = made().map_err(fail)?.ascend_once(&bad).map_err(fail)?;
                    let right = |(i, x): (usize, &f64)| (i == 3 && x.is_nan()) || *x == 1.0;
                    if !found[0].iter().enumerate().all(right) {
                        return Err(fail(format!("an infinity made {:?}", found[0])));
                    }
                }
            }
        }
    }
    Ok(())
}

/// The coupled blend is `g + alpha (g~ - g)` within the `f32` roundings of the difference and of the sum. It is
/// exactly `g` at alpha 0 and exactly `g~` at alpha 1.
pub(crate) fn difference(target: &Target) -> Result<(), String> {
    let device = target.device.clone().inner();
    let values = |seed: u64| -> Vec<f64> {
        let bits = |i: u64| (i + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 41;
        (0..999).map(|i| bits(i) as f64 / f64::from(1 << 22) - 1.0).collect()
    };
    let (g, noise) = (values(3), values(50_000));
    let near = |(g, x): (&f64, &f64)| f64::from((g + 0.01 * x) as f32);
    let g_perturbed: Vec<f64> = g.iter().zip(&noise).map(near).collect();
    for gamma in [0.0, 0.3, 0.5, 0.85, 0.93, 0.95] {
        let alpha: f64 = gamma / (1.0 - gamma);
        let hyper = Hyperparameters { coupling: Coupling::Coupled, gamma, ..sgd() };
        let golden = model(&hyper, -1.0, &vec![vec![0.0; g.len()]]);
        let mut route = BurnRoute::new(&golden, &device, target.policy)?;
        route.ascend(std::slice::from_ref(&g))?;
        let found = route.descend(-1.0, std::slice::from_ref(&g_perturbed))?;
        for ((found, g), p) in found[0].iter().zip(&g).zip(&g_perturbed) {
            let (want, sharpness) = (g + alpha * (p - g), alpha * (p - g).abs());
            let unit_roundoff = 2f64.powi(-24);
            let exact = alpha == 0.0 || alpha == 1.0;
            let allowed =
                if exact { 0.0 } else { 1.01 * unit_roundoff * (3.0 * sharpness + want.abs()) };
            let right = (found - want).abs() <= allowed;
            if !right {
                return Err(format!("gamma {gamma}, {g} and {p}: {found}, expected {want}"));
            }
        }
    }
    Ok(())
}
