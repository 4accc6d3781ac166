//! The methods again, in the four stages that kernels can take: sums over columns, a row of coefficients, an
//! ascent and a descent that do not depend on the method. The base optimizer is the oracle's.
//!
//! The row says what a method is:
//!
//! - ascent: `w + T m (p g + q h)`, with `T` 1, or `w^2` where adaptive;
//! - descent: `base_step(a g + b g~ + c h) - lr (d g + f g~)`;
//! - state: `h <- u g + v g~ + z h`.

use burn_wsam::method::{
    Base, CLIP_EPSILON, ClipScope, Coupling, Hyperparameters, LOOK_SAM_SMALLEST_SINE, Method,
    NonFinite, Passes,
};
use burn_wsam::reference::Oracle;

use super::planted::{COEFFICIENTS, Fault};
use crate::map;
use burn_wsam_support::family_replay::FamilyRoute;
use burn_wsam_support::golden::Tensors;

/// One number for each of [`COEFFICIENTS`].
#[derive(Clone, Copy, Debug, Default)]
struct Row {
    m: f64,
    p: f64,
    q: f64,
    a: f64,
    b: f64,
    c: f64,
    d: f64,
    f: f64,
    u: f64,
    v: f64,
    z: f64,
}

impl Row {
    fn columns(&mut self) -> [&mut f64; COEFFICIENTS.len()] {
        let Self { m, p, q, a, b, c, d, f, u, v, z } = self;
        [m, p, q, a, b, c, d, f, u, v, z]
    }
}

/// A run in stages, of parameters of no group.
#[derive(Clone, Debug)]
pub(super) struct Staged {
    hyper: Hyperparameters,
    base: Oracle,
    /// `h`: the method's state, or Momentum-SAM's momentum after the last step.
    h: Tensors,
    has_state: bool,
    place: u32,
    grad: Tensors,
    row: Row,
    last_momentum: Tensors,
    last_perturbed_norm: f64,
    fault: Fault,
    /// The coefficients that were not zero in some step.
    pub(super) used: [bool; COEFFICIENTS.len()],
}

impl Staged {
    pub(super) fn new(hyper: Hyperparameters, weights: Tensors, fault: Fault) -> Self {
        let zeros = map(&weights, |_| 0.0);
        let base = Hyperparameters {
            non_finite: NonFinite::Propagate,
            ..Hyperparameters::new(hyper.base)
        };
        Self {
            hyper,
            base: Oracle::new(base, weights),
            h: zeros.clone(),
            has_state: false,
            place: u32::from(fault == Fault::LateCycle),
            grad: Tensors::new(),
            row: Row::default(),
            last_momentum: zeros,
            last_perturbed_norm: 0.0,
            fault,
            used: [false; COEFFICIENTS.len()],
        }
    }

    pub(super) fn weights(&self) -> &[Vec<f64>] {
        self.base.weights()
    }

    fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    /// Notes which coefficients are used, and plants the fault of a sign.
    fn planted(&mut self, mut row: Row) -> Row {
        let planted = match self.fault {
            Fault::Sign(index) => Some(index),
            _ => None,
        };
        for (index, value) in row.columns().into_iter().enumerate() {
            self.used[index] |= *value != 0.0;
            if planted == Some(index) {
                *value = -*value;
            }
        }
        row
    }

    fn clip_factor(&self, square: f64) -> f64 {
        let factor = |max_norm: f64| (max_norm / (square.sqrt() + CLIP_EPSILON)).min(1.0);
        self.hyper.clip.map_or(1.0, |clip| factor(clip.max_norm))
    }

    fn gradient_factor(&self, square: f64) -> f64 {
        match self.hyper.clip.map(|clip| clip.scope) {
            Some(ClipScope::Both) => self.clip_factor(square),
            _ => 1.0,
        }
    }

    /// `w + T m (p g + q h)`.
    fn ascended(&self, row: &Row, g: &[Vec<f64>]) -> Tensors {
        let moved = combined([(row.p, g), (row.q, &self.h)]);
        let adaptive = self.hyper.adaptive;
        (self.weights().iter().zip(&moved))
            .map(|(w, e)| {
                let scale = |w: f64| row.m * if adaptive { w * w } else { 1.0 };
                w.iter().zip(e).map(|(w, e)| w + scale(*w) * e).collect()
            })
            .collect()
    }

    /// The base step and the update of `h`.
    fn descended(&mut self, lr: f64, row: &Row, g: &[Vec<f64>], p: &[Vec<f64>]) -> Tensors {
        let on = combined([(row.a, g), (row.b, p), (row.c, &self.h)]);
        self.base.base_step(lr, &on).unwrap();
        let beside = combined([(row.d, g), (row.f, p)]);
        let moved = combined([(1.0, self.base.weights()), (-lr, &beside)]);
        self.base.set_weights(moved.clone()).unwrap();
        self.h = combined([(row.u, g), (row.v, p), (row.z, &self.h)]);
        self.has_state = true;
        moved
    }

