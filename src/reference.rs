//! Unstable: this module exists for tests, and may change in any release.
//!
//! A sequential `f64` oracle of the WSAM step, against which the other implementations are tested. It follows the papers and PyTorch's definitions, one tensor and one operation at a time, and shares only
//! [`Hyperparameters`] with the kernels. It favours clarity over speed; only tests call it.
//!
//! Symbols: `w` weights (also the anchor), `g` gradient at `w`, `g~` (`p` in the code) gradient at
//! `w + e_w`, `h` gradient that the base optimizer receives, `m` momentum or first moment, `v` second
//! moment.
//!
//! | Formula | Source |
//! | --- | --- |
//! | `e_w = rho g / (\|\|g\|\| + eps)` | Foret et al. 2021 (SAM), eq. 2 at p = 2; `eps` is from the WSAM authors' code |
//! | `e_w = rho w^2 g / (\|\| \|w\| g \|\| + eps)` | Kwon et al. 2021 (ASAM), element-wise operator |
//! | blend of `g` and `g~` | Yue et al. 2023 (WSAM), the coupled and the decoupled algorithm |
//! | `min(1, max_norm / (norm + 1e-6))` | PyTorch, `clip_grad_norm_` |
//! | SGD with momentum | PyTorch, `torch.optim.SGD` |
//! | Adam, AdamW, AMSGrad | PyTorch, `torch.optim.Adam`, `AdamW` (Kingma & Ba 2015, Loshchilov & Hutter 2019, Reddi et al. 2018) |

use crate::method::{
    Base, CLIP_EPSILON, ClipScope, Coupling, Hyperparameters, InGroup, Moments, Momentum, Outcome,
};

/// Error of a call to the oracle: the tensors do not match, or an ascent is missing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReferenceError {
    /// The number of gradients differs from the number of weights.
    #[error("{actual} gradient tensors were given for {expected} weight tensors")]
    TensorCount {
        /// Number of weight tensors.
        expected: usize,
        /// Number of gradient tensors.
        actual: usize,
    },
    /// A gradient's length differs from its weight's.
    #[error("gradient tensor {tensor} has {actual} elements, but its weight has {expected}")]
    TensorLength {
        /// Index of the tensor.
        tensor: usize,
        /// Number of elements of the weight.
        expected: usize,
        /// Number of elements of the gradient.
        actual: usize,
    },
    /// A tensor's group is not among the hyperparameters' groups.
    #[error("tensor {tensor} has group {group}, but the hyperparameters define {groups} groups")]
    Group {
        /// Index of the tensor.
        tensor: usize,
        /// The tensor's group, counted from 1.
        group: usize,
        /// Number of groups in the hyperparameters.
        groups: usize,
    },
    /// A descent without an ascent before it. Each descent needs a new ascent.
    #[error("descent was called without an ascent before it: call ascent before each descent")]
    DescentBeforeAscent,
}

/// Global norms seen by the last step, before any clipping.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Norms {
    /// Norm of `g`, set by [`Oracle::ascent`]. Plain `||g||`, also when the perturbation is
    /// adaptive.
    pub gradient: f64,
    /// Norm of `g~`, set by [`Oracle::descent`].
    pub perturbed: f64,
}

/// The state of one training run under the oracle.
#[derive(Clone, Debug)]
pub struct Oracle {
    hyper: Hyperparameters,
    /// The resolved hyperparameters of each tensor's group.
    groups: Vec<InGroup>,
    weights: Vec<Vec<f64>>,
    /// `g` of the last ascent, until a descent uses it.
    pending: Option<Vec<Vec<f64>>>,
    /// Outer index: `base.state_names()`; inner index: tensor.
    state: Vec<Vec<Vec<f64>>>,
    step: i32,
    norms: Norms,
    f32_norms: bool,
}

impl Oracle {
    /// Creates an oracle that starts from `weights`, one flat vector for each tensor.
    ///
    /// The hyperparameters are not checked; see [`Hyperparameters::validate`].
    pub fn new(hyper: Hyperparameters, weights: Vec<Vec<f64>>) -> Self {
        let groups = vec![hyper.in_no_group(); weights.len()];
        Self::start(hyper, weights, groups)
    }

