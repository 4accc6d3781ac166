//! Properties of the methods on random gradients.

use burn_wsam::method::{Base, Clip, ClipScope, Hyperparameters, Method, Passes};
use burn_wsam::reference::{Oracle, norm};
use proptest::prelude::*;

use super::planted::Fault;
use super::staged::Staged;
use super::{METHODS, bases_of, step_of, with_method};
use crate::{bases, flat, map, start};
use burn_wsam_support::family_replay::FamilyRoute;
use burn_wsam_support::golden::Tensors;

/// Lengths of the tensors, as of `start()`.
const LENS: [usize; 4] = [3, 1, 0, 2];

fn tensors() -> impl Strategy<Value = Tensors> {
    proptest::collection::vec(-1.0..1.0, LENS.iter().sum::<usize>()).prop_map(|values: Vec<f64>| {
        let mut values = values.into_iter();
        LENS.iter().map(|len| values.by_ref().take(*len).collect()).collect()
    })
}

fn methods() -> impl Strategy<Value = Method> {
    prop_oneof![
        Just(Method::Wsam),
        (0.0..2.0).prop_map(|alpha| Method::Gsam { alpha }),
        (0.0..1.5, 0.0..=1.0).prop_map(|(sigma, lambda)| Method::FriendlySam { sigma, lambda }),
        (0.0..2.0, 1..5u32).prop_map(|(alpha, k)| Method::LookSam { alpha, k }),
        Just(Method::MomentumSam),
    ]
}

fn clips() -> impl Strategy<Value = Option<Clip>> {
    let scope = prop_oneof![Just(ClipScope::Both), Just(ClipScope::PerturbedOnly)];
    proptest::option::of((0.1..3.0, scope).prop_map(|(max_norm, scope)| Clip { max_norm, scope }))
}

fn hypers() -> impl Strategy<Value = Hyperparameters> {
    (methods(), 0..16usize, 0.0..0.9, any::<bool>(), clips()).prop_map(
        |(method, base, rho, adaptive, clip)| {
            let bases = bases_of(method);
            let adaptive = adaptive && method != Method::MomentumSam;
            let base = bases[base % bases.len()];
            Hyperparameters { rho, adaptive, clip, ..with_method(base, method) }
        },
    )
}

fn steps() -> impl Strategy<Value = Vec<(Tensors, Tensors)>> {
    proptest::collection::vec((tensors(), tensors()), 1..8)
}

/// Any element may be off by a share of the largest.
fn close(got: &[Vec<f64>], want: &[Vec<f64>], what: &str) -> Result<(), TestCaseError> {
    let (got, want) = (flat(got), flat(want));
    prop_assert_eq!(got.len(), want.len());
    let largest = want.iter().fold(1e-3_f64, |largest, x| largest.max(x.abs()));
    for (i, (got, want)) in got.iter().zip(&want).enumerate() {
        let passes = (got - want).abs() <= 1e-9 * largest;
        prop_assert!(passes, "{what}, element {i}: {got:e} for {want:e}");
    }
    Ok(())
}

fn product(left: &[Vec<f64>], right: &[Vec<f64>]) -> f64 {
    flat(left).iter().zip(flat(right)).map(|(l, r)| l * r).sum()
}

fn difference(left: &[Vec<f64>], right: &[Vec<f64>]) -> Tensors {
    let of = |(l, r): (&Vec<f64>, &Vec<f64>)| l.iter().zip(r).map(|(l, r)| l - r).collect();
    left.iter().zip(right).map(of).collect()
}

/// One step by the copy in stages.
fn staged_step(staged: &mut Staged, lr: f64, g: &[Vec<f64>], p: &[Vec<f64>]) -> Tensors {
    match FamilyRoute::passes(staged) {
        Passes::Two => {
            let perturbed = staged.ascend(g).unwrap();
            staged.descend(lr, p).unwrap();
            perturbed
        }
        Passes::One => {
            let point = staged.gradient_point().unwrap();
            staged.one_pass(lr, g).unwrap();
            point
        }
    }
}

