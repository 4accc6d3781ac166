//! The engine on every adapter: against the oracle on awkward shapes, against itself bit for bit,
//! and against callers' mistakes.

mod common;

#[path = "engine/faults.rs"]
mod faults;
#[path = "engine/groups.rs"]
mod groups;
#[path = "engine/half_precision.rs"]
mod half_precision;
#[path = "engine/layouts.rs"]
mod layouts;
#[path = "engine/limits.rs"]
mod limits;
#[path = "engine/loops.rs"]
mod loops;
#[path = "engine/non_finite.rs"]
mod non_finite;
#[path = "engine/overflows.rs"]
mod overflows;
#[path = "engine/prepared.rs"]
mod prepared;
#[path = "engine/processes.rs"]
mod processes;
#[path = "engine/properties.rs"]
mod properties;
#[path = "engine/refusals.rs"]
mod refusals;
#[path = "engine/shapes.rs"]
mod shapes;
#[path = "engine/stats.rs"]
mod stats;

use burn_wsam::engine::{Engine, GradientOptions, Placement};
use burn_wsam::method::{Base, Coupling, Hyperparameters, Moments, Momentum, NonFinite};
use common::gpu::{Test, run, trials};
use common::raw::{EngineRoute, Placed, changed, propagating, replaced};
use common::replay::{OracleRoute, Route, Tolerance, Worst, compare};
use std::sync::Arc;

fn main() {
    let tests: &[(&str, Test)] = &[
        ("lengths", shapes::lengths),
        ("a long tensor", shapes::long_tensor),
        ("many tensors", shapes::many_tensors),
        ("nothing to do", shapes::nothing_to_do),
        ("zero gradients", shapes::zero_gradients),
        ("extreme gradients", shapes::extreme_gradients),
        ("a billion elements", shapes::a_billion_elements),
        ("a non-finite gradient shows", shapes::non_finite_gradients_show),
        ("any step", properties::any_step),
        ("any step with groups", properties::any_groups),
        ("groups beside the oracle", groups::beside_oracle),
        ("a rate for each tensor", groups::rates),
        ("more kinds than a page holds", groups::many_kinds),
        ("groups cost no dispatches", groups::counts),
        ("refused groups", groups::refused),
        ("one buffer, any offset, tails untouched", layouts::one_buffer),
        ("own buffers, tails untouched", layouts::own_buffers),
        ("placements agree bit for bit", layouts::placements_agree),
        ("a step repeats bit for bit", layouts::repeats),
        ("anchor restores exactly", layouts::anchor_is_exact),
        ("windows over large buffers", limits::windows),
        ("two-dimensional grids", limits::grids),
        ("WebGPU's default limits", limits::webgpu_defaults),
        ("a device that grants too little", limits::too_little),
        ("tunings", limits::tunings),
        ("tunings whose loops are too long", loops::refused),
        ("the longest chunks", loops::longest_chunks),
        ("more partial sums than one finish takes", loops::many_partials),
        ("a device of few bytes", limits::few_bytes),
        ("a norm beyond f32", overflows::norms),
        ("a blend by its difference", refusals::difference),
        ("refused slices", refusals::slices),
        ("refused numbers", refusals::numbers),
        ("refused blends", refusals::blends),
        ("a blend from the device", refusals::device_blend),
        ("counts", stats::counts),
        ("norms in one dispatch", stats::norms_in_one_dispatch),
        ("prepared steps", prepared::same_bits),
        ("prepared steps, refused", prepared::refused),
        ("prepared steps in constant time", prepared::constant_time),
        ("a step that is not finite", non_finite::skipped),
        ("a step that is not finite, lean", non_finite::lean),
        ("a base step that is not finite", non_finite::base_alone),
        ("a loss scale", non_finite::scaled),
        ("a loss that overflows its scale", non_finite::overflow),
        ("refused scales", non_finite::refused),
        ("half precision, every number", half_precision::every_half),
        ("half precision, every rounding", half_precision::every_rounding),
        ("half precision beside the oracle", half_precision::beside_oracle),
        ("half precision beside single", half_precision::mixed),
        ("half precision by chance", half_precision::by_chance),
        ("half precision, a step that is not finite", half_precision::skipped),
        ("half precision, counts", half_precision::counts),
        ("half precision, refused", half_precision::refused),
        ("a lost device", faults::lost),
        ("buffers of another device", faults::foreign),
        ("no memory", faults::no_memory),
    ];
    let mut trials = trials(tests);
    trials.extend(common::gpu::adapters().iter().map(faults::no_memory_at_all));
    trials.push(processes::trial());
    if processes::is_child() {
        return processes::print();
    }
    run(trials);
}