    /// Creates an oracle that starts from `weights`. `groups` holds each tensor's group: 0 for no group, `k`
    /// for the `k`-th of the hyperparameters' groups.
    ///
    /// # Errors
    ///
    /// [`ReferenceError::Group`] for a group that is not defined, and [`ReferenceError::TensorCount`] if `groups`
    /// and `weights` differ in length.
    pub fn with_groups(
        hyper: Hyperparameters,
        weights: Vec<Vec<f64>>,
        groups: &[usize],
    ) -> Result<Self, ReferenceError> {
        if groups.len() != weights.len() {
            let (expected, actual) = (weights.len(), groups.len());
            return Err(ReferenceError::TensorCount { expected, actual });
        }
        let find = |(tensor, group): (usize, &usize)| {
            let refused =
                ReferenceError::Group { tensor, group: *group, groups: hyper.groups.len() };
            hyper.in_group(*group).ok_or(refused)
        };
        let found = groups.iter().enumerate().map(find).collect::<Result<_, _>>()?;
        Ok(Self::start(hyper, weights, found))
    }

    fn start(hyper: Hyperparameters, weights: Vec<Vec<f64>>, groups: Vec<InGroup>) -> Self {
        let zeros: Vec<Vec<f64>> = weights.iter().map(|w| vec![0.0; w.len()]).collect();
        let state = hyper.base.state_names().iter().map(|_| zeros.clone()).collect();
        let (norms, f32_norms) = (Norms::default(), false);
        Self { hyper, groups, weights, pending: None, state, step: 0, norms, f32_norms }
    }

    /// Treats norms beyond the range of `f32` as infinite, as the routes that compute in `f32` do. The
    /// perturbation is then zero, clipping gives zero, and the gradient counts as not finite.
    #[must_use]
    pub fn with_f32_norms(self) -> Self {
        Self { f32_norms: true, ..self }
    }

    fn norm(&self, tensors: &[Vec<f64>]) -> f64 {
        let norm = norm(tensors);
        let is_beyond = self.f32_norms && (norm as f32).is_infinite();
        if is_beyond { f64::INFINITY } else { norm }
    }

    /// Returns `w + e_w` for the gradient `g` at `w`. The oracle's own weights do not change: they are the anchor.
    ///
    /// A second ascent before the descent replaces the first.
    ///
    /// # Errors
    ///
    /// The number or a length of the gradients differs from the weights'. On an error nothing changes.
    #[doc(alias = "first_step")]
    pub fn ascent(&mut self, grads: &[Vec<f64>]) -> Result<Vec<Vec<f64>>, ReferenceError> {
        self.check(grads)?;
        self.norms.gradient = self.norm(grads);
        // T_w g (Kwon et al. 2021), and an empty vector for a tensor that is not perturbed.
        let scaled: Vec<Vec<f64>> = (self.groups.iter().zip(&self.weights).zip(grads))
            .map(|((group, w), g)| match (group.perturbed, group.adaptive) {
                (false, _) => Vec::new(),
                (true, false) => g.clone(),
                (true, true) => zip(w, g, |w, g| w.abs() * g),
            })
            .collect();
        let norm_of = |scope| {
            let inside = |(group, scaled): (&InGroup, &Vec<f64>)| {
                (group.scope == scope).then(|| scaled.clone())
            };
            self.norm(&self.groups.iter().zip(&scaled).filter_map(inside).collect::<Vec<_>>())
        };
        let divisors: Vec<f64> = (0..self.hyper.scopes()).map(norm_of).collect();
        let perturbed = (self.groups.iter().zip(&self.weights).zip(grads))
            .map(|((group, w), g)| {
                let scale = group.rho / (divisors[group.scope] + self.hyper.epsilon);
                match (group.perturbed, group.adaptive) {
                    (false, _) => w.clone(),
                    (true, false) => zip(w, g, |w, g| w + g * scale),
                    (true, true) => zip(w, g, |w, g| w + w * w * g * scale),
                }
            })
            .collect();
        self.pending = Some(grads.to_vec());
        Ok(perturbed)
    }

