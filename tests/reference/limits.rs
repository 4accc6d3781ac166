//! Norm, perturbation and clipping at their limits, and errors.

use burn_wsam::method::{Clip, ClipScope, Coupling, Hyperparameters, NonFinite};
use burn_wsam::reference::{Norms, Oracle, ReferenceError, norm};

use crate::{assert_close, bases, flat, gradient, map, plain_sgd, start, step};

#[test]
fn zero_rho_leaves_the_weights() {
    for adaptive in [false, true] {
        let hyper = Hyperparameters { rho: 0.0, adaptive, ..plain_sgd() };
        let mut oracle = Oracle::new(hyper, start());
        let bits = |t: &[Vec<f64>]| flat(t).into_iter().map(f64::to_bits).collect::<Vec<_>>();
        assert_eq!(bits(&oracle.ascent(&gradient(3)).unwrap()), bits(&start()));
    }
}

#[test]
fn zero_gradients_stay_finite() {
    for base in bases() {
        for adaptive in [false, true] {
            let clip = Some(Clip { max_norm: 1.0, scope: ClipScope::Both });
            let hyper = Hyperparameters { adaptive, clip, ..Hyperparameters::new(base) };
            let mut oracle = Oracle::new(hyper, start());
            let zeros = map(&start(), |_| 0.0);
            assert_eq!(oracle.ascent(&zeros).unwrap(), start());
            oracle.descent(0.1, &zeros).unwrap();
            assert!(flat(oracle.weights()).iter().all(|w| w.is_finite()), "{base:?}");
            assert_eq!(oracle.norms(), Norms::default());
        }
    }
}

#[test]
fn norm_survives_extreme_magnitudes() {
    for scale in [1e-200, 1e-19, 1.0, 1e19, 1e200] {
        let tensors = vec![vec![2.0 * scale, -3.0 * scale], vec![], vec![6.0 * scale]];
        assert_close(&[norm(&tensors)], &[7.0 * scale], 1e-15);

        let mut oracle = Oracle::new(plain_sgd(), map(&tensors, |_| 0.0));
        let perturbed = oracle.ascent(&tensors).unwrap();
        let want = map(&tensors, |g| 0.05 * (g / (7.0 * scale + 1e-12)));
        assert_close(&flat(&perturbed), &flat(&want), 1e-14);
        oracle.descent(0.0, &map(&tensors, |g| 0.5 * g)).unwrap();
        let norms = oracle.norms();
        assert_close(&[norms.gradient, norms.perturbed], &[7.0 * scale, 3.5 * scale], 1e-15);
    }
    assert_eq!(norm(&[]), 0.0);
    assert_eq!(norm(&[vec![f64::INFINITY, 1.0]]), f64::INFINITY);
    assert!(norm(&[vec![f64::NAN, 1.0]]).is_nan());
    assert!(norm(&[vec![f64::INFINITY], vec![f64::NAN, 1.0]]).is_nan());
}

#[test]
fn f32_norms_overflow_to_infinity() {
    let (weight, grad) = (vec![vec![1.0; 8]], vec![vec![3e38; 8]]);
    let oracle = || Oracle::new(plain_sgd(), weight.clone());
    assert!(oracle().ascent(&grad).unwrap() != weight);
    let mut single = oracle().with_f32_norms();
    assert_eq!(single.ascent(&grad).unwrap(), weight);
    assert_eq!(single.norms().gradient, f64::INFINITY);
}

#[test]
fn adaptive_ascent_is_scale_invariant() {
    // (w, g) -> (w s, g / s) describes the same network; ASAM's e_w must scale with w.
    let hyper = Hyperparameters { adaptive: true, ..plain_sgd() };
    let e_w = |s: f64| {
        let w = map(&start(), |w| w * s);
        let moved =
            Oracle::new(hyper.clone(), w.clone()).ascent(&map(&gradient(1), |g| g / s)).unwrap();
        flat(&moved).into_iter().zip(flat(&w)).map(|(m, w)| (m - w) / s).collect::<Vec<_>>()
    };
    for (a, b) in e_w(1.0).into_iter().zip(e_w(8.0)) {
        assert!((a - b).abs() < 1e-14, "{a:e}, expected {b:e}");
    }
    assert!(e_w(1.0)[0] != 0.0);
}