/// f32 against f64, with gradients of order 1.
const SINGLE: Tolerance = Tolerance { rtol: 2e-5, atol: 1e-6, share: 4e-6 };

const MOMENTS: Moments =
    Moments { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-8, weight_decay: 0.01, amsgrad: false };

fn sgd() -> Hyperparameters {
    Hyperparameters::new(Base::Sgd { momentum: None, weight_decay: 0.0 })
}

fn sgd_momentum() -> Hyperparameters {
    let momentum = Momentum { momentum: 0.9, dampening: 0.1, nesterov: true };
    Hyperparameters::new(Base::Sgd { momentum: Some(momentum), weight_decay: 1e-3 })
}

fn adamw() -> Hyperparameters {
    Hyperparameters::new(Base::AdamW(MOMENTS))
}

fn amsgrad() -> Hyperparameters {
    Hyperparameters {
        adaptive: true,
        coupling: Coupling::Coupled,
        ..Hyperparameters::new(Base::Adam(Moments { amsgrad: true, ..MOMENTS }))
    }
}

/// Repeatable noise in [-1, 1), exact in f32.
fn noise(seed: u64, len: usize) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            f64::from((state >> 40) as u32) / f64::from(1 << 23) - 1.0
        })
        .collect()
}

fn model(seed: u64, lens: &[usize]) -> Vec<Vec<f64>> {
    lens.iter().zip(0..).map(|(len, i)| noise(seed + 1000 * i, *len)).collect()
}

/// Drives engine and oracle side by side.
fn against_oracle(
    engine: &Arc<Engine>,
    hyper: Hyperparameters,
    placement: Placed,
    lens: &[usize],
    steps: u64,
) -> Result<(), String> {
    let weight = model(1, lens);
    let mut route = EngineRoute::new(engine, hyper.clone(), placement, &weight);
    let mut oracle = OracleRoute::new(hyper.clone(), weight);
    side_by_side(&hyper, &mut route, &mut oracle, lens, steps)
}

/// What f32 can give where `a g + b g~` cancels: the roundings of both products and of `a` and `b`
/// remain, and with clipping the error of the norm in the clip factors, which the engine promises to
/// be below 1e-6. Gradients here are at most 1.
fn tolerance(hyper: &Hyperparameters) -> Tolerance {
    if hyper.coupling == Coupling::Decoupled {
        return SINGLE;
    }
    let blends = (0..=hyper.groups.len()).filter_map(|group| hyper.in_group(group));
    let weights = blends.map(|group| group.blend.a.abs() + group.blend.b.abs());
    let each = 4.0 * 2f64.powi(-24) + if hyper.clip.is_some() { 1e-6 } else { 0.0 };
    let atol = weights.map(|weight| weight * each).fold(SINGLE.atol, f64::max);
    // All elements of a short tensor may cancel: a share of the largest says nothing.
    Tolerance { atol, share: f64::MAX, ..SINGLE }
}

fn side_by_side(
    hyper: &Hyperparameters,
    route: &mut dyn Route,
    oracle: &mut OracleRoute,
    lens: &[usize],
    steps: u64,
) -> Result<(), String> {
    let mut worst = Worst::default();
    for step in 0..steps {
        let place = |error: String| format!("{hyper:?}, {lens:?}: {error}");
        let mut check = |what, got: &[Vec<f64>], want: &[Vec<f64>]| {
            compare(step as usize, what, got, want, tolerance(hyper), &mut worst).map_err(place)
        };
        let (grad, grad_perturbed) = (model(100 + step, lens), model(200 + step, lens));
        check("perturbed", &route.ascend(&grad)?, &oracle.ascend(&grad)?)?;
        check(
            "weight",
            &route.descend(0.01, &grad_perturbed)?,
            &oracle.descend(0.01, &grad_perturbed)?,
        )?;
        for (got, want) in route.state()?.iter().zip(&oracle.state()?) {
            check("state", got, want)?;
        }
    }
    Ok(())
}
