//! Groups, clipping, gradients that are not finite, and misuse.

use burn_wsam::method::{
    AeSam, Base, Clip, ClipScope, Group, Hyperparameters, Interval, Method, NonFinite, NormScope,
    PassRule, Passes,
};
use burn_wsam::reference::{Oracle, ReferenceError, norm};

use super::{METHODS, bases_of, step_of, with_method};
use crate::{assert_close, bases, flat, gradient, map, start, step};

const LR: f64 = 0.1;

/// Everything that a step can change.
fn snapshot(oracle: &Oracle) -> (Vec<f64>, Vec<f64>, Vec<f64>, Passes) {
    let all = |columns: &[Vec<Vec<f64>>]| columns.iter().flat_map(|column| flat(column)).collect();
    (flat(oracle.weights()), all(oracle.state()), all(oracle.method_state()), oracle.passes())
}

fn poisoned(seed: u32, bad: f64) -> Vec<Vec<f64>> {
    let mut grad = gradient(seed);
    grad[1][0] = bad;
    grad
}

#[test]
fn skipped_steps_change_nothing() {
    for method in METHODS {
        for base in bases_of(method) {
            let mut oracle = Oracle::new(with_method(base, method), start());
            for t in 0..7 {
                let (g, p) = (gradient(t), gradient(t + 100));
                let before = snapshot(&oracle);
                for bad in [f64::NAN, f64::INFINITY] {
                    step_of(&mut oracle, LR, &poisoned(t, bad), &p);
                    assert_eq!(snapshot(&oracle), before, "{method:?}, {base:?}, step {t}");
                    if oracle.passes() == Passes::Two {
                        step_of(&mut oracle, LR, &g, &poisoned(t, bad));
                        assert_eq!(snapshot(&oracle), before, "{method:?}, {base:?}, step {t}");
                    }
                }
                step_of(&mut oracle, LR, &g, &p);
                assert_ne!(snapshot(&oracle), before);
            }
            // As without the skipped steps.
            let mut clean = Oracle::new(with_method(base, method), start());
            (0..7).for_each(|t| {
                step_of(&mut clean, LR, &gradient(t), &gradient(t + 100));
            });
            assert_eq!(snapshot(&oracle), snapshot(&clean), "{method:?}, {base:?}");
        }
    }
}

#[test]
fn base_steps_take_over_where_only_the_second_gradient_is_bad() {
    for method in METHODS {
        for base in bases_of(method) {
            let hyper =
                Hyperparameters { non_finite: NonFinite::BaseStep, ..with_method(base, method) };
            let mut oracle = Oracle::new(hyper.clone(), start());
            let mut alone = oracle.clone();
            step_of(&mut oracle, LR, &gradient(1), &poisoned(2, f64::NAN));
            match method {
                // Its gradient is the first of a step: good here.
                Method::MomentumSam => alone.one_pass_step(LR, &gradient(1)).unwrap(),
                _ => alone.base_step(LR, &gradient(1)).unwrap(),
            }
            assert_eq!(oracle.weights(), alone.weights(), "{method:?}, {base:?}");
            assert_eq!(oracle.state(), alone.state(), "{method:?}, {base:?}");
            match method {
                // The average needs g only.
                Method::FriendlySam { .. } => assert_eq!(oracle.method_state()[0], gradient(1)),
                // No direction yet, so the next step tries again.
                Method::LookSam { .. } => {
                    assert_eq!(norm(&oracle.method_state()[0]), 0.0);
                    assert_eq!(oracle.passes(), Passes::Two);
                }
                _ => {}
            }
        }
    }
}