/// LookSAM's direction is that of a difference. Where the difference is small, two ways of summing differ.
fn is_well_conditioned(hyper: &Hyperparameters, g: &[Vec<f64>], p: &[Vec<f64>]) -> bool {
    let (g_norm, p_norm) = (norm(g), norm(p));
    let cosine = product(g, p) / (g_norm * p_norm);
    let sine = (1.0 - cosine * cosine).sqrt();
    !matches!(hyper.method, Method::LookSam { .. }) || (g_norm.min(p_norm) > 1e-2 && sine > 1e-2)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    /// The oracle and the copy in stages agree on any step of any method, base, clipping and perturbation.
    #[test]
    fn the_stages_are_the_oracle(hyper in hypers(), steps in steps(), lr in 0.0..0.2) {
        prop_assume!(steps.iter().all(|(g, p)| is_well_conditioned(&hyper, g, p)));
        hyper.validate().unwrap();
        hyper.validate_pairs().unwrap();
        let mut staged = Staged::new(hyper.clone(), start(), Fault::None);
        let mut oracle = Oracle::new(hyper, start());
        for (g, p) in &steps {
            prop_assert_eq!(Oracle::passes(&oracle), FamilyRoute::passes(&mut staged));
            let point = step_of(&mut oracle, lr, g, p);
            close(&staged_step(&mut staged, lr, g, p), &point, "point")?;
            close(staged.weights(), oracle.weights(), "weights")?;
            for (got, want) in staged.state().unwrap().iter().zip(oracle.state()) {
                close(got, want, "state")?;
            }
            for (got, want) in staged.method_state().unwrap().iter().zip(oracle.method_state()) {
                close(got, want, "the method's state")?;
            }
        }
    }

    /// One tensor or many: norms and dot products are taken over all of them.
    #[test]
    fn cuts_between_tensors_do_not_matter(hyper in hypers(), steps in steps(), lr in 0.0..0.2) {
        prop_assume!(steps.iter().all(|(g, p)| is_well_conditioned(&hyper, g, p)));
        let joined = |tensors: &[Vec<f64>]| vec![flat(tensors)];
        let mut many = Oracle::new(hyper.clone(), start());
        let mut one = Oracle::new(hyper, joined(&start()));
        for (g, p) in &steps {
            let point = step_of(&mut many, lr, g, p);
            close(&step_of(&mut one, lr, &joined(g), &joined(p)), &joined(&point), "point")?;
            close(one.weights(), &joined(many.weights()), "weights")?;
        }
    }

    /// The perturbation has the length rho, whatever it runs along.
    #[test]
    fn perturbations_have_the_length_rho(hyper in hypers(), steps in steps()) {
        let hyper = Hyperparameters { adaptive: false, rho: 0.3, clip: None, ..hyper };
        let mut oracle = Oracle::new(hyper.clone(), start());
        for (t, (g, p)) in steps.iter().enumerate() {
            let two = Oracle::passes(&oracle) == Passes::Two;
            let before = oracle.weights().to_vec();
            let moved = norm(&difference(&step_of(&mut oracle, 0.1, g, p), &before));
            let moves = two || (hyper.method == Method::MomentumSam && t > 0);
            // With sigma 1 and lambda 0 the direction of a repeated gradient is zero.
            let want = if moves && norm(g) > 1e-2 { 0.3 } else { 0.0 };
            let friendly = matches!(hyper.method, Method::FriendlySam { .. });
            prop_assert!((moved - want).abs() < 1e-6 || friendly, "{moved} for {want}");
        }
    }

    /// GSAM adds to `g~` what is orthogonal to it; LookSAM stores a unit vector that is orthogonal to `g`.
    #[test]
    fn corrections_are_orthogonal(g in tensors(), p in tensors(), alpha in 0.0..2.0) {
        prop_assume!(norm(&g) > 1e-2 && norm(&p) > 1e-2);
        let sgd = bases()[0];
        let mut gsam = Oracle::new(with_method(sgd, Method::Gsam { alpha }), start());
        step_of(&mut gsam, 1.0, &g, &p);
        let on = difference(&start(), gsam.weights());
        prop_assert!(product(&difference(&on, &p), &p).abs() < 1e-8);
        // Surrogate gap: descending does not lower the loss at `w` by the orthogonal part.
        prop_assert!(product(&difference(&on, &p), &g) <= 1e-8);

        let look = Method::LookSam { alpha, k: 2 };
        prop_assume!(is_well_conditioned(&with_method(sgd, look), &g, &p));
        let mut oracle = Oracle::new(with_method(sgd, look), start());
        step_of(&mut oracle, 1.0, &g, &p);
        let h = &oracle.method_state()[0];
        prop_assert!((norm(h) - 1.0).abs() < 1e-12);
        prop_assert!(product(h, &g).abs() < 1e-7);
        prop_assert!(product(h, &p) > 0.0);
    }

    /// A loss times a constant has the same perturbations. So it has the same steps of SGD at a rate divided by it.
    #[test]
    fn scaled_losses_take_the_same_steps(
        method in methods(), steps in steps(), scale in 0.5..20.0,
    ) {
        let base = Base::Sgd {
            momentum: Some(burn_wsam::method::Momentum {
                momentum: 0.9, dampening: 0.1, nesterov: true,
            }),
            weight_decay: 0.0,
        };
        let hyper = Hyperparameters { epsilon: 1e-30, ..with_method(base, method) };
        prop_assume!(steps.iter().all(|(g, p)| is_well_conditioned(&hyper, g, p)));
        let mut oracle = Oracle::new(hyper.clone(), start());
        let mut scaled = Oracle::new(hyper, start());
        let by = |tensors: &Tensors| map(tensors, |x| x * scale);
        for (g, p) in &steps {
            let point = step_of(&mut oracle, 0.1, g, p);
            close(&step_of(&mut scaled, 0.1 / scale, &by(g), &by(p)), &point, "point")?;
            close(scaled.weights(), oracle.weights(), "weights")?;
        }
    }
}

/// A fault that the files cannot see, because they have sigma 1.
#[test]
fn an_average_that_is_updated_first_is_seen() {
    let perturbed = |sigma: f64, fault: Fault| {
        let hyper = with_method(bases()[3], Method::FriendlySam { sigma, lambda: 0.6 });
        let mut staged = Staged::new(hyper, start(), fault);
        let last = (0..3)
            .map(|t| staged_step(&mut staged, 0.1, &crate::gradient(t), &crate::gradient(t + 100)));
        flat(&last.last().unwrap())
    };
    let apart = |sigma| {
        let (right, wrong) = (perturbed(sigma, Fault::None), perturbed(sigma, Fault::UpdatedFirst));
        right.iter().zip(wrong).map(|(r, w)| (r - w).abs()).fold(0.0, f64::max)
    };
    assert!(apart(0.5) > 1e-4, "{:e}", apart(0.5));
    assert!(apart(1.0) < 1e-12, "{:e}", apart(1.0));
}

#[test]
fn every_method_is_tried() {
    let names: Vec<&str> = METHODS.iter().map(Method::name).collect();
    assert_eq!(names, ["WSAM", "GSAM", "Friendly-SAM", "LookSAM", "Momentum-SAM"]);
}
