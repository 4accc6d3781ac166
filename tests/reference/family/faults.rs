//! The trajectories against faults planted on purpose, in a copy of the methods that has a place for each.

use burn_wsam::method::Method;

use super::planted::{COEFFICIENTS, Fault};
use super::staged::Staged;
use crate::EXACT;
use burn_wsam_support::family::{FamilyExpected, FamilyGolden};
use burn_wsam_support::family_replay::{oracle, replay_family};
use burn_wsam_support::golden;

/// The trajectories of the relatives, and those of WSAM in the same form.
fn all() -> Vec<FamilyGolden> {
    let (wsam, _) = golden::load().unwrap();
    let of_wsam = wsam.into_iter().map(|golden| FamilyGolden {
        file: golden.file,
        hyper: golden.hyper,
        lr: golden.lr,
        shapes: golden.shapes,
        weight: golden.weight,
        grad: golden.grad,
        grad_perturbed: golden.grad_perturbed.into_iter().map(Some).collect(),
        expected: (golden.expected.into_iter())
            .map(|step| FamilyExpected {
                perturbed: Some(step.perturbed),
                weight: step.weight,
                state: step.state,
                method_state: Vec::new(),
            })
            .collect(),
    });
    super::goldens().into_iter().chain(of_wsam).collect()
}

fn run(golden: &FamilyGolden, fault: Fault) -> (Staged, Result<(), String>) {
    let mut staged = Staged::new(golden.hyper.clone(), golden.weight.clone(), fault);
    let result = replay_family(golden, &mut staged, EXACT).map(|_| ());
    (staged, result)
}

#[test]
fn the_copy_without_a_fault_reproduces_every_file() {
    for golden in all() {
        run(&golden, Fault::None).1.unwrap();
    }
}

/// Each coefficient's sign in turn: every file sees it in which the coefficient is not zero and matters.
#[test]
fn every_flipped_sign_is_seen() {
    let mut seen = [0; COEFFICIENTS.len()];
    for golden in all() {
        let (staged, _) = run(&golden, Fault::None);
        for (index, name) in COEFFICIENTS.iter().enumerate() {
            if !staged.used[index] {
                continue;
            }
            let (_, result) = run(&golden, Fault::Sign(index));
            let has_state = !matches!(golden.hyper.method, Method::Wsam | Method::Gsam { .. });
            let matters = match *name {
                "z" => has_state,
                // A perturbation of no length has no direction.
                "m" | "p" => golden.hyper.rho > 0.0,
                // A step of 1e-12 is lost in weights of 1.
                _ => golden.file != "sgd_tiny_grad.json",
            };
            assert!(!matters || result.is_err(), "{}: the sign of {name}", golden.file);
            seen[index] += usize::from(result.is_err());
        }
    }
    for (name, seen) in COEFFICIENTS.iter().zip(seen) {
        println!("{name}: seen in {seen} files");
        assert!(golden::is_own_folder() || seen > 0, "no file sees the sign of {name}");
    }
}

/// Every other fault is seen by some file.
#[test]
fn every_other_fault_is_seen() {
    let goldens = super::goldens();
    for fault in Fault::OTHERS {
        let failed = goldens.iter().filter(|golden| run(golden, fault).1.is_err());
        let seen: Vec<&str> = failed.map(|golden| golden.file.as_str()).collect();
        println!("{fault:?}: {seen:?}");
        assert!(golden::is_own_folder() || !seen.is_empty(), "no file sees {fault:?}");
    }
}

/// One number of any quantity off by a part in a thousand.
#[test]
fn a_corrupted_family_file_is_seen() {
    for golden in super::goldens() {
        let quantities = 2 + golden.expected[0].state.len() + golden.expected[0].method_state.len();
        for quantity in 0..quantities {
            let mut corrupted = golden.clone();
            let step = match quantity {
                0 => corrupted.expected.iter().rposition(|step| step.perturbed.is_some()).unwrap(),
                _ => corrupted.expected.len() - 1,
            };
            let step = &mut corrupted.expected[step];
            let states = step.state.len();
            let tensors = match quantity {
                0 => step.perturbed.as_mut().unwrap(),
                1 => &mut step.weight,
                state if state - 2 < states => &mut step.state[state - 2],
                state => &mut step.method_state[state - 2 - states],
            };
            *tensors.iter_mut().flatten().next().unwrap() *= 1.001;
            let result = replay_family(&corrupted, &mut oracle(&corrupted), EXACT);
            assert!(result.is_err(), "{}: quantity {quantity}", golden.file);
        }
    }
}
