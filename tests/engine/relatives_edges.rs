//! WSAM's relatives at the edges: non-finite gradients, extreme magnitudes, and their limits.

use super::*;
use crate::groups::engine_of_few_frames;
use crate::relatives::{
    CLOSE, LENS, LR, METHODS, compare_states, gradients, groups_for, oracle, step_of, variants,
};
use burn_wsam::engine::Tuning;
use burn_wsam::method::{Group, Method, Outcome, Passes};
use burn_wsam_support::engine_route::engine;
use burn_wsam_support::family_engine_route::FamilyEngineRoute;
use burn_wsam_support::family_replay::FamilyRoute;
use burn_wsam_support::golden::Tensors;
use burn_wsam_support::gpu::Gpu;

/// Whether each pass of each step is not finite. The first two steps run before a state exists.
const PASSES: [[bool; 2]; 8] = [
    [true, false],
    [false, true],
    [false, false],
    [true, true],
    [false, false],
    [false, true],
    [false, false],
    [true, false],
];
const BAD: [f64; 3] = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY];

fn bits(tensors: &[Tensors]) -> Vec<u64> {
    tensors.iter().flatten().flatten().map(|x| x.to_bits()).collect()
}

/// Skipped steps change no bit of weights, states and method states. The steps between them, and the steps that the base
/// optimizer takes over, match the oracle.
pub(crate) fn skipped(gpu: &Gpu) -> Result<(), String> {
    let engine = engine_of_few_frames(gpu)?;
    let weight = model(1, &LENS);
    let still = vec![Group { perturbed: false, ..Group::default() }];
    for method in METHODS {
        for (case, base) in variants(method).into_iter().enumerate() {
            for non_finite in [NonFinite::Skip, NonFinite::BaseStep] {
                let hyper = Hyperparameters { non_finite, groups: still.clone(), ..base.clone() };
                let of = [0, 0, 0, case % 2, 0];
                let placement = [Placed::OutOfPlace, Placed::InPlace][case % 2];
                let mut route = FamilyEngineRoute::new(&engine, hyper.clone(), placement, &weight);
                route = route.with_groups(&of);
                let mut oracle = oracle(&hyper, &weight, &of)?;
                run_through(&hyper, &mut route, &mut oracle, weight.clone())
                    .map_err(|error| format!("{hyper:?}, {placement:?}: {error}"))?;
            }
        }
    }
    Ok(())
}

fn run_through(
    hyper: &Hyperparameters,
    route: &mut FamilyEngineRoute,
    oracle: &mut dyn FamilyRoute,
    mut before: Tensors,
) -> Result<(), String> {
    for (step, bad) in PASSES.into_iter().enumerate() {
        let grad = |seed: u64, pass: usize| {
            let mut grad = model(seed + step as u64, &LENS);
            if bad[pass] {
                // A tail, the middle, and a tensor that may not be perturbed.
                let (tensor, element) = [(0, 258), (2, 6002), (3, 2)][step % 3];
                grad[tensor][element] = BAD[(step + pass) % 3];
            }
            grad
        };
        let (g, p) = (grad(100, 0), grad(200, 1));
        let passes = route.passes();
        if passes != oracle.passes() {
            return Err(format!("step {step}: {passes:?}, expected {:?}", oracle.passes()));
        }
        let kept = [route.state()?, route.method_state()?].concat();
        let (got, want) = (step_of(route, LR, &g, &p)?, step_of(oracle, LR, &g, &p)?);
        let second = passes == Passes::Two && bad[1];
        let outcome = hyper.non_finite.outcome(false, !bad[0], !second);
        if outcome == Outcome::Skipped {
            let now = [route.state()?, route.method_state()?].concat();
            if bits(&[got[1].clone()]) != bits(&[before.clone()]) || bits(&now) != bits(&kept) {
                return Err(format!("step {step} was not skipped"));
            }
        } else {
            compare(step, "weight", &got[1], &want[1], CLOSE, &mut Worst::default())?;
            compare_states(step, route, oracle)?;
        }
        before = got[1].clone();
    }
    Ok(())
}

