//! Constants at which a method is a known optimizer, for every base.

use burn_wsam::method::{
    AeSam, Base, Coupling, Hyperparameters, Interval, Method, PassRule, Passes,
};
use burn_wsam::reference::Oracle;

use super::{METHODS, bases_of, step_of, with_method};
use crate::{assert_close, bases, flat, gradient, map, start, step};
use burn_wsam_support::golden::Tensors;

const LR: f64 = 0.1;

/// SAM is WSAM's coupled form at gamma 1/2.
fn sam(hyper: &Hyperparameters) -> Hyperparameters {
    let (method, coupling) = (Method::Wsam, Coupling::Coupled);
    Hyperparameters { method, coupling, gamma: 0.5, ..hyper.clone() }
}

/// Holds `method` to SAM over some steps of every base, with and without adaptive perturbation.
fn assert_is_sam(method: Method) {
    for base in bases() {
        for adaptive in [false, true] {
            let hyper = Hyperparameters { adaptive, ..with_method(base, method) };
            let mut alone = Oracle::new(sam(&hyper), start());
            let mut oracle = Oracle::new(hyper, start());
            for t in 0..5 {
                let (g, p) = (gradient(t), gradient(t + 100));
                assert_eq!(oracle.ascent(&g), alone.ascent(&g), "{method:?}, {base:?}");
                oracle.descent(LR, &p).unwrap();
                alone.descent(LR, &p).unwrap();
                assert_eq!(oracle.weights(), alone.weights(), "{method:?}, {base:?}");
                assert_eq!(oracle.state(), alone.state(), "{method:?}, {base:?}");
            }
        }
    }
}

#[test]
fn gsam_with_alpha_zero_is_sam() {
    assert_is_sam(Method::Gsam { alpha: 0.0 });
}

#[test]
fn friendly_sam_with_sigma_zero_is_sam() {
    assert_is_sam(Method::FriendlySam { sigma: 0.0, lambda: 0.6 });
}

#[test]
fn look_sam_with_k_one_is_sam() {
    assert_is_sam(Method::LookSam { alpha: 0.7, k: 1 });
}

/// With rho 0 both gradients are the same, and each method is its base optimizer.
#[test]
fn rho_zero_is_the_base_optimizer() {
    for method in METHODS {
        for base in bases_of(method) {
            let hyper = Hyperparameters { rho: 0.0, ..with_method(base, method) };
            let mut alone = Oracle::new(sam(&hyper), start());
            let mut oracle = Oracle::new(hyper, start());
            for t in 0..7 {
                assert_eq!(oracle.gradient_point(), oracle.weights(), "{method:?}");
                step_of(&mut oracle, LR, &gradient(t), &gradient(t));
                alone.base_step(LR, &gradient(t)).unwrap();
                // GSAM's orthogonal part is not zero, but of the order of epsilon over ||g||^2.
                assert_close(&flat(oracle.weights()), &flat(alone.weights()), 1e-9);
            }
        }
    }
}

#[test]
fn momentum_sam_without_a_momentum_is_the_base_optimizer() {
    // The pair is refused by `validate_pairs`; the oracle takes it.
    for weight_decay in [0.0, 0.1] {
        let base = Base::Sgd { momentum: None, weight_decay };
        let hyper = with_method(base, Method::MomentumSam);
        let mut alone = Oracle::new(sam(&hyper), start());
        let mut oracle = Oracle::new(hyper, start());
        for t in 0..5 {
            assert_eq!(oracle.gradient_point(), oracle.weights());
            oracle.one_pass_step(LR, &gradient(t)).unwrap();
            alone.base_step(LR, &gradient(t)).unwrap();
            assert_eq!(oracle.weights(), alone.weights());
        }
    }
}

#[test]
fn momentum_sam_starts_as_the_base_optimizer() {
    for base in bases_of(Method::MomentumSam) {
        let hyper = with_method(base, Method::MomentumSam);
        let mut alone = Oracle::new(sam(&hyper), start());
        let mut oracle = Oracle::new(hyper, start());
        assert_eq!(oracle.gradient_point(), start());
        oracle.one_pass_step(LR, &gradient(1)).unwrap();
        alone.base_step(LR, &gradient(1)).unwrap();
        assert_eq!(oracle.weights(), alone.weights(), "{base:?}");
        assert_eq!(oracle.state(), alone.state(), "{base:?}");
        assert_ne!(oracle.gradient_point(), oracle.weights(), "{base:?}");
    }
}

#[test]
fn look_sam_with_alpha_zero_takes_base_steps_in_between() {
    for base in bases() {
        let hyper = with_method(base, Method::LookSam { alpha: 0.0, k: 3 });
        let mut other = Oracle::new(sam(&hyper), start());
        let mut oracle = Oracle::new(hyper, start());
        for t in 0..7 {
            step_of(&mut oracle, LR, &gradient(t), &gradient(t + 100));
            match t % 3 {
                0 => step(&mut other, &gradient(t), &gradient(t + 100), LR),
                _ => other.base_step(LR, &gradient(t)).unwrap(),
            }
            assert_eq!(oracle.weights(), other.weights(), "{base:?}, step {t}");
        }
    }
}

