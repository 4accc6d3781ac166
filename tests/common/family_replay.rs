//! Drives an implementation of a method over a golden file and compares every number.

use burn_wsam::method::{Method, Passes};
use burn_wsam::reference::Oracle;

use super::family::FamilyGolden;
use super::golden::Tensors;
use super::replay::{Tolerance, Worst, compare};

/// The tolerance of a quantity. LookSAM's direction is `(g~ - c g) / ||v||`: the roundings of `g~` and `c g` stay
/// where these cancel, so its floor is some ulp of the largest element.
fn tolerance_of(what: &str, tolerance: Tolerance) -> Tolerance {
    match what {
        "direction" => {
            Tolerance { atol: 4.0 * tolerance.atol, share: 4.0 * tolerance.share, ..tolerance }
        }
        _ => tolerance,
    }
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
    let named = [golden.hyper.base.state_names(), method.state_names()];
    for (step, want) in golden.expected.iter().enumerate() {
        let at_step = |error| format!("step {step}: {error}");
        let mut compare = |what, got: &[Vec<f64>], want: &[Vec<f64>]| {
            compare(step, what, got, want, tolerance_of(what, tolerance), worst)
        };
        let (grad, grad_perturbed) = (&golden.grad[step], &golden.grad_perturbed[step]);
        let is_momentum = method == Method::MomentumSam;
        let two_passes = want.perturbed.is_some() && !is_momentum;
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