    /// Updates the weights and the state, given the gradient `g~` at `w + e_w`. If a gradient is not finite it
    /// follows [`Hyperparameters::non_finite`].
    ///
    /// # Errors
    ///
    /// Those of [`ascent`](Self::ascent), and [`ReferenceError::DescentBeforeAscent`]. On an error nothing
    /// changes.
    #[doc(alias = "second_step")]
    pub fn descent(&mut self, lr: f64, grads_perturbed: &[Vec<f64>]) -> Result<(), ReferenceError> {
        self.check(grads_perturbed)?;
        let g = self.pending.take().ok_or(ReferenceError::DescentBeforeAscent)?;
        self.norms.perturbed = self.norm(grads_perturbed);
        let (gradient, perturbed) = (self.norms.gradient, self.norms.perturbed);
        let outcome =
            self.hyper.non_finite.outcome(false, gradient.is_finite(), perturbed.is_finite());
        if outcome == Outcome::Skipped {
            return Ok(());
        }
        self.step = self.step.saturating_add(1);

        let (g, p) = self.clip(g, grads_perturbed.to_vec());
        let p = if outcome == Outcome::Base { g.clone() } else { p };
        for (tensor, (g, p)) in g.iter().zip(&p).enumerate() {
            let InGroup { base, blend, lr_factor, .. } = self.groups[tensor];
            let lr = lr * lr_factor;
            match self.hyper.coupling {
                Coupling::Coupled => {
                    let h = zip(g, p, |g, p| blend.a * g + blend.b * p);
                    self.base_step_of(base, tensor, lr, &h);
                }
                Coupling::Decoupled => {
                    self.base_step_of(base, tensor, lr, g);
                    let sharpness = zip(p, g, |p, g| p - g);
                    let step = |w, s| w - lr * blend.sharpness * s;
                    self.weights[tensor] = zip(&self.weights[tensor], &sharpness, step);
                }
            }
        }
        Ok(())
    }

    /// Takes the base optimizer's step on `g`. It equals a WSAM step at `gamma = 0`, without the second pass.
    /// An ascent before it is discarded.
    ///
    /// # Errors
    ///
    /// Those of [`ascent`](Self::ascent).
    pub fn base_step(&mut self, lr: f64, grads: &[Vec<f64>]) -> Result<(), ReferenceError> {
        self.check(grads)?;
        self.pending = None;
        self.norms.gradient = self.norm(grads);
        let finite = self.norms.gradient.is_finite();
        if self.hyper.non_finite.outcome(false, finite, true) == Outcome::Skipped {
            return Ok(());
        }
        self.step = self.step.saturating_add(1);
        let (g, _) = self.clip(grads.to_vec(), Vec::new());
        for (tensor, g) in g.iter().enumerate() {
            let InGroup { base, lr_factor, .. } = self.groups[tensor];
            self.base_step_of(base, tensor, lr * lr_factor, g);
        }
        Ok(())
    }

    /// Returns the weights, without a perturbation.
    pub fn weights(&self) -> &[Vec<f64>] {
        &self.weights
    }

    /// Replaces the weights between steps, for example by weights rounded to half precision.
    ///
    /// # Errors
    ///
    /// The number or a length of the weights differs. On an error nothing changes.
    pub fn set_weights(&mut self, weights: Vec<Vec<f64>>) -> Result<(), ReferenceError> {
        self.check(&weights)?;
        self.weights = weights;
        Ok(())
    }

    /// Returns the state of the base optimizer, zeros before the first step. The outer index follows
    /// [`Base::state_names`], the inner index the tensors.
    pub fn state(&self) -> &[Vec<Vec<f64>>] {
        &self.state
    }

    /// Returns the norms of the last step, zeros before the first step.
    pub fn norms(&self) -> Norms {
        self.norms
    }

    fn check(&self, grads: &[Vec<f64>]) -> Result<(), ReferenceError> {
        if grads.len() != self.weights.len() {
            return Err(ReferenceError::TensorCount {
                expected: self.weights.len(),
                actual: grads.len(),
            });
        }
        for (tensor, (w, g)) in self.weights.iter().zip(grads).enumerate() {
            if g.len() != w.len() {
                return Err(ReferenceError::TensorLength {
                    tensor,
                    expected: w.len(),
                    actual: g.len(),
                });
            }
        }
        Ok(())
    }

