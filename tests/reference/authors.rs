//! The toy example in the authors' own arithmetic, to the last bit.
//!
//! Near a minimum most runs are chaotic, so an oracle that restores `w` exactly cannot follow
//! paths whose weights were restored by subtraction. This module repeats the recorded arithmetic
//! (PyTorch in f64 under the authors' wrapper, with its fused multiplications, its order of sums and its
//! subtraction that restores `w`) and shows that the oracle and the paths differ only by rounding.

use burn_wsam::method::Coupling;
use burn_wsam_support::golden::{self, Toy, ToyRun};
use burn_wsam_support::toy::distance;

/// Gradient of the example's loss, summed in autograd's order.
fn gradient([mu, sigma]: [f64; 2]) -> [f64; 2] {
    // share, temperature, mu_i, s_i
    let basins = [(0.7, 1.8 * 1.8, 20.0, 30.0_f64), (0.3, 1.2 * 1.2, -20.0, 10.0)];
    let exponentials = basins.map(|(_, temperature, center, spread)| {
        let offset = mu - center;
        let divergence = (spread / sigma).ln()
            + (sigma * sigma + offset * offset) / (2.0 * spread * spread)
            - 0.5;
        (-divergence / temperature).exp()
    });
    let total = basins[0].0 * exponentials[0] + basins[1].0 * exponentials[1];
    let (mut by_mu, mut by_sigma) = (0.0, 0.0);
    for ((share, temperature, center, spread), exponential) in
        basins.into_iter().zip(exponentials).rev()
    {
        let by_divergence = -(-1.0 / total * share * exponential / temperature);
        let by_square = by_divergence / (2.0 * spread * spread);
        let ratio = spread / sigma;
        by_mu += by_square * (2.0 * (mu - center));
        by_sigma = by_sigma + by_square * sigma + by_square * sigma
            - by_divergence / ratio * (ratio / sigma);
    }
    [by_mu, by_sigma]
}

fn path(toy: &Toy, run: &ToyRun) -> Vec<[f64; 2]> {
    let alpha = run.gamma / (1.0 - run.gamma);
    let decoupled = run.coupling == Coupling::Decoupled;
    let (mut point, mut momentum) = (toy.start, None);
    let mut path = vec![point];
    for _ in 1..run.path.len() {
        let g = gradient(point);
        let scale = toy.rho / (g[1].mul_add(g[1], g[0] * g[0]).sqrt() + 1e-12);
        let e = g.map(|g| g * scale);
        let perturbed = [point[0] + e[0], point[1] + e[1]];
        let p = gradient(perturbed);
        let mut buffer = [0.0; 2];
        for i in 0..2 {
            let h = if decoupled { g[i] } else { (1.0 - alpha).mul_add(g[i], alpha * p[i]) };
            buffer[i] = momentum.map_or(h, |old: [f64; 2]| toy.momentum * old[i] + h);
            let restored = perturbed[i] - e[i];
            point[i] = (-toy.lr).mul_add(buffer[i], restored);
            if decoupled {
                point[i] = (-toy.lr * alpha).mul_add(p[i] - g[i], point[i]);
            }
        }
        momentum = Some(buffer);
        path.push(point);
    }
    path
}

/// Checks all 151 points of every path. Two runs magnify one ulp of `exp`, which differs between mathematical
/// libraries, to 2e-6.
#[test]
fn recorded_paths_differ_from_the_formulas_by_rounding() {
    let (_, toys) = golden::load().unwrap();
    for toy in &toys {
        for run in &toy.runs {
            let magnified = [0.8, 0.9].contains(&run.gamma) && run.coupling == Coupling::Coupled;
            let allowed = if magnified { 1e-5 } else { 1e-9 };
            for (step, (got, want)) in path(toy, run).iter().zip(&run.path).enumerate() {
                let error = distance(*got, *want);
                assert!(
                    error <= allowed,
                    "{}: gamma {} {:?}, step {step}: {got:?}, expected {want:?}",
                    toy.file,
                    run.gamma,
                    run.coupling
                );
            }
        }
    }
}
