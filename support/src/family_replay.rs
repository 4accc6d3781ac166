//! Drives an implementation of a method over a golden file and compares every number.

use burn_wsam::method::{Method, Passes};
use burn_wsam::reference::Oracle;

use super::family::FamilyGolden;
use super::golden::Tensors;
use super::replay::{Tolerance, Worst, compare};

/// The tolerance of a quantity, given the [condition](condition_of) of LookSAM's directions so far. All floors grow by
/// the condition, and that of a direction by four, for the roundings of its sums.
fn tolerance_of(what: &str, condition: f64, tolerance: Tolerance) -> Tolerance {
    let factor = condition * if what == "direction" { 4.0 } else { 1.0 };
    Tolerance { atol: factor * tolerance.atol, share: factor * tolerance.share, ..tolerance }
}

/// By how much LookSAM's difference `v = g~ - c g` magnifies the roundings of its terms: their largest elements over
/// that of `v`. The file has these roundings in it, as has every route.
fn condition_of(grad: &[Vec<f64>], grad_perturbed: &[Vec<f64>]) -> f64 {
    let pairs = || grad.iter().flatten().zip(grad_perturbed.iter().flatten());
    let product = |f: fn(f64, f64) -> f64| pairs().map(|(g, p)| f(*g, *p)).sum::<f64>();
    let along = product(|g, p| g * p) / product(|g, _| g * g);
    let largest = |f: &dyn Fn(f64, f64) -> f64| pairs().fold(0.0_f64, |m, (g, p)| m.max(f(*g, *p)));
    let terms = largest(&|g, p| p.abs() + (along * g).abs());
    let condition = terms / largest(&|g, p| (p - along * g).abs());
    if condition.is_finite() { condition.max(1.0) } else { 1.0 }
}

/// One implementation of the methods, holding its weights and state.
pub trait FamilyRoute {
    /// How many gradients the next step takes.
    fn passes(&mut self) -> Passes;
    /// The weights at which the next step's first gradient is taken.
    fn gradient_point(&mut self) -> Result<Tensors, String>;
    /// Takes `g`, returns `w + e_w`.
    fn ascend(&mut self, grad: &[Vec<f64>]) -> Result<Tensors, String>;
    /// Takes `g~`, returns the new weights.
    fn descend(&mut self, lr: f64, grad_perturbed: &[Vec<f64>]) -> Result<Tensors, String>;
    /// Takes the only gradient of a step of one pass, returns the new weights.
    fn one_pass(&mut self, lr: f64, grad: &[Vec<f64>]) -> Result<Tensors, String>;
    /// The base optimizer's state tensors, outer index in the order of `base.state_names()`.
    fn state(&mut self) -> Result<Vec<Tensors>, String>;
    /// The method's state tensors, outer index in the order of `method.state_names()`.
    fn method_state(&mut self) -> Result<Vec<Tensors>, String>;
}

impl FamilyRoute for Oracle {
    fn passes(&mut self) -> Passes {
        Oracle::passes(self)
    }

    fn gradient_point(&mut self) -> Result<Tensors, String> {
        Ok(Oracle::gradient_point(self))
    }

    fn ascend(&mut self, grad: &[Vec<f64>]) -> Result<Tensors, String> {
        self.ascent(grad).map_err(|e| e.to_string())
    }

    fn descend(&mut self, lr: f64, grad_perturbed: &[Vec<f64>]) -> Result<Tensors, String> {
        self.descent(lr, grad_perturbed).map_err(|e| e.to_string())?;
        Ok(self.weights().to_vec())
    }

    fn one_pass(&mut self, lr: f64, grad: &[Vec<f64>]) -> Result<Tensors, String> {
        self.one_pass_step(lr, grad).map_err(|e| e.to_string())?;
        Ok(self.weights().to_vec())
    }

    fn state(&mut self) -> Result<Vec<Tensors>, String> {
        Ok(Oracle::state(self).to_vec())
    }

    fn method_state(&mut self) -> Result<Vec<Tensors>, String> {
        Ok(Oracle::method_state(self).to_vec())
    }
}

/// The oracle at the start of a file.
pub fn oracle(golden: &FamilyGolden) -> Oracle {
    Oracle::new(golden.hyper.clone(), golden.weight.clone())
}

/// Replays every step through `route`, which must hold `golden.weight`.
///
/// # Errors
///
/// The first element out of tolerance, a count that differs, a step of another number of passes, or the route's
/// own error.
pub fn replay_family(
    golden: &FamilyGolden,
    route: &mut dyn FamilyRoute,
    tolerance: Tolerance,
) -> Result<Worst, String> {
    let mut worst = Worst::default();
    replay_steps(golden, route, tolerance, &mut worst)
        .map_err(|error| format!("{}: {error}", golden.file))?;
    Ok(worst)
}

fn replay_steps(
    golden: &FamilyGolden,
    route: &mut dyn FamilyRoute,
    tolerance: Tolerance,
    worst: &mut Worst,
) -> Result<(), String> {
    let method = golden.hyper.method;
    let mut condition = 1.0_f64;
    let named = [golden.hyper.base.state_names(), method.state_names()];
    for (step, want) in golden.expected.iter().enumerate() {
        let at_step = |error| format!("step {step}: {error}");
        let (grad, grad_perturbed) = (&golden.grad[step], &golden.grad_perturbed[step]);
        let is_momentum = method == Method::MomentumSam;
        let two_passes = want.perturbed.is_some() && !is_momentum;
        if let (true, Method::LookSam { .. }, Some(p)) = (two_passes, method, grad_perturbed) {
            condition = condition.max(condition_of(grad, p));
        }
        let mut compare = |what, got: &[Vec<f64>], want: &[Vec<f64>]| {
            compare(step, what, got, want, tolerance_of(what, condition, tolerance), worst)
        };
        let passes = if two_passes { Passes::Two } else { Passes::One };
        if route.passes() != passes {
            return Err(at_step(format!("{:?} for {passes:?} passes", route.passes())));
        }
        let weight = match (&want.perturbed, grad_perturbed) {
            (Some(perturbed), Some(grad_perturbed)) if two_passes => {
                compare("perturbed", &route.ascend(grad).map_err(at_step)?, perturbed)?;
                route.descend(golden.lr, grad_perturbed)
            }
            _ if two_passes => return Err(at_step("no grad_perturbed".into())),
            (perturbed, _) => {
                if let (true, Some(perturbed)) = (is_momentum, perturbed) {
                    compare("perturbed", &route.gradient_point().map_err(at_step)?, perturbed)?;
                }
                route.one_pass(golden.lr, grad)
            }
        };
        compare("weight", &weight.map_err(at_step)?, &want.weight)?;
        let got = [route.state().map_err(at_step)?, route.method_state().map_err(at_step)?];
        for ((names, got), want) in named.iter().zip(&got).zip([&want.state, &want.method_state]) {
            if got.len() != names.len() {
                return Err(at_step(format!("{} states for {names:?}", got.len())));
            }
            for ((name, got), want) in names.iter().zip(got).zip(want) {
                compare(name, got, want)?;
            }
        }
    }
    Ok(())
}