    /// Clips each gradient by its own global norm.
    fn clip(&self, g: Vec<Vec<f64>>, p: Vec<Vec<f64>>) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
        let Some(clip) = self.hyper.clip else {
            return (g, p);
        };
        let all = |tensors: &[Vec<f64>], factor| {
            tensors.iter().map(|tensor| scaled(tensor, factor)).collect()
        };
        let p = all(&p, clip_coefficient(clip.max_norm, self.norms.perturbed));
        let g = match clip.scope {
            ClipScope::Both => all(&g, clip_coefficient(clip.max_norm, self.norms.gradient)),
            ClipScope::PerturbedOnly => g,
        };
        (g, p)
    }

    fn base_step_of(&mut self, base: Base, tensor: usize, lr: f64, h: &[f64]) {
        let w = self.weights[tensor].clone();
        let direction = match base {
            Base::Sgd { momentum, weight_decay } => {
                let h = zip(h, &w, |h, w| h + weight_decay * w);
                match momentum {
                    None => h,
                    Some(momentum) => self.momentum(momentum, tensor, &h),
                }
            }
            Base::Adam(moments) => {
                let h = zip(h, &w, |h, w| h + moments.weight_decay * w);
                self.adam(moments, tensor, &h)
            }
            Base::AdamW(moments) => {
                self.weights[tensor] = scaled(&w, 1.0 - lr * moments.weight_decay);
                self.adam(moments, tensor, h)
            }
        };
        self.weights[tensor] = zip(&self.weights[tensor], &direction, |w, d| w - lr * d);
    }

    /// Momentum of `torch.optim.SGD`. The first step sets the buffer to the gradient, without dampening.
    fn momentum(&mut self, constants: Momentum, tensor: usize, h: &[f64]) -> Vec<f64> {
        let mu = constants.momentum;
        let share = 1.0 - constants.dampening;
        let m = if self.step == 1 {
            h.to_vec()
        } else {
            zip(&self.state[0][tensor], h, |m, h| mu * m + share * h)
        };
        self.state[0][tensor] = m.clone();
        if constants.nesterov { zip(h, &m, |h, m| h + mu * m) } else { m }
    }

    /// Update direction of `torch.optim.Adam`, with weight decay already applied to `h`. Both moments are
    /// bias-corrected. AMSGrad takes the maximum of the *uncorrected* second moments.
    fn adam(&mut self, constants: Moments, tensor: usize, h: &[f64]) -> Vec<f64> {
        let (b1, b2) = (constants.beta_1, constants.beta_2);
        let m = zip(&self.state[0][tensor], h, |m, h| b1 * m + (1.0 - b1) * h);
        let mut v = zip(&self.state[1][tensor], h, |v, h| b2 * v + (1.0 - b2) * h * h);
        self.state[0][tensor] = m.clone();
        self.state[1][tensor] = v.clone();
        if constants.amsgrad {
            // Not `f64::max`, which would hide a NaN.
            v = zip(&self.state[2][tensor], &v, |old, v| if old >= v { old } else { v });
            self.state[2][tensor] = v.clone();
        }

        let m_hat = scaled(&m, 1.0 / (1.0 - b1.powi(self.step)));
        let v_hat = scaled(&v, 1.0 / (1.0 - b2.powi(self.step)));
        zip(&m_hat, &v_hat, |m, v| m / (v.sqrt() + constants.epsilon))
    }
}

/// The Euclidean norm over all elements of all tensors.
///
/// Elements are divided by the largest magnitude first, so that the squares neither overflow nor underflow. The
/// norm is NaN if an element is NaN, else infinity if an element is infinite, and zero without elements.
pub fn norm(tensors: &[Vec<f64>]) -> f64 {
    // A NaN stays, because comparisons with NaN are false.
    let largest = tensors.iter().flatten().fold(0.0_f64, |largest, x| {
        if x.is_nan() || x.abs() > largest { x.abs() } else { largest }
    });
    if largest == 0.0 || !largest.is_finite() {
        return largest;
    }
    let sum: f64 = tensors.iter().flatten().map(|x| (x / largest).powi(2)).sum();
    largest * sum.sqrt()
}

fn clip_coefficient(max_norm: f64, norm: f64) -> f64 {
    let ratio = max_norm / (norm + CLIP_EPSILON);
    // Not `f64::min`, which would hide a NaN.
    if ratio > 1.0 { 1.0 } else { ratio }
}

fn scaled(tensor: &[f64], factor: f64) -> Vec<f64> {
    tensor.iter().map(|x| x * factor).collect()
}

fn zip(left: &[f64], right: &[f64], f: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    left.iter().zip(right).map(|(l, r)| f(*l, *r)).collect()
}