/// Tensors with a norm of their own take the steps of a model of their own.
#[test]
fn scopes_are_models_of_their_own() {
    let own = Group { norm: NormScope::Own, ..Group::default() };
    for method in METHODS {
        for base in bases_of(method) {
            let hyper = with_method(base, method);
            let grouped = Hyperparameters { groups: vec![own], ..hyper.clone() };
            let (w, of) = (start(), [0, 1, 0, 1]);
            let part = |tensors: &[Vec<f64>], group: usize| -> Vec<Vec<f64>> {
                let inside = tensors.iter().zip(of).filter(|(_, found)| *found == group);
                inside.map(|(tensor, _)| tensor.clone()).collect()
            };
            let mut whole = Oracle::with_groups(grouped, w.clone(), &of).unwrap();
            let mut parts = [0, 1].map(|group| Oracle::new(hyper.clone(), part(&w, group)));
            for t in 0..5 {
                let (g, p) = (gradient(t), gradient(t + 100));
                let point = step_of(&mut whole, LR, &g, &p);
                for (group, oracle) in parts.iter_mut().enumerate() {
                    let got = step_of(oracle, LR, &part(&g, group), &part(&p, group));
                    assert_eq!(got, part(&point, group), "{method:?}, {base:?}");
                    assert_eq!(oracle.weights(), part(whole.weights(), group), "{method:?}");
                }
            }
        }
    }
}

/// Parameters that are not perturbed have no `h` and no part in the sums. They step on `g~`, or on `g` where there is
/// no `g~`.
#[test]
fn the_unperturbed_step_on_the_last_gradient() {
    let still = Group { perturbed: false, ..Group::default() };
    for method in METHODS.into_iter().filter(|method| *method != Method::Wsam) {
        for base in bases_of(method) {
            let hyper = with_method(base, method);
            let grouped = Hyperparameters { groups: vec![still], ..hyper.clone() };
            let of = [0, 1, 0, 0];
            let mut whole = Oracle::with_groups(grouped, start(), &of).unwrap();
            let mut alone = Oracle::new(hyper.clone(), vec![start()[1].clone()]);
            let rest = |tensors: Vec<Vec<f64>>| [&tensors[..1], &tensors[2..]].concat();
            let mut perturbed = Oracle::new(hyper, rest(start()));
            for t in 0..5 {
                let (g, p) = (gradient(t), gradient(t + 100));
                let last = if whole.passes() == Passes::Two { &p } else { &g };
                let point = step_of(&mut whole, LR, &g, &p);
                alone.base_step(LR, &[last[1].clone()]).unwrap();
                assert_eq!(whole.weights()[1], alone.weights()[0], "{method:?}, {base:?}");
                let want = step_of(&mut perturbed, LR, &rest(g), &rest(p));
                assert_eq!(rest(point), want, "{method:?}, {base:?}");
                assert_eq!(rest(whole.weights().to_vec()), perturbed.weights(), "{method:?}");
                assert!(whole.method_state().iter().all(|column| column[1] == [0.0]));
            }
        }
    }
}

/// Groups change the radius, the rate and the decay of their parameters.
#[test]
fn groups_have_constants_of_their_own() {
    let groups =
        vec![Group { rho: Some(0.7), lr_factor: 2.0, weight_decay: Some(0.3), ..Group::default() }];
    for method in METHODS {
        for base in bases_of(method) {
            let all = Hyperparameters { groups: groups.clone(), ..with_method(base, method) };
            let own = Hyperparameters {
                rho: 0.7,
                base: base.with_weight_decay(0.3),
                ..with_method(base, method)
            };
            let mut grouped = Oracle::with_groups(all, start(), &[1; 4]).unwrap();
            let mut plain = Oracle::new(own, start());
            for t in 0..5 {
                let (g, p) = (gradient(t), gradient(t + 100));
                let (got, want) =
                    (step_of(&mut grouped, LR, &g, &p), step_of(&mut plain, 2.0 * LR, &g, &p));
                assert_eq!(got, want, "{method:?}, {base:?}");
                assert_eq!(grouped.weights(), plain.weights(), "{method:?}, {base:?}");
            }
        }
    }
}

