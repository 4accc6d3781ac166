//! Drives an implementation of the step over a golden file and compares every number.

use std::fmt;

use burn_wsam::method::Hyperparameters;
use burn_wsam::reference::Oracle;

use super::bound::{Bound, Num};
use super::golden::{Golden, Tensors};

/// One implementation of the step, holding its weights and state.
pub trait Route {
    /// Takes `g`, returns `w + e_w`.
    fn ascend(&mut self, grad: &[Vec<f64>]) -> Result<Tensors, String>;
    /// Takes `g~`, returns the new weights.
    fn descend(&mut self, lr: f64, grad_perturbed: &[Vec<f64>]) -> Result<Tensors, String>;
    /// The state tensors, outer index in the order of `base.state_names()`.
    fn state(&mut self) -> Result<Vec<Tensors>, String>;
}

/// The oracle as a route.
pub struct OracleRoute(pub Oracle);

impl OracleRoute {
    pub fn new(hyper: Hyperparameters, weights: Tensors) -> Self {
        Self(Oracle::new(hyper, weights))
    }
}

impl Route for OracleRoute {
    fn ascend(&mut self, grad: &[Vec<f64>]) -> Result<Tensors, String> {
        self.0.ascent(grad).map_err(|e| e.to_string())
    }

    fn descend(&mut self, lr: f64, grad_perturbed: &[Vec<f64>]) -> Result<Tensors, String> {
        self.0.descent(lr, grad_perturbed).map_err(|e| e.to_string())?;
        Ok(self.0.weights().to_vec())
    }

    fn state(&mut self) -> Result<Vec<Tensors>, String> {
        Ok(self.0.state().to_vec())
    }
}

/// An element passes if `|got - want| <= floor + rtol * |want|`, which no NaN does.
///
/// `floor` is `min(atol, share * largest |want|)`, over the tensors of the compared quantity at
/// that step: a fixed floor would accept any momentum of a tiny gradient and any second moment.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    pub rtol: f64,
    pub atol: f64,
    pub share: f64,
}

impl Tolerance {
    /// f32 against f64, with gradients of order 1 at most; golden files have a
    /// [bound](super::bound) of their own for each element.
    pub const SINGLE: Self = Self { rtol: 2e-5, atol: 1e-7, share: 4e-6 };

    /// f64 against f64. The recorded weights were restored by subtracting `e_w`, which leaves an error of an
    /// ulp of `|w + e_w|` a step however small the weight; hence a floor of a few ulp of 1.
    pub const DOUBLE: Self = Self { rtol: 1e-12, atol: 1e-15, share: 1e-15 };

    /// What is allowed of a quantity's elements however small they are.
    pub fn floor(&self, want: &[Vec<f64>]) -> f64 {
        let largest = want.iter().flatten().fold(0.0_f64, |largest, x| largest.max(x.abs()));
        self.atol.min(self.share * largest)
    }
}

/// One compared element.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub step: usize,
    /// `perturbed`, `weight` or the name of a state.
    pub what: &'static str,
    pub tensor: usize,
    pub element: usize,
    pub got: f64,
    pub want: f64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, what, tensor, element, got, want } = self;
        write!(f, "step {step}, {what}, tensor {tensor}, element {element}: {got:e} for {want:e}")
    }
}

/// The largest error among the elements that passed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Worst {
    /// Error as a share of what the tolerance allows.
    pub score: f64,
    /// Error over `|want|`.
    pub relative: f64,
    /// Where `score` was seen; none if every element was equal.
    pub place: Option<Place>,
}

/// Replays every step through `route`, which must hold `golden.weight`.
///
/// # Errors
///
/// The first element out of tolerance, a count that differs, or the route's own error.
pub fn replay(
    golden: &Golden,
    route: &mut dyn Route,
    tolerance: Tolerance,
) -> Result<Worst, String> {
    let compare_all = |quantity: Quantity<'_>, worst: &mut Worst| {
        let Quantity { step, what, got, want, .. } = quantity;
        compare(step, what, got, want, tolerance, worst)
    };
    replay_by(golden, route, compare_all)
}

/// Replays every step through a route in `f32`: each element may be as far from the file as the roundings of
/// its own sums allow ([`Bound`]).
///
/// # Errors
///
/// As for [`replay`].
pub fn replay_rounded(golden: &Golden, route: &mut dyn Route) -> Result<Worst, String> {
    let compare_all = |quantity: Quantity<'_>, worst: &mut Worst| {
        let Quantity { step, what, got, want, bound } = quantity;
        let floor = Tolerance::DOUBLE.floor(want);
        let allowed = |tensor: usize, element: usize, want: f64| {
            let Num { exact, error } = bound[tensor][element];
            // With the file's own roundings.
            let allowed = error + floor + Tolerance::DOUBLE.rtol * want.abs();
            // A file that is wrong in itself allows nothing.
            if (exact - want).abs() <= allowed { allowed } else { 0.0 }
        };
        compare_within(step, what, got, want, allowed, worst)
    };
    replay_by(golden, route, compare_all)
}

