//! WSAM's relatives in the oracle.

mod edges;
mod faults;
mod limits;
mod planted;
mod properties;
mod reading;
mod staged;

use burn_wsam::method::{Base, Hyperparameters, Method, Passes};
use burn_wsam::reference::Oracle;

use crate::{EXACT, bases};
use burn_wsam_support::family::{self, FamilyGolden};
use burn_wsam_support::family_replay::{oracle, replay_family};
use burn_wsam_support::golden::{self, Tensors};

/// One of each method.
const METHODS: [Method; 5] = [
    Method::Wsam,
    Method::Gsam { alpha: 0.4 },
    Method::FriendlySam { sigma: 0.8, lambda: 0.6 },
    Method::LookSam { alpha: 0.7, k: 3 },
    Method::MomentumSam,
];

fn with_method(base: Base, method: Method) -> Hyperparameters {
    Hyperparameters { method, ..Hyperparameters::new(base) }
}

/// The bases that the method can be combined with.
fn bases_of(method: Method) -> Vec<Base> {
    let fits = |base: &Base| with_method(*base, method).validate_pairs().is_ok();
    bases().into_iter().filter(fits).collect()
}

/// Takes the oracle's next step, on `g` alone if it takes one gradient. Returns the weights at which the last
/// gradient was taken.
fn step_of(oracle: &mut Oracle, lr: f64, g: &Tensors, p: &Tensors) -> Tensors {
    match oracle.passes() {
        Passes::Two => {
            let perturbed = oracle.ascent(g).unwrap();
            oracle.descent(lr, p).unwrap();
            perturbed
        }
        Passes::One => {
            let point = oracle.gradient_point();
            oracle.one_pass_step(lr, g).unwrap();
            point
        }
    }
}

fn goldens() -> Vec<FamilyGolden> {
    let goldens = family::load().unwrap();
    // A folder of one's own may hold WSAM's trajectories only.
    let own_folder = golden::is_own_folder();
    assert!(own_folder || goldens.len() >= 9, "{} files", goldens.len());
    goldens
}

#[test]
fn family_files_are_reproduced() {
    for golden in goldens() {
        let worst = replay_family(&golden, &mut oracle(&golden), EXACT).unwrap();
        let place = worst.place.map_or_else(String::new, |p| p.to_string());
        println!(
            "{}: {:.3} of the tolerance, relative {:.1e}; {place}",
            golden.file, worst.score, worst.relative
        );
    }
}