fn scaled(tensors: &[Vec<f64>], factor: f64) -> Tensors {
    // Exact in f32, as gradients are handed in.
    let scale = |x: &f64| f64::from((x * factor) as f32);
    tensors.iter().map(|tensor| tensor.iter().map(scale).collect()).collect()
}

/// Gradients from 1e-30 to 1e30, also of different magnitudes in the two passes.
pub(crate) fn extreme(gpu: &Gpu) -> Result<(), String> {
    let engine = engine_of_few_frames(gpu)?;
    let weight = model(1, &LENS);
    let scales = [
        (1e-30, 1e-30),
        (1e-20, 1e-20),
        (1e-12, 1e-12),
        (1e12, 1e12),
        (1e20, 1e20),
        (1e30, 1e30),
        (1e-15, 1e15),
        (1e15, 1e-15),
    ];
    for method in METHODS {
        for (of_g, of_p) in scales {
            let momentum = Momentum { momentum: 0.9, dampening: 0.0, nesterov: false };
            let base = Base::Sgd { momentum: Some(momentum), weight_decay: 0.0 };
            let groups = groups_for(method);
            let hyper = Hyperparameters {
                method,
                epsilon: 1e-37,
                groups: vec![groups[2], groups[3]],
                ..Hyperparameters::new(base)
            };
            let of = [0, 2, 0, 1, 2];
            let mut route =
                FamilyEngineRoute::new(&engine, hyper.clone(), Placed::OutOfPlace, &weight);
            route = route.with_groups(&of);
            let mut oracle = oracle(&hyper, &weight, &of)?;
            let lr = 1e-2 / f64::max(of_g, of_p);
            for step in 0..4 {
                let [g, p] = gradients(step, &LENS);
                let (g, p) = (scaled(&g, of_g), scaled(&p, of_p));
                let (got, want) =
                    (step_of(&mut route, lr, &g, &p)?, step_of(&mut oracle, lr, &g, &p)?);
                for (what, got, want) in
                    [("perturbed", &got[0], &want[0]), ("weight", &got[1], &want[1])]
                {
                    compare(step as usize, what, got, want, CLOSE, &mut Worst::default())
                        .map_err(|error| format!("{method:?}, {of_g:e}, {of_p:e}: {error}"))?;
                }
            }
        }
    }
    Ok(())
}

/// Every element counts in the longest chunks, also where all sums are computed again by magnitude.
pub(crate) fn longest_chunks(gpu: &Gpu) -> Result<(), String> {
    let default_engine = engine(gpu)?;
    let tuned = |chunk_len| {
        changed(Tuning::default(), |it| {
            it.workgroup = 8;
            it.max_buffer_sets = 1;
            it.chunk_len = chunk_len;
            it.max_norm_chunk_len = chunk_len;
        })
    };
    let longest = tuned(4).longest_chunk();
    let (device, queue) = (default_engine.device(), default_engine.queue());
    let made = Engine::with_tuning(device, queue, tuned(longest));
    let engine = Arc::new(made.map_err(|error| error.to_string())?);
    let lens = [longest as usize];
    let weight = model(1, &lens);
    for method in [Method::LookSam { alpha: 0.7, k: 3 }, METHODS[1]] {
        let hyper = Hyperparameters { method, epsilon: 1e-37, ..sgd() };
        let mut route = FamilyEngineRoute::new(&engine, hyper.clone(), Placed::OutOfPlace, &weight);
        let mut oracle = oracle(&hyper, &weight, &[0])?;
        let [g, p] = gradients(0, &lens).map(|grads| scaled(&grads, 1e-30));
        let (got, want) = (step_of(&mut route, 1e28, &g, &p)?, step_of(&mut oracle, 1e28, &g, &p)?);
        compare(0, "perturbed", &got[0], &want[0], CLOSE, &mut Worst::default())?;
        compare(0, "weight", &got[1], &want[1], CLOSE, &mut Worst::default())?;
        let (got, want) = (route.method_state()?, FamilyRoute::method_state(&mut oracle)?);
        // Elements of a direction are about a thousandth here.
        let close = Tolerance { rtol: 3e-5, atol: 1e-9, share: f64::MAX };
        let close = if method == METHODS[1] { Tolerance { atol: 1e-36, ..close } } else { close };
        compare(0, "method state", &got[0], &want[0], close, &mut Worst::default())
            .map_err(|error| format!("{method:?}: {error}"))?;
    }
    Ok(())
}