/// Takes `steps` steps, with the passes that `rule` decides.
fn run_by_rule(hyper: Hyperparameters, mut rule: PassRule, steps: u32) -> (Oracle, Vec<Passes>) {
    let mut oracle = Oracle::new(hyper, start());
    let mut taken = Vec::new();
    for t in 0..steps {
        let (g, p): (Tensors, Tensors) = (gradient(t), gradient(t + 100));
        let passes = rule.decide(u64::from(t), burn_wsam::reference::norm(&g));
        match passes {
            Passes::Two => step(&mut oracle, &g, &p, LR),
            Passes::One => oracle.base_step(LR, &g).unwrap(),
        }
        taken.push(passes);
    }
    (oracle, taken)
}

#[test]
fn interval_one_is_the_method() {
    for method in METHODS.into_iter().filter(|method| method.cycle() == 1) {
        let interval = PassRule::Interval(Interval { every: 1 });
        if interval.validate_pair(&method).is_err() {
            continue;
        }
        for base in bases_of(method) {
            let hyper = with_method(base, method);
            let (always, _) = run_by_rule(hyper.clone(), PassRule::EveryStep, 6);
            let (oracle, _) = run_by_rule(hyper, interval, 6);
            assert_eq!(oracle.weights(), always.weights(), "{method:?}, {base:?}");
            assert_eq!(oracle.method_state(), always.method_state(), "{method:?}, {base:?}");
        }
    }
}

#[test]
fn an_interval_beyond_the_run_has_one_second_pass() {
    for base in bases() {
        let hyper = with_method(base, Method::FriendlySam { sigma: 1.0, lambda: 0.9 });
        let interval = PassRule::Interval(Interval { every: 100 });
        let (oracle, taken) = run_by_rule(hyper.clone(), interval, 6);
        assert_eq!(taken.iter().filter(|passes| **passes == Passes::Two).count(), 1);
        // Steps of the base optimizer leave the average.
        assert_eq!(oracle.method_state()[0], gradient(0), "{base:?}");
        let mut other = Oracle::new(sam(&hyper), start());
        step(&mut other, &gradient(0), &gradient(100), LR);
        (1..6).for_each(|t| other.base_step(LR, &gradient(t)).unwrap());
        assert_eq!(oracle.weights(), other.weights(), "{base:?}");
    }
}

/// The thresholds at the two ends: always below, always above.
#[test]
fn ae_sam_lies_between_the_base_optimizer_and_the_method() {
    let hyper = Hyperparameters::new(bases()[3]);
    let at = |threshold: f64| {
        let thresholds =
            AeSam { first_threshold: threshold, last_threshold: threshold, ..AeSam::new(9) };
        run_by_rule(hyper.clone(), PassRule::AeSam(thresholds), 9).1
    };
    assert!(at(-1e9).iter().all(|passes| *passes == Passes::Two));
    assert!(at(1e9).iter().all(|passes| *passes == Passes::One));
    let some = run_by_rule(hyper.clone(), PassRule::AeSam(AeSam::new(9)), 9).1;
    assert!(some.contains(&Passes::One) && some.contains(&Passes::Two), "{some:?}");
}

/// GSAM does not see how long `g` is along `g~`, nor LookSAM how long `g~` is along `g`.
#[test]
fn parts_along_the_other_gradient_are_left() {
    let sgd = Base::Sgd { momentum: None, weight_decay: 0.0 };
    let gsam = with_method(sgd, Method::Gsam { alpha: 0.4 });
    let (g, p) = (vec![vec![3.0, 4.0]], vec![vec![0.0, 2.0]]);
    let mut oracle = Oracle::new(gsam, vec![vec![1.0, 1.0]]);
    step(&mut oracle, &g, &p, 1.0);
    // v = (3, 0).
    assert_close(&oracle.weights()[0], &[1.0 + 0.4 * 3.0, 1.0 - 2.0], 1e-11);

    let look = with_method(sgd, Method::LookSam { alpha: 0.5, k: 2 });
    let mut oracle = Oracle::new(look, vec![vec![1.0, 1.0]]);
    step(&mut oracle, &p, &g, 1.0);
    // v = (3, 0) again, h = (1, 0).
    let h = &oracle.method_state()[0][0];
    assert_close(&h[..1], &[1.0], 1e-11);
    assert!(h[1].abs() < 1e-11, "{h:?}");
    let before = oracle.weights()[0].clone();
    oracle.one_pass_step(1.0, &map(&g, |x| 2.0 * x)).unwrap();
    let want = [before[0] - (6.0 + 0.5 * 10.0), before[1] - 8.0];
    assert_close(&oracle.weights()[0], &want, 1e-11);
}

/// Where `g~` is `g` up to rounding, `v` is rounding error, and LookSAM stores no direction.
#[test]
fn look_sam_stores_no_rounding_error() {
    let hyper = with_method(bases()[0], Method::LookSam { alpha: 0.7, k: 2 });
    let mut oracle = Oracle::new(hyper, start());
    step(&mut oracle, &gradient(1), &map(&gradient(1), |g| g * (1.0 + 1e-9)), LR);
    assert_eq!(flat(&oracle.method_state()[0]), flat(&map(&start(), |_| 0.0)));
    let zeros = map(&start(), |_| 0.0);
    let mut still =
        Oracle::new(with_method(bases()[0], Method::LookSam { alpha: 0.7, k: 2 }), start());
    step(&mut still, &zeros, &zeros, LR);
    still.one_pass_step(LR, &zeros).unwrap();
    assert_eq!(still.weights(), start());
}
