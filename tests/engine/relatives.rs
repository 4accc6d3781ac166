//! WSAM's relatives compared with the oracle: every base optimizer, groups, clipping, loss scales, half precision.

use super::*;
use crate::groups::engine_of_few_frames;
use burn_wsam::engine::Format;
use burn_wsam::method::{Clip, ClipScope, Group, Method, NormScope, Passes};
use burn_wsam::reference::Oracle;
use burn_wsam_support::family_engine_route::FamilyEngineRoute;
use burn_wsam_support::family_replay::FamilyRoute;
use burn_wsam_support::formats::{FORMATS, decode, encode};
use burn_wsam_support::gpu::Gpu;

pub(crate) const METHODS: [Method; 5] = [
    Method::Gsam { alpha: 0.4 },
    Method::FriendlySam { sigma: 0.8, lambda: 0.6 },
    Method::LookSam { alpha: 0.7, k: 3 },
    Method::LookSam { alpha: 0.7, k: 1 },
    Method::MomentumSam,
];

/// An odd tail, an empty tensor, several chunks, less than a vector.
pub(crate) const LENS: [usize; 5] = [259, 0, 9001, 3, 64];

pub(crate) const LR: f64 = 0.01;

/// The base optimizers that the method can be combined with, with an adaptive perturbation where it is defined.
pub(crate) fn variants(method: Method) -> Vec<Hyperparameters> {
    let l2_momentum = Momentum { momentum: 0.9, dampening: 0.0, nesterov: false };
    let l2 = Base::Sgd { momentum: Some(l2_momentum), weight_decay: 0.1 };
    let bases = [sgd(), sgd_momentum(), Hyperparameters::new(l2), adamw(), amsgrad()];
    let with_method = |base: Hyperparameters| {
        let adaptive = base.adaptive && method != Method::MomentumSam;
        Hyperparameters { method, adaptive, rho: 0.5, ..base }
    };
    let all = bases.map(with_method).into_iter();
    all.filter(|hyper| hyper.validate_pairs().is_ok()).collect()
}

pub(crate) fn oracle(
    hyper: &Hyperparameters,
    weight: &[Vec<f64>],
    groups: &[usize],
) -> Result<Oracle, String> {
    Oracle::with_groups(hyper.clone(), weight.to_vec(), groups).map_err(|error| error.to_string())
}

/// Takes a step of any method. Returns the weights at which the last gradient was taken, and the new weights.
pub(crate) fn step_of(
    route: &mut dyn FamilyRoute,
    lr: f64,
    g: &[Vec<f64>],
    p: &[Vec<f64>],
) -> Result<[Vec<Vec<f64>>; 2], String> {
    match route.passes() {
        Passes::Two => Ok([route.ascend(g)?, route.descend(lr, p)?]),
        Passes::One => Ok([route.gradient_point()?, route.one_pass(lr, g)?]),
    }
}

/// The gradients of a step. They are correlated, as those of a model are.
pub(crate) fn gradients(step: u64, lens: &[usize]) -> [Vec<Vec<f64>>; 2] {
    let [g, q] = [100, 200].map(|seed| model(seed + step, lens));
    // Exact in f32.
    let mean = |(g, q): (&f64, &f64)| f64::from((0.5 * (g + q)) as f32);
    let both = |(g, q): (&Vec<f64>, &Vec<f64>)| g.iter().zip(q).map(mean).collect();
    let p = g.iter().zip(&q).map(both).collect();
    [g, p]
}

/// A tolerance that does not depend on the largest element: all elements of a short tensor may cancel.
pub(crate) const CLOSE: Tolerance = Tolerance { rtol: 3e-5, atol: 3e-6, share: f64::MAX };

/// Elements of LookSAM's direction are small: it has length 1.
const DIRECTION: Tolerance = Tolerance { rtol: 3e-5, atol: 1e-6, share: f64::MAX };

pub(crate) fn compare_states(
    step: usize,
    route: &mut dyn FamilyRoute,
    oracle: &mut dyn FamilyRoute,
) -> Result<(), String> {
    let mut worst = Worst::default();
    let (got, want) = (route.state()?, oracle.state()?);
    for (got, want) in got.iter().zip(&want) {
        compare(step, "state", got, want, CLOSE, &mut worst)?;
    }
    let (got, want) = (route.method_state()?, oracle.method_state()?);
    if got.len() != want.len() {
        return Err(format!("{} method states for {}", got.len(), want.len()));
    }
    for (got, want) in got.iter().zip(&want) {
        compare(step, "method state", got, want, DIRECTION, &mut worst)?;
    }
    Ok(())
}

/// Takes steps on random gradients, and compares everything after each.
fn follow(
    route: &mut dyn FamilyRoute,
    oracle: &mut dyn FamilyRoute,
    lens: &[usize],
    steps: usize,
) -> Result<(), String> {
    for step in 0..steps {
        let [g, p] = gradients(step as u64, lens);
        if route.passes() != oracle.passes() {
            return Err(format!("step {step}: {:?}", route.passes()));
        }
        let (got, want) = (step_of(route, LR, &g, &p)?, step_of(oracle, LR, &g, &p)?);
        for (what, got, want) in [("perturbed", &got[0], &want[0]), ("weight", &got[1], &want[1])] {
            compare(step, what, got, want, CLOSE, &mut Worst::default())?;
        }
        compare_states(step, route, oracle)?;
    }
    Ok(())
}