/// Zero gradients in both passes, in one, and in one scope.
pub(crate) fn zeros(gpu: &Gpu) -> Result<(), String> {
    let engine = engine_of_few_frames(gpu)?;
    let weight = model(1, &LENS);
    for method in METHODS {
        for hyper in variants(method) {
            for zero in [[true, true], [true, false], [false, true]] {
                let mut route =
                    FamilyEngineRoute::new(&engine, hyper.clone(), Placed::OutOfPlace, &weight);
                let mut oracle = oracle(&hyper, &weight, &[0; 5])?;
                for step in 0..4 {
                    let factor = |pass: usize| if zero[pass] { 0.0 } else { 1.0 };
                    let [g, p] = gradients(step, &LENS);
                    let (g, p) = (scaled(&g, factor(0)), scaled(&p, factor(1)));
                    let place = |error| format!("{hyper:?}, {zero:?}: {error}");
                    let got = step_of(&mut route, LR, &g, &p).map_err(place)?;
                    let want = step_of(&mut oracle, LR, &g, &p)?;
                    compare(
                        step as usize,
                        "weight",
                        &got[1],
                        &want[1],
                        CLOSE,
                        &mut Worst::default(),
                    )
                    .map_err(place)?;
                    compare_states(step as usize, &mut route, &mut oracle).map_err(place)?;
                }
            }
        }
    }
    Ok(())
}

/// The weights after steps of a method.
fn run(
    engine: &Arc<Engine>,
    hyper: &Hyperparameters,
    steps: u64,
    seeds: [u64; 2],
) -> Result<Vec<Tensors>, String> {
    let weight = model(1, &LENS);
    let mut route = FamilyEngineRoute::new(engine, hyper.clone(), Placed::OutOfPlace, &weight);
    let mut found = Vec::new();
    for step in 0..steps {
        let [g, p] = seeds.map(|seed| model(seed + step, &LENS));
        found.extend(step_of(&mut route, LR, &g, &p)?);
        found.extend(route.state()?);
    }
    Ok(found)
}

/// Bit for bit: GSAM with alpha 0, Friendly-SAM with sigma 0 and LookSAM with k 1 are SAM. Within rounding: every method
/// with rho 0 is the base optimizer where that is so by definition.
pub(crate) fn limits(gpu: &Gpu) -> Result<(), String> {
    let engine = engine_of_few_frames(gpu)?;
    let same = [
        Method::Gsam { alpha: 0.0 },
        Method::FriendlySam { sigma: 0.0, lambda: 0.6 },
        Method::LookSam { alpha: 0.7, k: 1 },
    ];
    for base in [sgd(), sgd_momentum(), adamw(), amsgrad()] {
        let sam = Hyperparameters { coupling: Coupling::Coupled, gamma: 0.5, ..base.clone() };
        let want = run(&engine, &sam, 4, [100, 200])?;
        for method in same {
            let hyper = Hyperparameters { method, ..sam.clone() };
            if bits(&run(&engine, &hyper, 4, [100, 200])?) != bits(&want) {
                return Err(format!("{hyper:?} is not SAM"));
            }
        }
    }
    for method in METHODS {
        for hyper in variants(method) {
            // Both passes give the same gradient, as they do where `w + e_w` is `w`.
            let hyper = Hyperparameters { rho: 0.0, ..hyper };
            let plain = Hyperparameters { method: Method::Wsam, gamma: 0.0, ..hyper.clone() };
            let (got, want) =
                (run(&engine, &hyper, 1, [100, 100])?, run(&engine, &plain, 1, [100, 100])?);
            for (got, want) in got.iter().zip(&want) {
                compare(0, "weight", got, want, CLOSE, &mut Worst::default())
                    .map_err(|error| format!("{hyper:?}: {error}"))?;
            }
        }
    }
    Ok(())
}
