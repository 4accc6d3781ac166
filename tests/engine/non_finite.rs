//! Non-finite gradients, and gradients of scaled losses.

use super::*;
use crate::groups::engine_of_few_frames;
use burn_wsam::engine::{
    AscentOptions, AscentTensor, BaseTensor, EngineError, GradientOptions, InvScale,
};
use burn_wsam::method::{Clip, ClipScope, Group, Outcome};
use burn_wsam::reference::Oracle;
use burn_wsam_support::engine_route::{buffer, read, slice};
use burn_wsam_support::gpu::Gpu;
use burn_wsam_support::lean_route::LeanRoute;

/// An odd tail, an empty tensor, several chunks.
const LENS: [usize; 4] = [259, 0, 9001, 3];
/// Tensor and element of a bad value: first and last of a vector, in a tail, inside a later chunk, and the last of all.
const PLACES: [(usize, usize); 5] = [(0, 0), (0, 7), (0, 258), (2, 6002), (3, 2)];
const BAD: [f64; 3] = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY];

/// Bits of the values, so that NaNs compare equal.
fn bits(tensors: &[Vec<f64>]) -> Vec<Vec<u64>> {
    tensors.iter().map(|tensor| tensor.iter().map(|x| x.to_bits()).collect()).collect()
}

fn all_bits(states: &[Vec<Vec<f64>>]) -> Vec<Vec<Vec<u64>>> {
    states.iter().map(|tensors| bits(tensors)).collect()
}

fn poisoned(seed: u64, (tensor, element): (usize, usize), bad: f64) -> Vec<Vec<f64>> {
    let mut grad = model(seed, &LENS);
    grad[tensor][element] = bad;
    grad
}

/// Settings whose kernels or checks differ.
fn variants() -> Vec<Hyperparameters> {
    let clip = Some(Clip { max_norm: 0.5, scope: ClipScope::Both });
    let only = Some(Clip { max_norm: 0.5, scope: ClipScope::PerturbedOnly });
    let unperturbed = Group { perturbed: false, ..Group::default() };
    vec![
        sgd(),
        Hyperparameters { clip, ..sgd_momentum() },
        Hyperparameters { coupling: Coupling::Coupled, clip: only, ..sgd_momentum() },
        Hyperparameters { groups: vec![unperturbed], ..adamw() },
        amsgrad(),
    ]
}

/// Whether each pass of each step is not finite. The first two steps run before a state exists.
const PASSES: [[bool; 2]; 5] =
    [[true, false], [false, true], [false, false], [true, true], [false, false]];

/// Skipped steps change no bit, and the steps between them match the oracle.
pub(crate) fn skipped(gpu: &Gpu) -> Result<(), String> {
    let engine = engine_of_few_frames(gpu)?;
    let weight = model(1, &LENS);
    for (variant, hyper) in variants().into_iter().enumerate() {
        let groups = LENS.map(|len| usize::from(len == 3) * hyper.groups.len());
        for non_finite in [NonFinite::Skip, NonFinite::BaseStep] {
            let hyper = Hyperparameters { non_finite, ..hyper.clone() };
            for placement in [Placement::OutOfPlace, Placement::InPlace] {
                let route = EngineRoute::new(&engine, hyper.clone(), placement, &weight);
                let mut route = route.with_groups(&groups).untracked();
                let oracle = Oracle::with_groups(hyper.clone(), weight.clone(), &groups);
                let mut oracle = OracleRoute(oracle.map_err(|error| error.to_string())?);
                let bad = |step: usize| (PLACES[(variant + step) % 5], BAD[(variant + step) % 3]);
                run_through(&hyper, &mut route, &mut oracle, &weight, bad)
                    .map_err(|error| format!("{hyper:?}, {placement:?}: {error}"))?;
            }
        }
    }
    // Every place, value and pass, with plain SGD.
    for place in PLACES {
        for value in BAD {
            let mut route = EngineRoute::new(&engine, sgd(), Placement::OutOfPlace, &weight);
            route = route.untracked();
            let mut oracle = OracleRoute::new(sgd(), weight.clone());
            run_through(&sgd(), &mut route, &mut oracle, &weight, |_| (place, value))
                .map_err(|error| format!("{value} at {place:?}: {error}"))?;
        }
    }
    Ok(())
}