/// Clipping scales what the base optimizer gets. What a method stores, and `e_w`, are of unclipped gradients.
#[test]
fn clipping_scales_what_the_base_optimizer_gets() {
    let sgd = bases()[0];
    let (w, g, p) = (vec![vec![1.0, 2.0]], vec![vec![3.0, 4.0]], vec![vec![0.0, 10.0]]);
    let run = |method, scope, t: u32| {
        let clip = Some(Clip { max_norm: 1.0, scope });
        let hyper = Hyperparameters { clip, ..with_method(sgd, method) };
        let mut oracle = Oracle::new(hyper, w.clone());
        (0..t).for_each(|_| step(&mut oracle, &g, &p, 0.0));
        step_of(&mut oracle, 1.0, &g, &p);
        (oracle.weights()[0].clone(), oracle)
    };
    let (of_g, of_p) = (1.0 / (5.0 + 1e-6), 1.0 / (10.0 + 1e-6));
    for (scope, of_g) in [(ClipScope::Both, of_g), (ClipScope::PerturbedOnly, 1.0)] {
        // GSAM: v = (3, 0).
        let (got, _) = run(Method::Gsam { alpha: 0.5 }, scope, 0);
        assert_close(&got, &[1.0 + 0.5 * of_g * 3.0, 2.0 - of_p * 10.0], 1e-10);
        let (got, oracle) = run(Method::FriendlySam { sigma: 1.0, lambda: 0.5 }, scope, 0);
        assert_close(&got, &[1.0, 2.0 - of_p * 10.0], 1e-12);
        assert_eq!(oracle.method_state()[0], g);
        // LookSAM between its SAM steps: h is the part of p orthogonal to g, (-24, 18) / 30.
        let (got, _) = run(Method::LookSam { alpha: 0.4, k: 2 }, scope, 1);
        let want = [1.0 - of_g * (3.0 - 0.4 * 5.0 * 0.8), 2.0 - of_g * (4.0 + 0.4 * 5.0 * 0.6)];
        assert_close(&got, &want, 1e-10);
    }
    let momentum = with_method(bases()[3].with_weight_decay(0.0), Method::MomentumSam);
    let run = |scope| {
        let clip = Some(Clip { max_norm: 1.0, scope });
        let mut oracle = Oracle::new(Hyperparameters { clip, ..momentum.clone() }, w.clone());
        oracle.one_pass_step(1.0, &g).unwrap();
        oracle.state()[0][0].clone()
    };
    assert_close(&run(ClipScope::Both), &[3.0 * of_g, 4.0 * of_g], 1e-12);
    assert_eq!(run(ClipScope::Both), run(ClipScope::PerturbedOnly));
}

#[test]
fn gradients_of_any_magnitude_give_finite_steps() {
    for method in METHODS {
        for base in bases_of(method) {
            for scale in [0.0, 1e-150, 1e-30, 1e-12, 1e12, 1e30] {
                let mut oracle = Oracle::new(with_method(base, method), start());
                for t in 0..4 {
                    let by = |seed| map(&gradient(seed), |x| x * scale);
                    let point = step_of(&mut oracle, LR, &by(t), &by(t + 100));
                    let all = [point, oracle.weights().to_vec()].concat();
                    assert!(
                        flat(&all).iter().all(|x| x.is_finite()),
                        "{method:?}, {base:?}, {scale:e}"
                    );
                }
            }
        }
    }
}

