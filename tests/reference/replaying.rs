//! Deliberate faults, which the golden reader and the comparison must find.

use std::path::PathBuf;

use burn_wsam::method::{Base, Coupling, Hyperparameters};

use crate::{EXACT, MOMENTUM};
use burn_wsam_support::bound::Bound;
use burn_wsam_support::golden::{self, Expected, Golden, Tensors};
use burn_wsam_support::replay::{OracleRoute, Route, Tolerance, replay, replay_rounded};

/// An oracle that changes one number of its results.
struct Faulty {
    inner: OracleRoute,
    what: &'static str,
    fault: fn(f64) -> f64,
}

impl Faulty {
    fn inject_fault(&self, what: &str, tensors: &mut [Vec<f64>]) {
        if what == self.what
            && let Some(x) = tensors.iter_mut().flatten().last()
        {
            *x = (self.fault)(*x);
        }
    }
}

impl Route for Faulty {
    fn ascend(&mut self, grad: &[Vec<f64>]) -> Result<Tensors, String> {
        let mut perturbed = self.inner.ascend(grad)?;
        self.inject_fault("perturbed", &mut perturbed);
        Ok(perturbed)
    }

    fn descend(&mut self, lr: f64, grad_perturbed: &[Vec<f64>]) -> Result<Tensors, String> {
        let mut weight = self.inner.descend(lr, grad_perturbed)?;
        self.inject_fault("weight", &mut weight);
        Ok(weight)
    }

    fn state(&mut self) -> Result<Vec<Tensors>, String> {
        let mut state = self.inner.state()?;
        if let Some(last) = state.last_mut() {
            self.inject_fault("state", last);
        }
        Ok(state)
    }
}

#[test]
fn replay_detects_a_fault_in_any_quantity_of_any_file() {
    let (goldens, _) = golden::load().unwrap();
    let faults: [fn(f64) -> f64; 3] = [|_| f64::NAN, |_| f64::INFINITY, |x| x + x.signum() * 1e-6];
    for golden in &goldens {
        let stateless = golden.hyper.base.state_names().is_empty();
        for what in ["perturbed", "weight", "state"] {
            for fault in faults {
                let inner = OracleRoute::new(golden.hyper.clone(), golden.weight.clone());
                let result = replay(golden, &mut Faulty { inner, what, fault }, EXACT);
                if what == "state" && stateless {
                    result.unwrap();
                    continue;
                }
                let error = result.unwrap_err();
                assert!(error.starts_with(&golden.file), "{error}");
                assert!(error.contains("step 0") && error.contains("element"), "{error}");
            }
        }
    }
}

#[test]
fn replay_detects_a_corrupted_file() {
    let (goldens, _) = golden::load().unwrap();
    for golden in &goldens {
        let check = |golden: &Golden| {
            let mut route = OracleRoute::new(golden.hyper.clone(), golden.weight.clone());
            replay(golden, &mut route, EXACT)
        };
        for quantity in 0..2 + golden.hyper.base.state_names().len() {
            let mut golden = golden.clone();
            let last = golden.expected.last_mut().unwrap();
            let tensors = match quantity {
                0 => &mut last.perturbed,
                1 => &mut last.weight,
                state => &mut last.state[state - 2],
            };
            let x = tensors.iter_mut().flatten().next().unwrap();
            *x += x.signum() * (1e-6 + 1e-3 * x.abs());
            assert!(check(&golden).is_err(), "{}: {quantity}", golden.file);
        }
        let mut shorter = golden.clone();
        shorter.expected[0].weight[0].pop();
        assert!(check(&shorter).unwrap_err().contains("lengths"));
    }
}

#[test]
fn replay_detects_a_wrong_momentum_of_a_tiny_gradient() {
    let tiny = vec![vec![3e-12, -4e-12]];
    let base = Base::Sgd { momentum: Some(MOMENTUM), weight_decay: 0.0 };
    let mut golden = Golden {
        file: "tiny".into(),
        hyper: Hyperparameters { rho: 0.0, gamma: 0.0, ..Hyperparameters::new(base) },
        lr: 0.1,
        shapes: vec![vec![2]],
        weight: vec![vec![1.0, 2.0]],
        grad: vec![tiny.clone()],
        grad_perturbed: vec![tiny.clone()],
        expected: vec![Expected {
            perturbed: vec![vec![1.0, 2.0]],
            weight: vec![vec![1.0 - 0.1 * 1.9 * 3e-12, 2.0 + 0.1 * 1.9 * 4e-12]],
            state: vec![tiny],
        }],
    };
    let check = |golden: &Golden, tolerance| {
        let mut route = OracleRoute::new(golden.hyper.clone(), golden.weight.clone());
        replay(golden, &mut route, tolerance)
    };
    check(&golden, EXACT).unwrap();
    golden.expected[0].state[0][0][1] *= 1.001;
    // Tolerances of a route in f32, whose floor is far above the momentum.
    let loose = Tolerance { rtol: 1e-5, atol: 1e-6, share: 1e-6 };
    let error = check(&golden, loose).unwrap_err();
    assert!(error.contains("momentum_buffer, tensor 0, element 1"), "{error}");
}