fn run_through(
    hyper: &Hyperparameters,
    route: &mut EngineRoute,
    oracle: &mut OracleRoute,
    weight: &[Vec<f64>],
    bad: impl Fn(usize) -> ((usize, usize), f64),
) -> Result<(), String> {
    let mut worst = Worst::default();
    let mut before = weight.to_vec();
    for (step, passes) in PASSES.into_iter().enumerate() {
        let states = route.state()?;
        let grad = |seed: u64, pass: usize| match passes[pass] {
            true => poisoned(seed + step as u64, bad(step).0, bad(step).1),
            false => model(seed + step as u64, &LENS),
        };
        let (g, g_perturbed) = (grad(100, 0), grad(200, 1));
        let perturbed = route.ascend(&g)?;
        oracle.ascend(&g)?;
        if passes[0] && bits(&perturbed) != bits(&before) {
            return Err(format!("step {step}: a non-finite g perturbed the weights"));
        }
        let after = route.descend(0.01, &g_perturbed)?;
        let want = oracle.descend(0.01, &g_perturbed)?;
        let outcome = hyper.non_finite.outcome(false, !passes[0], !passes[1]);
        if outcome == Outcome::Skipped {
            if bits(&after) != bits(&before) || all_bits(&route.state()?) != all_bits(&states) {
                return Err(format!("step {step} was not skipped"));
            }
        } else {
            compare(step, "weight", &after, &want, tolerance(hyper), &mut worst)?;
            for (got, want) in route.state()?.iter().zip(&oracle.state()?) {
                compare(step, "state", got, want, tolerance(hyper), &mut worst)?;
            }
        }
        before = after;
    }
    Ok(())
}

/// In lean mode a non-finite `g` skips the step. A non-finite `g~` leaves the weights at the point where the second
/// pass ran, with the state advanced by `g`.
pub(crate) fn lean(gpu: &Gpu) -> Result<(), String> {
    let engine = engine_of_few_frames(gpu)?;
    let weight = model(1, &LENS);
    let unperturbed = Group { perturbed: false, ..Group::default() };
    let groups = LENS.map(|len| usize::from(len == 3));
    for base in [sgd(), sgd_momentum(), adamw()] {
        for (tracked, clip) in
            [(false, None), (true, Some(Clip { max_norm: 0.5, scope: ClipScope::Both }))]
        {
            let hyper = Hyperparameters { groups: vec![unperturbed], clip, ..base.clone() };
            let route = LeanRoute::new(&engine, hyper.clone(), 0.01, &weight);
            let mut route = route.with_groups(&groups);
            if !tracked {
                route = route.untracked();
            }
            let mut before = weight.clone();
            let mut stepped = 0;
            for (step, passes) in PASSES.into_iter().enumerate() {
                let fail = |what: &str| Err(format!("{hyper:?}, step {step}: {what}"));
                let states = route.state()?;
                let grad = |seed: u64, pass: usize| match passes[pass] {
                    true => poisoned(seed, PLACES[step], BAD[step % 3]),
                    false => model(seed, &LENS),
                };
                let ran_on = route.ascend(&grad(100 + step as u64, 0))?;
                let after = route.descend(0.01, &grad(200 + step as u64, 1))?;
                let same_state = all_bits(&route.state()?) == all_bits(&states);
                match hyper.non_finite.outcome(true, !passes[0], !passes[1]) {
                    Outcome::Skipped if bits(&after) != bits(&before) || !same_state => {
                        return fail("was not skipped");
                    }
                    Outcome::Halfway if bits(&after) != bits(&ran_on) => {
                        return fail("did not keep the weights of the second pass");
                    }
                    // Plain SGD has no state.
                    Outcome::Halfway if same_state && !states.is_empty() => {
                        return fail("the state did not advance");
                    }
                    Outcome::Whole => {
                        stepped += 1;
                        let finite = after.iter().flatten().all(|x| x.is_finite());
                        if !finite || bits(&after) == bits(&before) {
                            return fail("was not taken");
                        }
                    }
                    _ => {}
                }
                before = after;
            }
            if stepped != 2 {
                return Err(format!("{stepped} whole steps"));
            }
        }
    }
    Ok(())
}

pub(crate) fn base_alone(gpu: &Gpu) -> Result<(), String> {
    let engine = engine_of_few_frames(gpu)?;
    let text = |error: EngineError| error.to_string();
    for clip in [None, Some(Clip { max_norm: 0.5, scope: ClipScope::Both })] {
        let hyper = Hyperparameters { clip, ..sgd_momentum() };
        for bad in BAD {
            let (weight, mut grad) = (noise(1, 259), noise(2, 259));
            grad[258] = bad;
            let narrow = burn_wsam_support::golden::narrow;
            let tensor = BaseTensor {
                weight: slice(&engine, &narrow(&weight)),
                anchor: None,
                grad: slice(&engine, &narrow(&grad)),
                state: vec![slice(&engine, &narrow(&noise(3, 259)))],
                step: 2,
                group: 0,
            };
            let both = || -> Result<_, String> {
                let [weight, state] = [&tensor.weight, &tensor.state[0]].map(|s| read(&engine, s));
                Ok((weight.map_err(text)?, state.map_err(text)?))
            };
            let before = both()?;
            let mut encoder = engine.device().create_command_encoder(&Default::default());
            let tensors = std::slice::from_ref(&tensor);
            let step = engine.base_step(&mut encoder, &hyper, 0.1, false, tensors).map_err(text)?;
            engine.queue().submit([encoder.finish()]);
            let norms = engine.read_norms(step.norms()).map_err(text)?;
            if norms.gradient_is_finite() || both()? != before {
                return Err(format!("{bad}, {clip:?}: the step was taken"));
            }
        }
    }
    Ok(())
}

