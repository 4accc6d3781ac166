//! How far an `f32` route may be from the exact values of a golden file, derived for each element from the
//! magnitudes that its step adds up: a running error analysis.
//!
//! [`Bound`] takes every step of a file in [`Num`]s: pairs of the exact value (in `f64`) and a bound on the
//! error that a route in `f32` may have there. With `u = 2^-24`, half of the last place of 1 in `f32`:
//!
//! - An input that `f32` does not hold (a weight, a constant such as `1 - beta_1`) starts with the error of
//!   its rounding.
//! - A sum has the errors of its terms and `u |sum|`. So a sum whose terms cancel keeps the errors of the
//!   terms, whatever is left of them: that is its condition.
//! - A product has `|a| err(b) + |b| err(a) + err(a) err(b)` and `u |product|`.
//! - A quotient has the same for its parts and 2.5 last places (`5 u`), a root 4.5 (`9 u`): what Vulkan and
//!   WGSL allow, from which Metal, DX12 and the CPU differ only downwards.
//! - A result below the smallest normal `f32` may be flushed to zero, so every product and quotient may be off
//!   by that number, `2^-126`.
//! - `min`, `max` take the larger error.
//! - The norm of `n` numbers is a sum of positive terms in an order that is the route's own. Its relative error is
//!   at most `n / 2` roundings in any order (half, for the root), and in practice no more than
//!   `2 sqrt(n)` (N. Higham and T. Mary, SIAM J. Sci. Comput. 41(5), 2019: four standard deviations):
//!   the smaller of the two counts, with 16 more for squares, scalings, the quotient and the root.
//!
//! Where routes differ in the order of operations, the order with the larger bound is taken: the sharpness
//! step of the decoupled form as `lr alpha g~` and `lr alpha g` apart, which lean mode needs.
//!
//! Errors of weights and states go from a step into the next. There is no floor and no factor by hand: a weight
//! of 1 may be off by a few `u` after a step, a momentum of 1e-12 by a few `1e-12 u`.

use super::golden::{Golden, Tensors};
use burn_wsam::method::{
    Base, CLIP_EPSILON, ClipScope, Coupling, Hyperparameters, Moments, Momentum,
};
use std::ops::{Add, Div, Mul, Sub};

/// Half of the last place of 1 in `f32`.
const U: f64 = 1.0 / (1u64 << 24) as f64;
/// The smallest normal `f32`, below which results may be flushed.
const FLUSH: f64 = f32::MIN_POSITIVE as f64;

/// An exact value, and a bound on the error of a route's.
#[derive(Clone, Copy, Debug, Default)]
pub struct Num {
    pub exact: f64,
    pub error: f64,
}

impl Num {
    /// A number that is handed to a route, which rounds it.
    fn input(exact: f64) -> Self {
        Self { exact, error: (exact - f64::from(exact as f32)).abs() }
    }

    /// A constant that the host computes in `f64` and rounds.
    fn constant(exact: f64) -> Self {
        Self { exact, error: U * exact.abs() }
    }

    fn is_exactly(self, value: f64) -> bool {
        self.error == 0.0 && self.exact == value
    }

    /// With `count` roundings of the value.
    fn rounded(self, count: f64) -> Self {
        let Self { exact, error } = self;
        Self { exact, error: error + count * U * (exact.abs() + error) }
    }

    fn flushed(self) -> Self {
        Self { error: self.error + FLUSH, ..self }
    }

    fn map(self, f: impl Fn(f64) -> f64) -> Self {
        Self { exact: f(self.exact), ..self }
    }

    fn plus(self, other: Self) -> Self {
        if self.is_exactly(0.0) || other.is_exactly(0.0) {
            return if self.is_exactly(0.0) { other } else { self };
        }
        let (exact, error) = (self.exact + other.exact, self.error + other.error);
        Self { exact, error }.rounded(1.0)
    }

    fn sqrt(self) -> Self {
        let exact = self.exact.sqrt();
        // |sqrt(x + e) - sqrt(x)| is at most sqrt(e), and e / sqrt(x) - which is the sharper one beyond e.
        let error = self.error.sqrt().min(self.error / exact.max(f64::MIN_POSITIVE));
        Self { exact, error }.rounded(9.0)
    }

    fn max(self, other: Self) -> Self {
        Self { exact: self.exact.max(other.exact), error: self.error.max(other.error) }
    }
}

impl Add for Num {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.plus(other)
    }
}

impl Sub for Num {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self.plus(other.map(|x| -x))
    }
}

impl Mul for Num {
    type Output = Self;