#[test]
fn clip_scopes() {
    let (w, g, p) = (vec![vec![1.0, 2.0]], vec![vec![3.0, 4.0]], vec![vec![6.0, 8.0]]);
    let (lr, max_norm) = (0.1, 2.0);
    let (clip_g, clip_p) = (2.0 / (5.0 + 1e-6), 2.0 / (10.0 + 1e-6));
    for coupling in [Coupling::Coupled, Coupling::Decoupled] {
        let run = |scope| {
            let clip = Some(Clip { max_norm, scope });
            let hyper = Hyperparameters { gamma: 0.75, coupling, clip, ..plain_sgd() };
            let mut oracle = Oracle::new(hyper, w.clone());
            let perturbed = oracle.ascent(&g).unwrap();
            assert_close(&perturbed[0], &[1.0 + 0.05 * 0.6, 2.0 + 0.05 * 0.8], 1e-12);
            oracle.descent(lr, &p).unwrap();
            assert_eq!(oracle.norms(), Norms { gradient: 5.0, perturbed: 10.0 });
            oracle.weights()[0].clone()
        };
        // alpha is 3. For plain SGD the coupled and the decoupled step agree.
        let want = |clip_g: f64| {
            [0, 1].map(|i| w[0][i] - lr * (-2.0 * clip_g * g[0][i] + 3.0 * clip_p * p[0][i]))
        };
        assert_close(&run(ClipScope::Both), &want(clip_g), 1e-13);
        assert_close(&run(ClipScope::PerturbedOnly), &want(1.0), 1e-13);
        assert_ne!(run(ClipScope::Both), run(ClipScope::PerturbedOnly));
    }
}

#[test]
fn nan_propagates_through_clipping() {
    let clip = Some(Clip { max_norm: 1.0, scope: ClipScope::Both });
    for base in bases() {
        let non_finite = NonFinite::Propagate;
        let hyper = Hyperparameters { clip, non_finite, ..Hyperparameters::new(base) };
        let mut oracle = Oracle::new(hyper, start());
        let mut p = gradient(2);
        p[0][0] = f64::NAN;
        step(&mut oracle, &gradient(1), &p, 0.1);
        // The norm is global, so the clipped g~ is NaN everywhere.
        assert!(flat(oracle.weights()).iter().all(|w| w.is_nan()), "{base:?}");
    }
}

/// A non-finite step is skipped and not counted. With `NonFinite::BaseStep`, the base optimizer steps if `g` is
/// finite.
#[test]
fn non_finite_steps() {
    for base in bases() {
        for bad in [f64::NAN, f64::INFINITY] {
            let poisoned = |seed| {
                let mut grad = gradient(seed);
                grad[1][0] = bad;
                grad
            };
            let new = |non_finite| {
                Oracle::new(Hyperparameters { non_finite, ..Hyperparameters::new(base) }, start())
            };
            let mut skipping = new(NonFinite::Skip);
            step(&mut skipping, &poisoned(1), &gradient(2), 0.1);
            step(&mut skipping, &gradient(1), &poisoned(2), 0.1);
            assert_eq!(skipping.weights(), start(), "{base:?}, {bad}");
            let mut reference = new(NonFinite::Propagate);
            step(&mut skipping, &gradient(3), &gradient(4), 0.1);
            step(&mut reference, &gradient(3), &gradient(4), 0.1);
            assert_eq!(skipping.weights(), reference.weights(), "{base:?}, {bad}");
            assert_eq!(skipping.state(), reference.state(), "{base:?}, {bad}");

            let (mut falling, mut alone) = (new(NonFinite::BaseStep), new(NonFinite::Propagate));
            step(&mut falling, &poisoned(1), &gradient(2), 0.1);
            step(&mut falling, &gradient(1), &poisoned(2), 0.1);
            alone.base_step(0.1, &gradient(1)).unwrap();
            assert_close(&flat(falling.weights()), &flat(alone.weights()), 1e-13);
            assert_eq!(falling.state(), alone.state(), "{base:?}, {bad}");
        }
    }
}

#[test]
fn mismatched_tensors_are_errors_and_change_nothing() {
    let mut oracle = Oracle::new(plain_sgd(), start());
    let count = ReferenceError::TensorCount { expected: 4, actual: 3 };
    let length = ReferenceError::TensorLength { tensor: 3, expected: 2, actual: 1 };
    let few = &gradient(1)[..3];
    let mut short = gradient(1);
    short[3].pop();

    assert_eq!(oracle.descent(0.1, &gradient(1)), Err(ReferenceError::DescentBeforeAscent));
    assert_eq!(oracle.ascent(few), Err(count.clone()));
    assert_eq!(oracle.ascent(&short), Err(length.clone()));
    oracle.ascent(&gradient(1)).unwrap();
    assert_eq!(oracle.descent(0.1, few), Err(count));
    assert_eq!(oracle.descent(0.1, &short), Err(length.clone()));
    assert_eq!(oracle.weights(), start());

    oracle.descent(0.1, &gradient(2)).unwrap();
    assert_eq!(oracle.descent(0.1, &gradient(2)), Err(ReferenceError::DescentBeforeAscent));
    assert_eq!(length.to_string(), "gradient tensor 3 has 1 elements, but its weight has 2");
}