/// A loss scale that is a power of two gives the same bits as no scale. Other scales match the oracle.
pub(crate) fn scaled(gpu: &Gpu) -> Result<(), String> {
    let engine = engine_of_few_frames(gpu)?;
    let weight = model(1, &LENS);
    let clip = Some(Clip { max_norm: 0.5, scope: ClipScope::Both });
    for hyper in [sgd(), Hyperparameters { clip, ..sgd_momentum() }, adamw(), amsgrad()] {
        let route = || EngineRoute::new(&engine, hyper.clone(), Placement::OutOfPlace, &weight);
        let mut plain = route();
        let mut by_two = [false, true].map(|on_device| route().scaled(65536.0, on_device));
        for step in 0..2 {
            let (g, g_perturbed) = (model(100 + step, &LENS), model(200 + step, &LENS));
            let both = |route: &mut EngineRoute| -> Result<_, String> {
                Ok((bits(&route.ascend(&g)?), bits(&route.descend(0.01, &g_perturbed)?)))
            };
            let want = both(&mut plain)?;
            for route in &mut by_two {
                if both(route)? != want {
                    return Err(format!("{hyper:?}, step {step}: the scale changes bits"));
                }
            }
        }
        for scale in [1e-6, 3.0, 1e10] {
            let mut oracle = OracleRoute::new(hyper.clone(), weight.clone());
            compare_steps(&hyper, &mut route().scaled(scale, false), &mut oracle, &LENS, 2)
                .map_err(|error| format!("scale {scale}: {error}"))?;
        }
    }
    Ok(())
}

/// A step whose scaled gradients overflow is skipped. Gradients that are tiny after unscaling are not lost.
pub(crate) fn overflow(gpu: &Gpu) -> Result<(), String> {
    let engine = engine_of_few_frames(gpu)?;
    let weight = model(1, &LENS);
    let hyper = Hyperparameters { epsilon: 1e-37, ..sgd() };
    let route = EngineRoute::new(&engine, hyper.clone(), Placement::OutOfPlace, &weight);
    let mut route = route.scaled(1e30, false).untracked();
    let grads = |scale: f64| -> Vec<Vec<f64>> {
        model(100, &LENS).iter().map(|t| t.iter().map(|x| x * scale).collect()).collect()
    };
    route.ascend(&grads(1e10))?;
    if bits(&route.descend(0.01, &grads(1e10))?) != bits(&weight) {
        return Err("a step over infinities was not skipped".into());
    }
    let mut oracle = OracleRoute::new(hyper, weight.clone());
    let (got, want) = (route.ascend(&grads(1e-30))?, oracle.ascend(&grads(1e-30))?);
    compare(0, "perturbed", &got, &want, SINGLE, &mut Worst::default())
}

pub(crate) fn refused(gpu: &Gpu) -> Result<(), String> {
    let engine = engine_of_few_frames(gpu)?;
    let values = slice(&engine, &[1.0; 8]);
    let ascent = AscentTensor {
        weight: values.clone(),
        grad: slice(&engine, &[1.0; 8]),
        partner: Some(slice(&engine, &[0.0; 8])),
        group: 0,
    };
    let usage = wgpu::BufferUsages::STORAGE;
    let descriptor =
        wgpu::BufferDescriptor { label: None, size: 4, usage, mapped_at_creation: false };
    let no_copy = engine.device().create_buffer(&descriptor);
    let scales = [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-60, 1e60].map(InvScale::Host);
    for inv_scale in scales.into_iter().chain([InvScale::Device(&no_copy)]) {
        let mut encoder = engine.device().create_command_encoder(&Default::default());
        let options = AscentOptions { inv_scale, ..Default::default() };
        let tensors = std::slice::from_ref(&ascent);
        let found = engine.ascent(&mut encoder, &sgd(), options, tensors).map(|_| ());
        let base = BaseTensor {
            weight: values.clone(),
            anchor: None,
            grad: ascent.grad.clone(),
            state: Vec::new(),
            step: 1,
            group: 0,
        };
        let options = GradientOptions { inv_scale, ..Default::default() };
        let also = engine.base_step(&mut encoder, &sgd(), 0.1, options, &[base]).map(|_| ());
        for found in [found, also] {
            match (inv_scale, found) {
                (InvScale::Host(_), Err(EngineError::Hyperparameter(error)))
                    if error.name == "inv_scale" => {}
                (InvScale::Device(_), Err(EngineError::ScaleBuffer { size: 4, .. })) => {}
                (_, found) => return Err(format!("{inv_scale:?}: {found:?}")),
            }
        }
    }
    // A buffer with the usage COPY_SRC is accepted.
    let held = buffer(&engine, &[0.5]);
    let mut encoder = engine.device().create_command_encoder(&Default::default());
    let options = AscentOptions { inv_scale: InvScale::Device(&held), ..Default::default() };
    let taken = engine.ascent(&mut encoder, &sgd(), options, &[ascent]);
    taken.map(|_| ()).map_err(|error| error.to_string())
}
