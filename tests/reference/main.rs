//! Tests of the oracle against the golden files and known limits, and of the comparison that all other
//! implementations use, with deliberate faults.

// A panic reports a test's failure.
#![allow(clippy::unwrap_used)]

// One test binary for all modules, because each binary links Burn.
mod authors;
mod base;
mod family;
mod groups;
mod limits;
mod replaying;
mod toy;

use burn_wsam::method::{Base, Hyperparameters, Moments, Momentum};
use burn_wsam::reference::Oracle;
use burn_wsam_support::golden::{self, Tensors};
use burn_wsam_support::replay::{OracleRoute, Tolerance, replay};

const EXACT: Tolerance = Tolerance::DOUBLE;

const MOMENTUM: Momentum = Momentum { momentum: 0.9, dampening: 0.1, nesterov: true };
const MOMENTS: Moments =
    Moments { beta_1: 0.9, beta_2: 0.99, epsilon: 1e-8, weight_decay: 0.1, amsgrad: false };

fn bases() -> Vec<Base> {
    let amsgrad = Moments { amsgrad: true, ..MOMENTS };
    vec![
        Base::Sgd { momentum: None, weight_decay: 0.0 },
        Base::Sgd { momentum: None, weight_decay: 0.1 },
        Base::Sgd { momentum: Some(Momentum { nesterov: false, ..MOMENTUM }), weight_decay: 0.1 },
        Base::Sgd { momentum: Some(MOMENTUM), weight_decay: 0.1 },
        Base::Adam(MOMENTS),
        Base::Adam(amsgrad),
        Base::AdamW(MOMENTS),
        Base::AdamW(amsgrad),
    ]
}

fn plain_sgd() -> Hyperparameters {
    Hyperparameters::new(Base::Sgd { momentum: None, weight_decay: 0.0 })
}

fn start() -> Tensors {
    vec![vec![0.5, -1.25, 3.0], vec![0.0], vec![], vec![-0.75, 1e-3]]
}

/// A gradient with the shapes of `start()`, which depends on `seed`. It shrinks as the seed grows, so that
/// AMSGrad's largest second moment is not the last one.
fn gradient(seed: u32) -> Tensors {
    let mut angle = f64::from(seed);
    let mut next = || {
        angle += 1.7;
        angle.sin() / f64::from(1 + seed % 10)
    };
    start().iter().map(|w| w.iter().map(|_| next()).collect()).collect()
}

fn map(tensors: &[Vec<f64>], f: impl Fn(f64) -> f64) -> Tensors {
    tensors.iter().map(|t| t.iter().map(|x| f(*x)).collect()).collect()
}

fn flat(tensors: &[Vec<f64>]) -> Vec<f64> {
    tensors.concat()
}

fn assert_close(got: &[f64], want: &[f64], rtol: f64) {
    assert_eq!(got.len(), want.len());
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!((g - w).abs() <= rtol * w.abs(), "element {i}: {g:e} for {w:e}");
    }
}

fn step(oracle: &mut Oracle, g: &Tensors, p: &Tensors, lr: f64) {
    oracle.ascent(g).unwrap();
    oracle.descent(lr, p).unwrap();
}

#[test]
fn golden_files_are_reproduced() {
    let (goldens, _) = golden::load().unwrap();
    for golden in &goldens {
        let mut route = OracleRoute::new(golden.hyper.clone(), golden.weight.clone());
        let worst = replay(golden, &mut route, EXACT).unwrap();
        let place = worst.place.map_or_else(String::new, |p| p.to_string());
        println!(
            "{}: {:.3} of the tolerance, relative {:.1e}; {place}",
            golden.file, worst.score, worst.relative
        );
    }
    println!("{} files", goldens.len());
    // A user's folder may have trajectories of other methods only.
    let is_custom = golden::is_own_folder();
    assert!(is_custom || !goldens.is_empty(), "no trajectory in {}", golden::folder().display());
}