#[test]
fn unreadable_folders_and_files_are_named() {
    let root = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("golden-errors");
    let error_of = |name: &str, text: Option<&str>| {
        let folder = root.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        if let Some(text) = text {
            std::fs::write(folder.join("case.json"), text).unwrap();
        }
        golden::load_from(&folder).unwrap_err()
    };
    assert!(golden::load_from(&root.join("missing")).unwrap_err().contains("missing"));
    assert!(error_of("empty", None).contains("no *.json file"));

    let good = r#"{"config": {"base": {"kind": "sgd", "lr": 0.1}, "rho": 0.1, "gamma": 0.5,
        "eps": 1e-12, "adaptive": false, "decouple": true, "max_norm": null}, "shapes": [[2]],
        "weight": [[1, 2]], "grad": [[[1, 1]]], "grad_perturbed": [[[1, 1]]],
        "expected": [{"perturbed": [[1, 2]], "weight": [[1, 2]], "state": {}}]}"#;
    std::fs::create_dir_all(root.join("good")).unwrap();
    std::fs::write(root.join("good/case.json"), good).unwrap();
    let (goldens, _) = golden::load_from(&root.join("good")).unwrap();
    assert_eq!(goldens[0].hyper.base, Base::Sgd { momentum: None, weight_decay: 0.0 });

    let cases = [
        ("syntax", "{", "", "EOF"),
        ("nan", "\"rho\": 0.1", "\"rho\": NaN", "expected value"),
        ("kind", "\"sgd\"", "\"lion\"", "kind"),
        ("no-lr", "\"lr\": 0.1", "\"momentum\": 0", "lr: missing"),
        ("length", "\"weight\": [[1, 2]], \"grad\"", "\"weight\": [[1]], \"grad\"", "weight: len"),
        ("steps", "\"grad\": [[[1, 1]]]", "\"grad\": []", "0 grad"),
        ("state", "\"state\": {}", "\"state\": {\"exp_avg\": [[0, 0]]}", "no state"),
        ("no-state", "\"lr\": 0.1", "\"lr\": 0.1, \"momentum\": 0.9", "momentum_buffer: missing"),
        ("scope", "\"max_norm\": null", "\"max_norm\": 1, \"clip_scope\": \"g\"", "clip_scope"),
    ];
    for (name, from, to, want) in cases {
        let text = if to.is_empty() { from.to_string() } else { good.replacen(from, to, 1) };
        let error = error_of(name, Some(&text));
        assert!(error.contains("case.json") && error.contains(want), "{name}: {error}");
    }
}

/// Compares the derived bound of a route in `f32` with the fixed tolerance that was used before. For 19 of 20
/// elements of all files the bound is less than half of the tolerance.
#[test]
fn the_derived_bound_is_tighter() {
    let (goldens, _) = golden::load().unwrap();
    let (mut all, mut tighter, mut looser) = (0, 0, 0);
    for golden in &goldens {
        let mut bounds = Bound::new(golden);
        for (step, want) in golden.expected.iter().enumerate() {
            let (grad, grad_perturbed) = (&golden.grad[step], &golden.grad_perturbed[step]);
            let perturbed = bounds.ascend(grad);
            bounds.descend(golden.lr, grad, grad_perturbed);
            let states = bounds.state().iter().zip(&want.state);
            let compared = [(&perturbed, &want.perturbed), (bounds.weights(), &want.weight)];
            for (nums, want) in compared.into_iter().chain(states) {
                let floor = Tolerance::SINGLE.floor(want);
                for (num, want) in nums.iter().flatten().zip(want.iter().flatten()) {
                    let before = floor + Tolerance::SINGLE.rtol * want.abs();
                    all += 1;
                    tighter += usize::from(num.error < before / 2.0);
                    looser += usize::from(num.error > before);
                }
            }
        }
    }
    println!(
        "{all} elements: the bound is less than half of the tolerance for {tighter}, larger for {looser}"
    );
    // A user's folder may have trajectories of other methods only.
    let is_empty = golden::is_own_folder() && all == 0;
    assert!(
        is_empty || 20 * tighter > 19 * all && 50 * looser < all,
        "{tighter} and {looser} of {all}"
    );
}

