//! Tests of the engine on every adapter: against the oracle on awkward shapes, bit for bit against
//! itself, and with invalid calls.

mod faults;
mod groups;
mod half_precision;
mod layouts;
mod limits;
mod loops;
mod non_finite;
mod overflows;
mod prepared;
mod processes;
mod properties;
mod refusals;
mod relatives;
mod relatives_calls;
mod relatives_edges;
mod shapes;
mod stats;

use burn_wsam::engine::{Engine, GradientOptions, Placement};
use burn_wsam::method::{Base, Coupling, Hyperparameters, Moments, Momentum, NonFinite};
use burn_wsam_support::engine_route::{EngineRoute, Placed, changed, propagating, replaced};
use burn_wsam_support::gpu::{Test, run, trials};
use burn_wsam_support::replay::{OracleRoute, Route, Tolerance, Worst, compare};
use std::sync::Arc;

fn main() {
    let tests: &[(&str, Test)] = &[
        ("lengths", shapes::lengths),
        ("a long tensor", shapes::long_tensor),
        ("many tensors", shapes::many_tensors),
        ("no elements", shapes::no_elements),
        ("zero gradients", shapes::zero_gradients),
        ("extreme gradients", shapes::extreme_gradients),
        ("a billion elements", shapes::a_billion_elements),
        ("non-finite gradients propagate", shapes::non_finite_gradients_propagate),
        ("random steps", properties::any_step),
        ("random steps with groups", properties::any_groups),
        ("parameter groups match the oracle", groups::match_oracle),
        ("a learning rate for each tensor", groups::rates),
        ("more kinds than a page holds", groups::many_kinds),
        ("groups add no dispatches", groups::counts),
        ("invalid groups", groups::refused),
        ("tensors at any offset of one buffer", layouts::one_buffer),
        ("a buffer for each role, in place", layouts::own_buffers),
        ("placements agree bit for bit", layouts::placements_agree),
        ("steps are bit-reproducible", layouts::repeats),
        ("the anchor restores exactly", layouts::anchor_is_exact),
        ("windows over large buffers", limits::windows),
        ("two-dimensional grids", limits::grids),
        ("WebGPU's default limits", limits::webgpu_defaults),
        ("limits below the engine's needs", limits::too_low),
        ("tunings", limits::tunings),
        ("tunings with too long loops", loops::refused),
        ("the longest chunks", loops::longest_chunks),
        ("more partial sums than one norm_finish adds", loops::many_partials),
        ("small buffer limits", limits::small_buffers),
        ("a gradient norm that overflows f32", overflows::norms),
        ("rounding of blends", refusals::rounding),
        ("invalid slices", refusals::slices),
        ("invalid numbers", refusals::numbers),
        ("invalid blend buffers", refusals::blends),
        ("a blend from a device buffer", refusals::device_blend),
        ("counted costs", stats::counts),
        ("norms in one dispatch", stats::norms_in_one_dispatch),
        ("prepared steps", prepared::same_bits),
        ("prepared steps, invalid", prepared::refused),
        ("prepared steps in constant time", prepared::constant_time),
        ("a non-finite step", non_finite::skipped),
        ("a non-finite lean step", non_finite::lean),
        ("a non-finite base step", non_finite::base_alone),
        ("a loss scale", non_finite::scaled),
        ("a loss that overflows its scale", non_finite::overflow),
        ("invalid loss scales", non_finite::refused),
        ("half precision, every value", half_precision::every_value),
        ("half precision, every rounding", half_precision::every_rounding),
        ("half precision matches the oracle", half_precision::match_oracle),
        ("half and single precision in one step", half_precision::mixed),
        ("stochastic rounding", half_precision::stochastic_rounding),
        ("half precision, a non-finite step", half_precision::skipped),
        ("half precision, counted costs", half_precision::counts),
        ("half precision, invalid slices", half_precision::refused),
        ("relatives match the oracle", relatives::match_oracle),
        ("relatives in half precision", relatives::half_precision),
        ("relatives, non-finite steps", relatives_edges::skipped),
        ("relatives, extreme gradients", relatives_edges::extreme),
        ("relatives, the longest chunks", relatives_edges::longest_chunks),
        ("relatives, zero gradients", relatives_edges::zeros),
        ("limits of the relatives", relatives_edges::limits),
        ("relatives, counted costs", relatives_calls::counts),
        ("relatives, gradients for external optimizers", relatives_calls::mixes),
        ("relatives, invalid calls", relatives_calls::refused),
        ("a lost device", faults::lost),
        ("buffers of another device", faults::foreign),
        ("a chunk table above the buffer limit", faults::no_memory),
    ];
    let mut trials = trials(tests);
    trials.extend(burn_wsam_support::gpu::adapters().iter().map(faults::no_memory_at_all));
    trials.push(processes::trial());
    if processes::is_child() {
        return processes::print();
    }
    run(trials);
}

/// Tolerance of f32 against f64, with gradients of order 1.
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

/// Runs engine and oracle on the same gradients and compares them.
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
    compare_steps(&hyper, &mut route, &mut oracle, lens, steps)
}

/// Tolerance for weights. Where `a g + b g~` cancels, the rounding errors of both products and of `a` and
/// `b` remain, and with clipping the norm's error in the clip factors, for which the engine guarantees
/// 1e-6. Gradients here are at most 1.
fn tolerance(hyper: &Hyperparameters) -> Tolerance {
    if hyper.coupling == Coupling::Decoupled {
        return SINGLE;
    }
    let blends = (0..=hyper.groups.len()).filter_map(|group| hyper.in_group(group));
    let weights = blends.map(|group| group.blend.a.abs() + group.blend.b.abs());
    let each = 4.0 * 2f64.powi(-24) + if hyper.clip.is_some() { 1e-6 } else { 0.0 };
    let atol = weights.map(|weight| weight * each).fold(SINGLE.atol, f64::max);
    // All elements of a short tensor may cancel, so a share of the largest element is no bound.
    Tolerance { atol, share: f64::MAX, ..SINGLE }
}

fn compare_steps(
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