    fn mul(self, other: Self) -> Self {
        let (a, b) = (self, other);
        // Nothing is added to a product with an exact zero, or with an exact one.
        for (one, other) in [(a, b), (b, a)] {
            if one.is_exactly(0.0) || one.is_exactly(1.0) {
                return Self { exact: one.exact * other.exact, error: one.exact * other.error };
            }
        }
        let error = a.exact.abs() * b.error + b.exact.abs() * a.error + a.error * b.error;
        Self { exact: a.exact * b.exact, error }.rounded(1.0).flushed()
    }
}

impl Div for Num {
    type Output = Self;

    fn div(self, other: Self) -> Self {
        let (a, b) = (self, other);
        let exact = a.exact / b.exact;
        // The smallest that the divisor may be; if that is zero, nothing can be said.
        let least = b.exact.abs() - b.error;
        let error =
            if least > 0.0 { (a.error + exact.abs() * b.error) / least } else { f64::INFINITY };
        Self { exact, error }.rounded(5.0).flushed()
    }
}

const ONE: Num = Num { exact: 1.0, error: 0.0 };

/// Tensors as flat lists.
pub type Nums = Vec<Vec<Num>>;

/// The steps of a golden file, with the errors that a route in `f32` may have made until then.
pub struct Bound {
    hyper: Hyperparameters,
    weights: Nums,
    /// Outer index: state.
    state: Vec<Nums>,
    step: i32,
}

impl Bound {
    pub fn new(golden: &Golden) -> Self {
        let weights = inputs(&golden.weight);
        let states = golden.hyper.base.state_names().iter();
        let zeros = |_| weights.iter().map(|tensor| vec![Num::default(); tensor.len()]).collect();
        let state = states.map(zeros).collect();
        Self { hyper: golden.hyper.clone(), weights, state, step: 0 }
    }

    /// `w + e_w` for a gradient.
    pub fn ascend(&self, grad: &Tensors) -> Nums {
        let Hyperparameters { adaptive, rho, epsilon, .. } = self.hyper;
        let grad = inputs(grad);
        let scaled = match adaptive {
            true => zip(&self.weights, &grad, |w, g| w * g),
            false => grad.clone(),
        };
        let divisor = norm(&scaled) + Num::constant(epsilon);
        let rho = Num::constant(rho);
        zip(&self.weights, &grad, |w, g| {
            let e = rho * (g / divisor).rounded(1.0);
            w + if adaptive { e * (w * w) } else { e }
        })
    }

    /// The step that follows, on both gradients. The new weights are [`weights`](Self::weights).
    pub fn descend(&mut self, lr: f64, grad: &Tensors, grad_perturbed: &Tensors) {
        self.step += 1;
        let (mut g, mut p) = (inputs(grad), inputs(grad_perturbed));
        if let Some(clip) = self.hyper.clip {
            let factor = |grad: &Nums| {
                let divisor = norm(grad) + Num::constant(CLIP_EPSILON);
                let ratio = (Num::constant(clip.max_norm) / divisor).rounded(1.0);
                // Well beyond 1 it is 1 on every route.
                if ratio.exact - ratio.error > 1.0 {
                    ONE
                } else {
                    ratio.map(|ratio| ratio.min(1.0))
                }
            };
            if clip.scope == ClipScope::Both {
                let factor = factor(&g);
                g = map(&g, |g| factor * g);
            }
            let factor = factor(&p);
            p = map(&p, |p| factor * p);
        }
        let alpha = self.hyper.gamma / (1.0 - self.hyper.gamma);
        match self.hyper.coupling {
            Coupling::Coupled => {
                // The ends of the blend are one gradient or the other, as it is.
                let h = match alpha {
                    0.0 => g,
                    1.0 => p,
                    alpha => zip(&g, &p, |g, p| g + Num::constant(alpha) * (p - g)),
                };
                self.base_step(lr, &h);
            }
            Coupling::Decoupled => {
                self.base_step(lr, &g);
                if alpha == 0.0 {
                    return;
                }
                let factor = Num::constant(lr) * Num::constant(alpha);
                let sharpness = zip(&p, &g, |p, g| p - g);
                let at_once = zip(&self.weights, &sharpness, |w, s| w - factor * s);
                let with_g = zip(&self.weights, &g, |w, g| w + factor * g);
                let apart = zip(&with_g, &p, |w, p| w - factor * p);
                let larger = |a: Num, b: Num| Num { error: a.error.max(b.error), ..a };
                self.weights = zip(&at_once, &apart, larger);
            }
        }
    }

    pub fn weights(&self) -> &Nums {
        &self.weights
    }

    pub fn state(&self) -> &[Nums] {
        &self.state
    }

