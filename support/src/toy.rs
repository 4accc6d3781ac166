//! The two-basin example of the WSAM paper, run through a [`Route`].

use super::family_replay::FamilyRoute;
use super::golden::{Tensors, Toy};
use super::replay::Route;
use burn_wsam::method::Passes;

/// The sharp minimum, `(mu, sigma)`, which has the lower loss.
pub const SHARP: [f64; 2] = [-16.80, 12.80];
/// The flat minimum.
pub const FLAT: [f64; 2] = [19.81, 29.94];

/// Returns loss and gradient: `L = -log(0.7 exp(-K_1 / 1.8^2) + 0.3 exp(-K_2 / 1.2^2))`, where `K_i` is the
/// divergence of `N(mu, sigma^2)` from `N(mu_i, s_i^2)`.
pub fn toy_loss_grad(mu: f64, sigma: f64) -> (f64, [f64; 2]) {
    // share, temperature, mu_i, s_i
    let basins = [(0.7, 1.8 * 1.8, 20.0, 30.0_f64), (0.3, 1.2 * 1.2, -20.0, 10.0)];
    let (mut total, mut grad) = (0.0_f64, [0.0; 2]);
    for (share, temperature, center, spread) in basins {
        let variance = spread * spread;
        let offset = mu - center;
        let divergence =
            (spread / sigma).ln() + (sigma * sigma + offset * offset) / (2.0 * variance) - 0.5;
        let p = share * (-divergence / temperature).exp();
        total += p;
        grad[0] += p / temperature * offset / variance;
        grad[1] += p / temperature * (sigma / variance - 1.0 / sigma);
    }
    (-total.ln(), grad.map(|d| d / total))
}

/// Runs `steps` steps through `route`, which must hold `toy.start` as its one tensor. Returns the
/// start and the point after each step.
///
/// Most runs are chaotic near a minimum, where `g / ||g||` changes its direction: one ulp grows a million times and
/// more. Compare the first steps, or the basin in which the run ends.
///
/// # Errors
///
/// The route's errors, or a result that is not one tensor of two finite numbers.
pub fn toy_path(toy: &Toy, steps: usize, route: &mut dyn Route) -> Result<Vec<[f64; 2]>, String> {
    let mut path = vec![toy.start];
    for step in 0..steps {
        let at_step = |error| format!("{}: step {step}: {error}", toy.file);
        let grad = |[mu, sigma]: [f64; 2]| vec![toy_loss_grad(mu, sigma).1.to_vec()];
        let perturbed = route.ascend(&grad(path[step])).and_then(point).map_err(at_step)?;
        let moved = route.descend(toy.lr, &grad(perturbed)).and_then(point).map_err(at_step)?;
        path.push(moved);
    }
    Ok(path)
}

/// [`toy_path`] of a method, whose steps take one gradient or two. Returns the points, and the number of gradients.
///
/// # Errors
///
/// As [`toy_path`].
pub fn toy_method_path(
    toy: &Toy,
    steps: usize,
    route: &mut dyn FamilyRoute,
) -> Result<(Vec<[f64; 2]>, usize), String> {
    let mut path = vec![toy.start];
    let mut gradients = 0;
    let grad = |[mu, sigma]: [f64; 2]| vec![toy_loss_grad(mu, sigma).1.to_vec()];
    for step in 0..steps {
        let at_step = |error| format!("{}: step {step}: {error}", toy.file);
        let at = route.gradient_point().and_then(point).map_err(at_step)?;
        gradients += 1;
        let moved = match route.passes() {
            Passes::One => route.one_pass(toy.lr, &grad(at)),
            Passes::Two => {
                gradients += 1;
                let perturbed = route.ascend(&grad(at)).and_then(point).map_err(at_step)?;
                route.descend(toy.lr, &grad(perturbed))
            }
        };
        path.push(moved.and_then(point).map_err(at_step)?);
    }
    Ok((path, gradients))
}

/// Names the basin of a point. Two of the recorded runs end on the ridge between the basins, far from either
/// minimum.
pub fn basin(point: [f64; 2]) -> &'static str {
    let near = |minimum| distance(point, minimum) < 5.0;
    match (near(SHARP), near(FLAT)) {
        (true, _) => "sharp basin",
        (_, true) => "flat basin",
        _ => "ridge",
    }
}

/// Largest distance of a coordinate.
pub fn distance(a: [f64; 2], b: [f64; 2]) -> f64 {
    (a[0] - b[0]).abs().max((a[1] - b[1]).abs())
}

fn point(tensors: Tensors) -> Result<[f64; 2], String> {
    match tensors.as_slice() {
        [tensor] => match tensor.as_slice() {
            [mu, sigma] if mu.is_finite() && sigma.is_finite() => Ok([*mu, *sigma]),
            _ => Err(format!("{tensor:?} is not two finite numbers")),
        },
        _ => Err(format!("{} tensors, not 1", tensors.len())),
    }
}