    fn momentum_row(&self) -> Row {
        let square = if self.is(Fault::NoMomentumNorm) { 1.0 } else { product(&self.h, &self.h) };
        Row { m: -self.hyper.rho / (square.sqrt() + self.hyper.epsilon), q: 1.0, ..Row::default() }
    }

    /// The row of a descent with two gradients.
    fn descent_row(&self, g: &[Vec<f64>], p: &[Vec<f64>]) -> Row {
        let (gg, pp, gp) = (product(g, g), product(p, p), product(g, p));
        let (of_g, of_p) = (self.gradient_factor(gg), self.clip_factor(pp));
        let epsilon = self.hyper.epsilon;
        let (g_norm, p_norm) = (gg.sqrt(), pp.sqrt());
        // `h` stays as it is.
        let kept = Row { z: 1.0, ..Row::default() };
        match self.hyper.method {
            Method::Wsam => {
                let alpha = self.hyper.gamma / (1.0 - self.hyper.gamma);
                match self.hyper.coupling {
                    Coupling::Coupled => Row { a: (1.0 - alpha) * of_g, b: alpha * of_p, ..kept },
                    Coupling::Decoupled => {
                        Row { a: of_g, d: -alpha * of_g, f: alpha * of_p, ..kept }
                    }
                }
            }
            Method::Gsam { alpha } => {
                let cosine = match self.fault {
                    Fault::LateCosine => self.row.b,
                    Fault::AdaptiveCosine if self.hyper.adaptive => {
                        let weighted = |t: &[Vec<f64>]| times(self.weights(), t);
                        let (g, p) = (weighted(g), weighted(p));
                        product(&g, &p) / (product(&g, &g) * product(&p, &p)).sqrt()
                    }
                    _ => gp / (g_norm * p_norm + epsilon),
                };
                let along = match self.fault {
                    Fault::NoLength => cosine,
                    Fault::WholeGradient => 0.0,
                    _ => cosine * g_norm / (p_norm + epsilon),
                };
                match self.fault {
                    Fault::OtherWayRound => {
                        Row { a: alpha * of_g * gp / gg, b: (1.0 - alpha) * of_p, ..kept }
                    }
                    _ => Row { a: -alpha * of_g, b: of_p + alpha * of_g * along, ..kept },
                }
            }
            Method::FriendlySam { lambda, .. } => {
                let lambda = if self.is(Fault::SwappedLambda) { 1.0 - lambda } else { lambda };
                let first = !self.has_state && !self.is(Fault::ZeroAverage);
                let share = if first { 1.0 } else { 1.0 - lambda };
                let of_perturbed = self.is(Fault::AverageOfPerturbed);
                let (u, v) = if of_perturbed { (0.0, share) } else { (share, 0.0) };
                Row { b: of_p, u, v, z: if first { 0.0 } else { lambda }, ..Row::default() }
            }
            Method::LookSam { .. } => {
                let along = gp / (gg + epsilon);
                let along = if self.is(Fault::NotOrthogonal) { 0.0 } else { along };
                let v = combined([(1.0, p), (-along, g)]);
                let length = product(&v, &v).sqrt();
                let per_length = match length > LOOK_SAM_SMALLEST_SINE * p_norm {
                    true if self.is(Fault::NotNormalised) => 1.0,
                    true => 1.0 / length,
                    false => 0.0,
                };
                Row { b: of_p, u: -along * per_length, v: per_length, ..Row::default() }
            }
            _ => Row::default(),
        }
    }
}

impl FamilyRoute for Staged {
    fn passes(&mut self) -> Passes {
        self.hyper.method.passes(self.place)
    }

    fn gradient_point(&mut self) -> Result<Tensors, String> {
        if self.hyper.method != Method::MomentumSam {
            return Ok(self.weights().to_vec());
        }
        let row = self.momentum_row();
        let row = self.planted(row);
        Ok(self.ascended(&row, &map(&self.h, |_| 0.0)))
    }