/// One quantity of one step: what a route gave, what the file has, and that again with the error that
/// rounding may have made.
#[derive(Clone, Copy)]
struct Quantity<'a> {
    step: usize,
    what: &'static str,
    got: &'a [Vec<f64>],
    want: &'a [Vec<f64>],
    bound: &'a [Vec<Num>],
}

fn replay_by(
    golden: &Golden,
    route: &mut dyn Route,
    compare: impl Fn(Quantity<'_>, &mut Worst) -> Result<(), String>,
) -> Result<Worst, String> {
    let mut worst = Worst::default();
    replay_steps(golden, route, |quantity| compare(quantity, &mut worst))
        .map_err(|error| format!("{}: {error}", golden.file))?;
    Ok(worst)
}

fn replay_steps(
    golden: &Golden,
    route: &mut dyn Route,
    mut compare: impl FnMut(Quantity<'_>) -> Result<(), String>,
) -> Result<(), String> {
    let names = golden.hyper.base.state_names();
    let mut bounds = Bound::new(golden);
    for (step, want) in golden.expected.iter().enumerate() {
        let at_step = |error| format!("step {step}: {error}");
        let (grad, grad_perturbed) = (&golden.grad[step], &golden.grad_perturbed[step]);
        let mut compare = |what, got: &[Vec<f64>], want: &[Vec<f64>], bound: &[Vec<Num>]| {
            compare(Quantity { step, what, got, want, bound })
        };
        let perturbed = route.ascend(grad).map_err(at_step)?;
        compare("perturbed", &perturbed, &want.perturbed, &bounds.ascend(grad))?;
        let weight = route.descend(golden.lr, grad_perturbed).map_err(at_step)?;
        bounds.descend(golden.lr, grad, grad_perturbed);
        compare("weight", &weight, &want.weight, bounds.weights())?;
        let state = route.state().map_err(at_step)?;
        if state.len() != names.len() {
            return Err(at_step(format!("{} states for {names:?}", state.len())));
        }
        let wanted = want.state.iter().zip(bounds.state());
        for ((name, got), (want, bound)) in names.iter().zip(&state).zip(wanted) {
            compare(name, got, want, bound)?;
        }
    }
    Ok(())
}

/// Compares one quantity of one step, and remembers the worst element.
///
/// # Errors
///
/// The first element out of tolerance, or lengths that differ.
pub fn compare(
    step: usize,
    what: &'static str,
    got: &[Vec<f64>],
    want: &[Vec<f64>],
    tolerance: Tolerance,
    worst: &mut Worst,
) -> Result<(), String> {
    let floor = tolerance.floor(want);
    let allowed = |_, _, want: f64| floor + tolerance.rtol * want.abs();
    compare_within(step, what, got, want, allowed, worst)
}

/// As [`compare`], with what is allowed at each tensor and element for the value there.
fn compare_within(
    step: usize,
    what: &'static str,
    got: &[Vec<f64>],
    want: &[Vec<f64>],
    allowed: impl Fn(usize, usize, f64) -> f64,
    worst: &mut Worst,
) -> Result<(), String> {
    let lens = |tensors: &[Vec<f64>]| tensors.iter().map(Vec::len).collect::<Vec<_>>();
    if lens(got) != lens(want) {
        let (got, want) = (lens(got), lens(want));
        return Err(format!("step {step}, {what}: lengths {got:?} for {want:?}"));
    }
    for (tensor, (got, want)) in got.iter().zip(want).enumerate() {
        for (element, (&got, &want)) in got.iter().zip(want).enumerate() {
            let place = Place { step, what, tensor, element, got, want };
            let error = (got - want).abs();
            let allowed = allowed(tensor, element, want);
            // Written so that a NaN on either side fails.
            let passes = error <= allowed;
            if !passes {
                return Err(format!("{place} (error {error:e}, allowed {allowed:e})"));
            }
            if error > 0.0 {
                worst.relative = worst.relative.max(error / want.abs());
                if error / allowed > worst.score {
                    worst.score = error / allowed;
                    worst.place = Some(place);
                }
            }
        }
    }
    Ok(())
}
