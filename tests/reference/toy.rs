//! The oracle on the recorded two-basin runs.

use burn_wsam::method::Coupling;
use burn_wsam::reference::Oracle;

use burn_wsam_support::golden::{self, Toy, ToyRun};
use burn_wsam_support::replay::OracleRoute;
use burn_wsam_support::toy::{FLAT, SHARP, distance, toy_loss_grad, toy_path};

fn toys() -> Vec<Toy> {
    let (_, toys) = golden::load().unwrap();
    // A user's folder may have no toy runs.
    let is_custom = std::env::var_os("WSAM_GOLDEN_DIR").is_some();
    assert!(is_custom || !toys.is_empty(), "no toy runs in {}", golden::folder().display());
    toys
}

fn label(run: &ToyRun) -> String {
    format!("gamma {} {:?}", run.gamma, run.coupling)
}

/// Takes each step from the recorded point, because a free run magnifies its rounding errors. The recorded
/// run's momentum is its last move minus the sharpness part, divided by `-lr`.
#[test]
fn every_recorded_step_is_reproduced() {
    for toy in toys() {
        for run in &toy.runs {
            let mut worst = 0.0_f64;
            let mut momentum = [0.0; 2];
            for (t, pair) in run.path.windows(2).enumerate() {
                let (from, to) = (pair[0], pair[1]);
                // A new oracle has no momentum, and the step is linear in it.
                let (fresh, sharpness) = one_step(&toy, run, from);
                let carried = |i: usize| toy.lr * toy.momentum * momentum[i];
                let got = [fresh[0] - carried(0), fresh[1] - carried(1)];
                let error = distance(got, to);
                assert!(error <= 1e-9, "{}: step {t}: {got:?}, expected {to:?}", label(run));
                worst = worst.max(error);
                momentum = [0, 1].map(|i| (from[i] - to[i]) / toy.lr - sharpness[i]);
            }
            let [mu, sigma] = *run.path.last().unwrap();
            let loss_error = (toy_loss_grad(mu, sigma).0 - run.final_loss).abs();
            assert!(loss_error <= 1e-12, "{}: final loss off by {loss_error:e}", label(run));
            println!("{}: worst step {worst:.1e}, final loss {loss_error:.1e}", label(run));
        }
    }
}

/// The point after a first step, and `alpha (g~ - g)` in the decoupled form, where it does not enter the momentum.
fn one_step(toy: &Toy, run: &ToyRun, from: [f64; 2]) -> ([f64; 2], [f64; 2]) {
    let mut oracle = Oracle::new(toy.hyper(run), vec![from.to_vec()]);
    let (_, g) = toy_loss_grad(from[0], from[1]);
    let perturbed = oracle.ascent(&[g.to_vec()]).unwrap();
    let (_, p) = toy_loss_grad(perturbed[0][0], perturbed[0][1]);
    oracle.descent(toy.lr, &[p.to_vec()]).unwrap();
    let alpha = match run.coupling {
        Coupling::Coupled => 0.0,
        Coupling::Decoupled => toy.hyper(run).blend().sharpness,
    };
    let w = &oracle.weights()[0];
    ([w[0], w[1]], [0, 1].map(|i| alpha * (p[i] - g[i])))
}

/// Free runs match to 1e-9 for 50 steps. Later they are chaotic, and only the recording's own arithmetic gives its
/// path: with the decoupled gamma 0.95, a start moved by 1e-13 ends in other digits.
#[test]
fn recorded_paths_are_followed_for_50_steps() {
    for toy in toys() {
        for run in &toy.runs {
            let path = free_run(&toy, run);
            let errors: Vec<f64> =
                path.iter().zip(&run.path).map(|(got, want)| distance(*got, *want)).collect();
            let worst = errors.iter().copied().fold(0.0, f64::max);
            let followed = errors.iter().take_while(|error| **error <= 1e-9).count();
            println!("{}: {followed} points within 1e-9, worst {worst:.1e}", label(run));
            assert!(followed >= errors.len().min(51), "{}: {errors:?}", label(run));
        }
    }
}

fn free_run(toy: &Toy, run: &ToyRun) -> Vec<[f64; 2]> {
    let mut route = OracleRoute::new(toy.hyper(run), vec![toy.start.to_vec()]);
    toy_path(toy, run.path.len() - 1, &mut route).unwrap()
}

/// The paper's claim. Runs that were recorded as ending between the basins are not checked.
#[test]
fn free_runs_end_in_the_recorded_basin() {
    for toy in toys() {
        for run in &toy.runs {
            let recorded = *run.path.last().unwrap();
            let end = *free_run(&toy, run).last().unwrap();
            for (name, basin) in [("sharp", SHARP), ("flat", FLAT)] {
                if distance(recorded, basin) < 1.0 {
                    println!("{}: {name}, {end:?}", label(run));
                    assert!(distance(end, basin) < 1.0, "{}: ends at {end:?}", label(run));
                }
            }
        }
    }
}

#[test]
fn gradient_is_the_slope_of_the_loss() {
    let d = 1e-4;
    let slope = |ahead: [f64; 2], behind: [f64; 2]| {
        (toy_loss_grad(ahead[0], ahead[1]).0 - toy_loss_grad(behind[0], behind[1]).0) / (2.0 * d)
    };
    for [mu, sigma] in [[-6.0, 10.0], SHARP, FLAT, [0.4, 22.5]] {
        let want =
            [slope([mu + d, sigma], [mu - d, sigma]), slope([mu, sigma + d], [mu, sigma - d])];
        let (_, got) = toy_loss_grad(mu, sigma);
        assert!(distance(got, want) < 1e-9, "{got:?}, expected {want:?}");
    }
}