    fn ascend(&mut self, grad: &[Vec<f64>]) -> Result<Tensors, String> {
        if self.is(Fault::UpdatedFirst)
            && let Method::FriendlySam { lambda, .. } = self.hyper.method
            && self.has_state
        {
            self.h = combined([(lambda, &self.h), (1.0 - lambda, grad)]);
        }
        let q = match self.hyper.method {
            Method::FriendlySam { sigma, .. } if self.has_state => -sigma,
            _ => 0.0,
        };
        let along = combined([(1.0, grad), (q, &self.h)]);
        let along = if self.is(Fault::NormOfGradient) { grad.to_vec() } else { along };
        let weighted = match self.hyper.adaptive {
            false => along,
            true if self.is(Fault::SquaredWeightInNorm) => {
                times(self.weights(), &times(self.weights(), &along))
            }
            true => times(self.weights(), &along),
        };
        let square = product(&weighted, &weighted);
        let norm = if self.is(Fault::SquaredNorm) { square } else { square.sqrt() };
        let m = self.hyper.rho / (norm + self.hyper.epsilon);
        let row = self.planted(Row { m, p: 1.0, q, ..Row::default() });
        self.grad = grad.to_vec();
        Ok(self.ascended(&row, grad))
    }

    fn descend(&mut self, lr: f64, grad_perturbed: &[Vec<f64>]) -> Result<Tensors, String> {
        let g = self.grad.clone();
        let mut row = self.descent_row(&g, grad_perturbed);
        self.row = row;
        if self.is(Fault::StepsOnGradient) {
            (row.a, row.b) = (row.b, row.a);
        }
        let is_friendly = matches!(self.hyper.method, Method::FriendlySam { .. });
        if self.is(Fault::UpdatedFirst) && is_friendly && self.has_state {
            (row.u, row.z) = (0.0, 1.0);
        }
        let row = self.planted(row);
        self.last_perturbed_norm = product(grad_perturbed, grad_perturbed).sqrt();
        self.place = (self.place + 1) % self.cycle();
        Ok(self.descended(lr, &row, &g, grad_perturbed))
    }

    fn one_pass(&mut self, lr: f64, grad: &[Vec<f64>]) -> Result<Tensors, String> {
        let square = product(grad, grad);
        self.place = (self.place + 1) % self.cycle();
        let zeros = map(grad, |_| 0.0);
        if let Method::LookSam { alpha, .. } = self.hyper.method {
            let of_g = self.gradient_factor(square);
            let norm = match self.fault {
                Fault::NoGradientNorm => 1.0,
                Fault::NormOfPerturbed => self.last_perturbed_norm,
                _ => square.sqrt(),
            };
            let row = Row { a: of_g, c: alpha * norm * of_g, z: 1.0, ..Row::default() };
            let row = self.planted(row);
            return Ok(self.descended(lr, &row, grad, &zeros));
        }
        // The base optimizer adds the penalty of `w`; the rest is that of the perturbation.
        let decay = match self.hyper.base {
            Base::Sgd { weight_decay, .. } => weight_decay,
            Base::Adam(moments) => moments.weight_decay,
            _ => 0.0,
        };
        let decay = if self.is(Fault::DecayOfWeights) { 0.0 } else { decay };
        let point = self.ascended(&self.momentum_row(), &zeros);
        let moved = combined([(1.0, &point), (-1.0, self.weights())]);
        let row = Row { a: self.clip_factor(square), z: 1.0, ..Row::default() };
        let row = self.planted(row);
        let on = combined([(row.a, grad), (decay, &moved)]);
        self.base.base_step(lr, &on).unwrap();
        let index = self.hyper.base.momentum_state().unwrap();
        let momentum = self.base.state()[index].clone();
        let last = std::mem::replace(&mut self.last_momentum, momentum.clone());
        self.h = if self.is(Fault::LateMomentum) { last } else { map(&momentum, |m| row.z * m) };
        Ok(self.weights().to_vec())
    }

    fn state(&mut self) -> Result<Vec<Tensors>, String> {
        Ok(self.base.state().to_vec())
    }

    fn method_state(&mut self) -> Result<Vec<Tensors>, String> {
        Ok(self.hyper.method.state_names().iter().map(|_| self.h.clone()).collect())
    }
}

impl Staged {
    fn cycle(&self) -> u32 {
        self.hyper.method.cycle() + u32::from(self.is(Fault::LongerCycle))
    }
}

/// The sum of tensors, each times its factor.
fn combined<const N: usize>(terms: [(f64, &[Vec<f64>]); N]) -> Tensors {
    let shape = terms[0].1;
    (0..shape.len())
        .map(|tensor| {
            (0..shape[tensor].len())
                .map(|i| terms.iter().map(|(factor, of)| factor * of[tensor][i]).sum())
                .collect()
        })
        .collect()
}

fn times(left: &[Vec<f64>], right: &[Vec<f64>]) -> Tensors {
    (left.iter().zip(right)).map(|(l, r)| l.iter().zip(r).map(|(l, r)| l * r).collect()).collect()
}

fn product(left: &[Vec<f64>], right: &[Vec<f64>]) -> f64 {
    times(left, right).iter().flatten().sum()
}