#[test]
fn calls_that_do_not_fit_the_step_are_refused() {
    let mut momentum = Oracle::new(with_method(bases()[3], Method::MomentumSam), start());
    let one_pass = ReferenceError::OnePass { method: "Momentum-SAM" };
    assert_eq!(momentum.ascent(&gradient(1)), Err(one_pass.clone()));
    assert!(one_pass.to_string().contains("call one_pass_step"), "{one_pass}");
    let two_passes = |method| ReferenceError::TwoPasses { method };
    for method in METHODS.into_iter().filter(|method| *method != Method::MomentumSam) {
        let mut oracle = Oracle::new(with_method(bases()[3], method), start());
        let refused = oracle.one_pass_step(LR, &gradient(1));
        assert_eq!(refused, Err(two_passes(method.name())));
        assert_eq!(oracle.weights(), start());
    }
    let mut look =
        Oracle::new(with_method(bases()[3], Method::LookSam { alpha: 0.5, k: 2 }), start());
    step(&mut look, &gradient(1), &gradient(2), LR);
    assert_eq!(look.ascent(&gradient(1)), Err(ReferenceError::OnePass { method: "LookSAM" }));
}

#[test]
fn constants_outside_their_domains_are_refused() {
    let sgd = bases()[3];
    for (method, name) in [
        (Method::Gsam { alpha: -0.1 }, "alpha"),
        (Method::Gsam { alpha: f64::NAN }, "alpha"),
        (Method::FriendlySam { sigma: -1.0, lambda: 0.5 }, "sigma"),
        (Method::FriendlySam { sigma: f64::INFINITY, lambda: 0.5 }, "sigma"),
        (Method::FriendlySam { sigma: 1.0, lambda: 1.1 }, "lambda"),
        (Method::FriendlySam { sigma: 1.0, lambda: -0.1 }, "lambda"),
        (Method::LookSam { alpha: 1e300, k: 5 }, "alpha"),
        (Method::LookSam { alpha: 0.5, k: 0 }, "k"),
    ] {
        let error = with_method(sgd, method).validate().unwrap_err();
        assert_eq!(error.name, name, "{method:?}");
    }
    for method in METHODS {
        with_method(sgd, method).validate().unwrap();
    }
    let error = PassRule::Interval(Interval { every: 0 }).validate().unwrap_err();
    assert_eq!(error.to_string(), "interval is 0, but it must be at least 1");
    PassRule::AeSam(AeSam::new(0)).validate().unwrap_err();
    PassRule::EveryStep.validate().unwrap();
}

#[test]
fn pairs_that_make_no_sense_are_refused_by_both_names() {
    let named = |error: burn_wsam::method::IncompatibleOptions, first: &str, second: &str| {
        let message = error.to_string();
        assert!(message.starts_with(first) && message.contains(second), "{message}");
    };
    let plain = Base::Sgd { momentum: None, weight_decay: 0.0 };
    let error = with_method(plain, Method::MomentumSam).validate_pairs().unwrap_err();
    named(error, "Momentum-SAM", "SGD without momentum");
    let hyper = with_method(bases()[3], Method::MomentumSam);
    let error = Hyperparameters { adaptive: true, ..hyper.clone() }.validate_pairs().unwrap_err();
    named(error, "Momentum-SAM", "adaptive");
    let groups = vec![Group { adaptive: Some(true), ..Group::default() }];
    let error = Hyperparameters { groups, ..hyper }.validate_pairs().unwrap_err();
    named(error, "Momentum-SAM", "adaptive");

    let groups = vec![Group { gamma: Some(0.5), ..Group::default() }];
    let rules = [PassRule::Interval(Interval { every: 5 }), PassRule::AeSam(AeSam::new(10))];
    for method in METHODS {
        for base in bases_of(method) {
            with_method(base, method).validate_pairs().unwrap();
        }
        let hyper = Hyperparameters { groups: groups.clone(), ..with_method(bases()[3], method) };
        match hyper.validate_pairs() {
            Ok(()) => assert_eq!(method, Method::Wsam),
            Err(error) => named(error, method.name(), "gamma of a group"),
        }
        PassRule::EveryStep.validate_pair(&method).unwrap();
        for (rule, second) in rules.iter().zip(["interval", "AE-SAM"]) {
            match rule.validate_pair(&method) {
                Ok(()) => assert_eq!((method.cycle(), method.passes(0)), (1, Passes::Two)),
                Err(error) => named(error, method.name(), second),
            }
        }
    }
}
