//! Parameter groups in the oracle, compared with values computed by hand.

use burn_wsam::method::{Base, Group, Hyperparameters, MAX_OWN_NORMS, NormScope};
use burn_wsam::reference::{Oracle, ReferenceError};

fn sgd(groups: Vec<Group>) -> Hyperparameters {
    let base = Base::Sgd { momentum: None, weight_decay: 0.0 };
    Hyperparameters { rho: 1.0, epsilon: 1e-30, groups, ..Hyperparameters::new(base) }
}

fn close(got: &[Vec<f64>], want: &[&[f64]]) {
    assert_eq!(got.len(), want.len());
    for (got, want) in got.iter().zip(want) {
        assert_eq!(got.len(), want.len());
        for (got, want) in got.iter().zip(*want) {
            assert!((got - want).abs() <= 1e-12, "{got}, expected {want}");
        }
    }
}

#[test]
fn norm_scopes_and_unperturbed_groups() {
    let groups = vec![
        Group { norm: NormScope::Own, rho: Some(2.0), ..Group::default() },
        Group { perturbed: false, ..Group::default() },
        Group { adaptive: Some(true), ..Group::default() },
    ];
    let weights = vec![vec![1.0], vec![1.0], vec![1.0], vec![2.0]];
    let mut oracle = Oracle::with_groups(sgd(groups), weights, &[0, 1, 2, 3]).expect("four groups");
    // The global norm is over 3 and |2| 2. The first group has its own norm. The unperturbed group has none.
    let grads = [vec![3.0], vec![5.0], vec![100.0], vec![2.0]];
    let perturbed = oracle.ascent(&grads).expect("the lengths fit");
    close(&perturbed, &[&[1.6], &[3.0], &[1.0], &[2.0 + 4.0 * 2.0 / 5.0]]);
}

#[test]
fn rates_decay_and_blends() {
    let groups = vec![
        Group { lr_factor: 10.0, ..Group::default() },
        Group { weight_decay: Some(0.5), gamma: Some(0.0), ..Group::default() },
        Group { gamma: Some(0.5), ..Group::default() },
    ];
    let weights = vec![vec![1.0]; 3];
    let mut oracle = Oracle::with_groups(sgd(groups), weights, &[1, 2, 3]).expect("three groups");
    oracle.ascent(&vec![vec![1.0]; 3]).expect("the lengths fit");
    oracle.descent(0.01, &vec![vec![2.0]; 3]).expect("the lengths fit");
    // gamma 0.9: alpha is 9; w - lr g - lr alpha (g~ - g).
    close(oracle.weights(), &[&[1.0 - 0.1 - 0.9], &[1.0 - 0.015], &[1.0 - 0.01 - 0.01]]);
}

#[test]
fn a_default_group_changes_nothing() {
    let grads = vec![vec![0.3, -0.7], vec![0.9]];
    let run = |groups: Vec<Group>, of: &[usize]| {
        let weights = vec![vec![1.0, 2.0], vec![3.0]];
        let mut oracle = Oracle::with_groups(sgd(groups), weights, of).expect("the groups fit");
        oracle.ascent(&grads).expect("the lengths fit");
        oracle.descent(0.1, &grads).expect("the lengths fit");
        oracle.weights().to_vec()
    };
    assert_eq!(run(vec![Group::default()], &[1, 0]), run(vec![], &[0, 0]));
}

#[test]
fn misuse() {
    let weights = vec![vec![1.0]];
    let refused = Oracle::with_groups(sgd(vec![]), weights.clone(), &[1]).map(|_| ());
    assert_eq!(refused, Err(ReferenceError::Group { tensor: 0, group: 1, groups: 0 }));
    let refused = Oracle::with_groups(sgd(vec![]), weights, &[0, 0]).map(|_| ());
    assert_eq!(refused, Err(ReferenceError::TensorCount { expected: 1, actual: 2 }));
    for group in [
        Group { lr_factor: f64::NAN, ..Group::default() },
        Group { lr_factor: -1.0, ..Group::default() },
        Group { weight_decay: Some(f64::INFINITY), ..Group::default() },
        Group { rho: Some(-0.1), ..Group::default() },
        Group { gamma: Some(1.0), ..Group::default() },
    ] {
        let error = sgd(vec![group]).validate().expect_err("out of its domain");
        assert!(error.name.ends_with("of a group"), "{error}");
    }
    let own = Group { norm: NormScope::Own, ..Group::default() };
    sgd(vec![own; MAX_OWN_NORMS]).validate().expect("as many as there may be");
    sgd(vec![own; MAX_OWN_NORMS + 1]).validate().expect_err("one too many");
}