/// Groups that override every setting that the method has.
pub(crate) fn groups_for(method: Method) -> Vec<Group> {
    let group = Group::default;
    let adaptive = |adaptive| (method != Method::MomentumSam).then_some(adaptive);
    vec![
        Group { lr_factor: 3.0, weight_decay: Some(0.1), rho: Some(1.5), ..group() },
        Group { adaptive: adaptive(true), norm: NormScope::Own, ..group() },
        Group { perturbed: false, ..group() },
        Group { norm: NormScope::Own, adaptive: adaptive(false), rho: Some(0.7), ..group() },
    ]
}

pub(crate) fn match_oracle(gpu: &Gpu) -> Result<(), String> {
    let engine = engine_of_few_frames(gpu)?;
    let weight = model(1, &LENS);
    let clips = [None, Some(ClipScope::Both), Some(ClipScope::PerturbedOnly)];
    for method in METHODS {
        for (case, base) in variants(method).into_iter().enumerate() {
            // An epsilon that counts, too.
            let epsilon = if case % 2 == 0 { 1e-12 } else { 300.0 };
            let clip = clips[case % 3].map(|scope| Clip { max_norm: 0.5, scope });
            for (groups, of) in [(vec![], [0; 5]), (groups_for(method), [1, 2, 0, 3, 4])] {
                let hyper = Hyperparameters { clip, epsilon, groups, ..base.clone() };
                for (placement, scale) in [(Placed::OutOfPlace, 1.0), (Placed::InPlace, 1024.0)] {
                    let route = FamilyEngineRoute::new(&engine, hyper.clone(), placement, &weight);
                    let mut route = route.with_groups(&of).scaled(scale);
                    let mut oracle = oracle(&hyper, &weight, &of)?;
                    follow(&mut route, &mut oracle, &LENS, 4)
                        .map_err(|error| format!("{hyper:?}, {placement:?}: {error}"))?;
                }
            }
        }
    }
    Ok(())
}

/// Half an ulp of the format, plus the rounding of f32.
fn half_ulp(format: Format) -> Tolerance {
    let rtol = if format == Format::F16 { 2f64.powi(-11) } else { 2f64.powi(-8) };
    Tolerance { rtol: 1.001 * rtol, atol: 4e-6, share: f64::MAX }
}

fn rounded(format: Format, tensors: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let round = |x: &f64| decode(format, encode(format, *x));
    tensors.iter().map(|tensor| tensor.iter().map(round).collect()).collect()
}

/// Half precision with and without master weights. Without them the oracle continues from the rounded weights.
pub(crate) fn half_precision(gpu: &Gpu) -> Result<(), String> {
    let engine = engine_of_few_frames(gpu)?;
    let lens = [1, 4, 5, 1000, 4099];
    for (case, method) in METHODS.into_iter().enumerate() {
        for (variant, hyper) in variants(method).into_iter().enumerate() {
            let format = FORMATS[(case + variant) % 2];
            for has_master in [true, false] {
                let placement = match (variant + usize::from(has_master)) % 2 {
                    0 => Placed::OutOfPlace,
                    _ => Placed::InPlace,
                };
                let own = model(1, &lens);
                let weight = if has_master { own } else { rounded(format, &own) };
                let form = (format, has_master);
                let mut route =
                    FamilyEngineRoute::in_format(&engine, hyper.clone(), placement, &weight, form);
                let mut oracle = oracle(&hyper, &weight, &[0; 5])?;
                for step in 0..4 {
                    let place = |error| format!("{hyper:?}, {form:?}, {placement:?}: {error}");
                    let [g, p] = gradients(step, &lens).map(|grads| rounded(format, &grads));
                    let got = step_of(&mut route, LR, &g, &p).map_err(place)?;
                    let want = step_of(&mut oracle, LR, &g, &p)?;
                    let (at, mut worst) = (step as usize, Worst::default());
                    for (what, got, want) in
                        [("perturbed", &got[0], &want[0]), ("weight", &got[1], &want[1])]
                    {
                        compare(at, what, got, want, half_ulp(format), &mut worst)
                            .map_err(place)?;
                    }
                    if has_master {
                        let masters = route.masters()?;
                        compare(at, "master", &masters, &want[1], CLOSE, &mut worst)
                            .map_err(place)?;
                        if rounded(format, &masters) != got[1] {
                            return Err(place("weights are not rounded masters".to_owned()));
                        }
                    } else {
                        oracle.set_weights(got[1].clone()).map_err(|error| error.to_string())?;
                    }
                    compare_states(at, &mut route, &mut oracle).map_err(place)?;
                }
            }
        }
    }
    Ok(())
}