    fn base_step(&mut self, lr: f64, h: &Nums) {
        let base = self.hyper.base;
        let rate = Num::constant(lr);
        let penalty = match base {
            Base::Sgd { weight_decay, .. } => weight_decay,
            Base::Adam(moments) => moments.weight_decay,
            Base::AdamW(_) => 0.0,
            other => unimplemented!("{other:?}"),
        };
        let d = match penalty {
            0.0 => h.clone(),
            penalty => zip(h, &self.weights, |h, w| h + Num::constant(penalty) * w),
        };
        let update = match base {
            Base::Sgd { momentum: None, .. } => d,
            Base::Sgd { momentum: Some(momentum), .. } => self.momentum(momentum, &d),
            Base::Adam(moments) | Base::AdamW(moments) => self.adam(moments, &d),
            other => unimplemented!("{other:?}"),
        };
        let decay = match base {
            Base::AdamW(moments) if moments.weight_decay != 0.0 => {
                Num::constant(1.0 - lr * moments.weight_decay)
            }
            _ => ONE,
        };
        self.weights = zip(&self.weights, &update, |w, u| decay * w - rate * u);
    }

    fn momentum(&mut self, constants: Momentum, d: &Nums) -> Nums {
        let mu = Num::constant(constants.momentum);
        let share = match constants.dampening {
            0.0 => ONE,
            dampening => Num::constant(1.0 - dampening),
        };
        let buffer = match self.step {
            1 => d.clone(),
            _ => zip(&self.state[0], d, |m, d| mu * m + share * d),
        };
        self.state[0] = buffer.clone();
        if constants.nesterov { zip(d, &buffer, |d, m| d + mu * m) } else { buffer }
    }

    fn adam(&mut self, constants: Moments, d: &Nums) -> Nums {
        let Moments { beta_1, beta_2, epsilon, amsgrad, .. } = constants;
        let moment = |old: &Nums, new: &Nums, beta: f64| {
            let (keep, add) = (Num::constant(beta), Num::constant(1.0 - beta));
            zip(old, new, |old, new| keep * old + add * new)
        };
        self.state[0] = moment(&self.state[0], d, beta_1);
        self.state[1] = moment(&self.state[1], &map(d, |d| d * d), beta_2);
        let mut second = self.state[1].clone();
        if amsgrad {
            self.state[2] = zip(&self.state[2], &second, Num::max);
            second = self.state[2].clone();
        }
        let bias = |beta: f64| Num::constant(1.0 - beta.powi(self.step));
        let (bias_1, bias_2) = (bias(beta_1), bias(beta_2));
        let largest = self.largest_update(beta_1, beta_2);
        zip(&self.state[0], &second, |m, v| {
            let u = (m / bias_1) / ((v / bias_2).sqrt() + Num::constant(epsilon));
            // Both are of that size, whatever the errors of the gradients were.
            Num { error: u.error.min(u.exact.abs() + largest), ..u }
        })
    }

    /// The largest update that Adam can take, whatever the gradients: its first moment is a mean of them with
    /// weights `a_i`, its second one of their squares with weights `b_i`, and by Cauchy's inequality their
    /// quotient is at most the root of the sum of `a_i^2 / b_i`.
    fn largest_update(&self, beta_1: f64, beta_2: f64) -> f64 {
        let weight =
            |beta: f64, age: i32| (1.0 - beta) * beta.powi(age) / (1.0 - beta.powi(self.step));
        let ratio = |age| weight(beta_1, age).powi(2) / weight(beta_2, age);
        // A hundredth for the roundings of the moments themselves.
        1.01 * (0..self.step).map(ratio).sum::<f64>().sqrt()
    }
}

/// The global norm, as an error of all of its elements.
fn norm(tensors: &Nums) -> Num {
    let all = || tensors.iter().flatten();
    let exact = all().map(|x| x.exact * x.exact).sum::<f64>().sqrt();
    // No further from the norm than the vector of errors is long.
    let error = all().map(|x| x.error * x.error).sum::<f64>().sqrt();
    let n = all().count() as f64;
    Num { exact, error }.rounded((n / 2.0).min(2.0 * n.sqrt()) + 16.0)
}

fn inputs(tensors: &Tensors) -> Nums {
    tensors.iter().map(|tensor| tensor.iter().map(|x| Num::input(*x)).collect()).collect()
}

fn map(tensors: &Nums, f: impl Fn(Num) -> Num) -> Nums {
    tensors.iter().map(|tensor| tensor.iter().map(|x| f(*x)).collect()).collect()
}

fn zip(left: &Nums, right: &Nums, f: impl Fn(Num, Num) -> Num) -> Nums {
    let one = |(left, right): (&Vec<Num>, &Vec<Num>)| {
        left.iter().zip(right).map(|(left, right)| f(*left, *right)).collect()
    };
    left.iter().zip(right).map(one).collect()
}