/// A small error in any hyperparameter exceeds the bound, in every file that it affects.
#[test]
fn the_derived_bound_detects_wrong_steps() {
    type Change = fn(&mut Hyperparameters, &mut f64) -> bool;
    let changes: &[(&str, Change)] = &[
        ("rho", |hyper, _| {
            hyper.rho *= 1.0001;
            hyper.rho > 0.01
        }),
        ("gamma", |hyper, _| {
            hyper.gamma *= 1.0001;
            hyper.gamma > 0.1
        }),
        ("rate", |_, lr| {
            *lr *= 1.0001;
            true
        }),
        ("coupling", |hyper, _| {
            hyper.coupling = match hyper.coupling {
                Coupling::Coupled => Coupling::Decoupled,
                Coupling::Decoupled => Coupling::Coupled,
            };
            // Without state the two forms are equal.
            !hyper.base.state_names().is_empty() && hyper.gamma > 0.0
        }),
        ("adaptive", |hyper, _| {
            hyper.adaptive = !hyper.adaptive;
            hyper.rho > 0.0
        }),
        ("clip", |hyper, _| {
            let clip = hyper.clip.as_mut();
            clip.is_some_and(|clip| {
                clip.max_norm *= 1.0001;
                clip.max_norm < 100.0
            })
        }),
        ("weight decay", |hyper, _| {
            let decay = match &mut hyper.base {
                Base::Sgd { weight_decay, .. } => weight_decay,
                Base::Adam(moments) | Base::AdamW(moments) => &mut moments.weight_decay,
                other => unreachable!("no decay of {other:?}"),
            };
            let some = *decay > 0.0;
            *decay *= 1.1;
            some
        }),
        ("momentum", |hyper, _| match &mut hyper.base {
            Base::Sgd { momentum: Some(momentum), .. } => {
                momentum.momentum *= 1.0001;
                true
            }
            Base::Sgd { .. } => false,
            Base::Adam(moments) | Base::AdamW(moments) => {
                moments.beta_1 *= 1.0001;
                true
            }
            _ => false,
        }),
    ];
    let (goldens, _) = golden::load().unwrap();
    for (name, change) in changes {
        let mut affected = 0;
        for golden in &goldens {
            let (mut hyper, mut lr) = (golden.hyper.clone(), golden.lr);
            // Steps of 1e-12 are below the rounding of weights of order 1.
            let lost = golden.file == "sgd_tiny_grad.json" && !["rho", "momentum"].contains(name);
            if !change(&mut hyper, &mut lr) || lost {
                continue;
            }
            affected += 1;
            let inner = OracleRoute::new(hyper, golden.weight.clone());
            let result = replay_rounded(golden, &mut AtRate { inner, lr });
            assert!(result.is_err(), "{}: a wrong {name} passed", golden.file);
        }
        assert!(golden::is_own_folder() || affected > 1, "{name} affects {affected} files");
    }
}

/// A wrong sign of one element of any quantity exceeds the bound.
#[test]
fn the_derived_bound_detects_a_flipped_sign() {
    let (goldens, _) = golden::load().unwrap();
    for golden in &goldens {
        let exact = || OracleRoute::new(golden.hyper.clone(), golden.weight.clone());
        replay_rounded(golden, &mut exact()).unwrap();
        for quantity in 0..2 + golden.hyper.base.state_names().len() {
            for element in [0, 17, 34] {
                let mut golden = golden.clone();
                let last = golden.expected.last_mut().unwrap();
                let tensors = match quantity {
                    0 => &mut last.perturbed,
                    1 => &mut last.weight,
                    state => &mut last.state[state - 2],
                };
                tensors[0][element] *= -1.0;
                let mut route = exact();
                let result = replay_rounded(&golden, &mut route);
                assert!(result.is_err(), "{}: {quantity}, {element}", golden.file);
            }
        }
    }
}

/// The oracle with another learning rate.
struct AtRate {
    inner: OracleRoute,
    lr: f64,
}

impl Route for AtRate {
    fn ascend(&mut self, grad: &[Vec<f64>]) -> Result<Tensors, String> {
        self.inner.ascend(grad)
    }

    fn descend(&mut self, _: f64, grad_perturbed: &[Vec<f64>]) -> Result<Tensors, String> {
        self.inner.descend(self.lr, grad_perturbed)
    }

    fn state(&mut self) -> Result<Vec<Tensors>, String> {
        self.inner.state()
    }
}
