//! The method's hyperparameters, independent of any GPU or framework.
//!
//! WSAM (Yue et al., KDD 2023, <https://arxiv.org/abs/2305.15817>) minimises
//! `L(w) + alpha * (max L(w + e) - L(w))`, the loss plus a weighted sharpness. One step is an
//! *ascent* to `w + e_w`, a second gradient there, and a *descent* by a base optimizer. The kernels,
//! the tensor operations and the oracle all take their constants from [`Hyperparameters`].

mod ae_sam;
mod family;
mod group;
mod interval;
mod non_finite;
mod pairs;
mod passes;
mod proportional;

pub use ae_sam::AeSam;
pub use family::{LOOK_SAM_SMALLEST_SINE, Method};
pub use group::{Group, InGroup, MAX_OWN_NORMS, NormScope};
pub use interval::Interval;
pub use non_finite::{NonFinite, Outcome};
pub use pairs::IncompatibleOptions;
pub use passes::{PassRule, Passes};
pub use proportional::Proportional;

/// Error for a hyperparameter outside its domain.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{name} is {value}, but it must be {expected}")]
#[non_exhaustive]
pub struct InvalidHyperparameter {
    /// Name of the hyperparameter, as in the configuration.
    pub name: &'static str,
    /// The value given.
    pub value: f64,
    /// The domain, phrased to follow "must be".
    pub expected: &'static str,
}

/// Classical momentum of SGD, as in PyTorch and Burn: `m <- momentum * m + (1 - dampening) * h`.
///
/// The first step sets `m <- h`, without dampening.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Momentum {
    /// Decay of the momentum buffer, in `[0, 1)`.
    pub momentum: f64,
    /// Dampening of the gradient, in `[0, 1]`.
    pub dampening: f64,
    /// Nesterov momentum: the update is `h + momentum * m` instead of `m`.
    pub nesterov: bool,
}

/// Constants of Adam and AdamW (Kingma & Ba 2015; Loshchilov & Hutter 2019).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moments {
    /// Decay of the first moment, in `[0, 1)`.
    pub beta_1: f64,
    /// Decay of the second moment, in `[0, 1)`.
    pub beta_2: f64,
    /// Added to the square root of the bias-corrected second moment.
    pub epsilon: f64,
    /// Weight decay: an L2 term in the gradient for Adam, decoupled for AdamW.
    pub weight_decay: f64,
    /// AMSGrad: divide by the largest second moment so far (Reddi et al. 2018).
    pub amsgrad: bool,
}

/// The base optimizer that WSAM wraps.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Base {
    /// Stochastic gradient descent.
    Sgd {
        /// Momentum, if any.
        momentum: Option<Momentum>,
        /// L2 penalty, added to the gradient before the momentum.
        weight_decay: f64,
    },
    /// Adam, with weight decay as an L2 term.
    Adam(Moments),
    /// AdamW: decoupled weight decay.
    AdamW(Moments),
}

impl Base {
    /// Returns the names of a parameter's state tensors, in the order that every API of this crate uses.
    ///
    /// The names are PyTorch's. Each tensor has the shape of its parameter.
    pub fn state_names(&self) -> &'static [&'static str] {
        match self {
            Base::Sgd { momentum: None, .. } => &[],
            Base::Sgd { momentum: Some(_), .. } => &["momentum_buffer"],
            Base::Adam(m) | Base::AdamW(m) if m.amsgrad => {
                &["exp_avg", "exp_avg_sq", "max_exp_avg_sq"]
            }
            Base::Adam(_) | Base::AdamW(_) => &["exp_avg", "exp_avg_sq"],
        }
    }

    /// Returns the name of the optimizer, for reports.
    pub fn name(&self) -> &'static str {
        match self {
            Base::Sgd { .. } => "SGD",
            Base::Adam(_) => "Adam",
            Base::AdamW(_) => "AdamW",
        }
    }
}

/// How the sharpness enters the update.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Coupling {
    /// The base optimizer steps on `h = (1 - alpha) g + alpha g~`.
    Coupled,
    /// The base optimizer steps on `g`; then `w <- w - lr * alpha * (g~ - g)`. The paper's default: the sharpness
    /// does not enter momentum or moments.
    #[default]
    Decoupled,
}

/// Which gradients `max_norm` clips.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClipScope {
    /// `g` and `g~`, each by its own global norm. The perturbation uses the unclipped `g`. The authors'
    /// behaviour.
    #[default]
    Both,
    /// Only `g~`, as in a second published implementation.
    PerturbedOnly,
}

/// Clipping by global norm: a gradient is scaled by `min(1, max_norm / (norm + 1e-6))`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clip {
    /// The largest global norm that is not clipped.
    pub max_norm: f64,
    /// Which gradients are clipped.
    pub scope: ClipScope,
}

/// Added to the norm in [`Clip`], as in PyTorch's `clip_grad_norm_`.
pub const CLIP_EPSILON: f64 = 1e-6;

/// The constants of a step of WSAM or one of its relatives, except the learning rate.
#[derive(Clone, Debug, PartialEq)]
pub struct Hyperparameters {
    /// The base optimizer.
    pub base: Base,
    /// The method: WSAM or one of its relatives.
    pub method: Method,
    /// Radius of the perturbation, `>= 0`.
    pub rho: f64,
    /// Weight of WSAM's sharpness, in `[0, 1)`: 0 is the base optimizer, coupled 1/2 is SAM.
    pub gamma: f64,
    /// Added to the gradient norm before the division, `> 0`.
    pub epsilon: f64,
    /// Adaptive perturbation (ASAM): `e_w = rho w^2 g / (|| |w| g || + epsilon)`.
    pub adaptive: bool,
    /// How WSAM's sharpness enters the update.
    pub coupling: Coupling,
    /// Clipping by global norm, if any.
    pub clip: Option<Clip>,
    /// Action of a step whose gradients are not finite.
    pub non_finite: NonFinite,
    /// Parameter groups that override these constants.
    pub groups: Vec<Group>,
}

impl Hyperparameters {
    /// Creates the authors' defaults for the base optimizer `base`: rho 0.05, gamma 0.9, eps 1e-12, decoupled,
    /// not adaptive, no clipping. One default differs: a step with non-finite gradients is skipped, where the
    /// authors' code writes NaNs.
    pub fn new(base: Base) -> Self {
        Self {
            base,
            method: Method::Wsam,
            rho: 0.05,
            gamma: 0.9,
            epsilon: 1e-12,
            adaptive: false,
            coupling: Coupling::Decoupled,
            clip: None,
            non_finite: NonFinite::Skip,
            groups: Vec::new(),
        }
    }

    /// Returns whether `g` is clipped, and not only `g~`.
    pub fn clips_gradient(&self) -> bool {
        self.clip.is_some_and(|clip| clip.scope == ClipScope::Both)
    }

    /// Returns the blend of the two gradients for parameters of no group.
    pub fn blend(&self) -> Blend {
        Blend::new(self.coupling, self.gamma)
    }

    /// Checks every constant against its domain.
    ///
    /// # Errors
    ///
    /// The first constant outside its domain, with its value. The domains include the range of the kernels' `f32`
    /// arithmetic: an epsilon that rounds to zero in `f32` is an error.
    pub fn validate(&self) -> Result<(), InvalidHyperparameter> {
        non_negative("rho", self.rho)?;
        below_one("gamma", self.gamma)?;
        positive("epsilon", self.epsilon)?;
        self.method.validate()?;
        if let Some(clip) = self.clip {
            positive("max_norm", clip.max_norm)?;
        }
        match self.base {
            Base::Sgd { momentum, weight_decay } => {
                non_negative("weight_decay", weight_decay)?;
                if let Some(m) = momentum {
                    below_one("momentum", m.momentum)?;
                    check("dampening", m.dampening, "finite and in [0, 1]", |v| {
                        (0.0..=1.0).contains(&v)
                    })?;
                }
            }
            Base::Adam(m) | Base::AdamW(m) => {
                below_one("beta_1", m.beta_1)?;
                below_one("beta_2", m.beta_2)?;
                positive("base epsilon", m.epsilon)?;
                non_negative("weight_decay", m.weight_decay)?;
            }
        }
        self.validate_groups()
    }
}

/// Checks that a learning rate is finite in `f32`.
///
/// # Errors
///
/// The value, if it is NaN, infinite or beyond the range of `f32`.
pub fn validate_lr(lr: f64) -> Result<(), InvalidHyperparameter> {
    check("lr", lr, "finite", |_| true)
}

/// Weights of the two gradients in one step: the base optimizer steps on `a g + b g~`, then
/// `lr * sharpness * (g~ - g)` is subtracted from the weights.
///
/// The kernels read these three numbers from a device buffer, so other optimizers of the SAM family need another
/// blend but no other kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Blend {
    /// Weight of the gradient `g` in the base step.
    pub a: f64,
    /// Weight of the perturbed gradient `g~` in the base step.
    pub b: f64,
    /// Weight of the sharpness `g~ - g`, which is subtracted after the base step.
    pub sharpness: f64,
}

fn check(
    name: &'static str,
    value: f64,
    expected: &'static str,
    inside: impl Fn(f64) -> bool,
) -> Result<(), InvalidHyperparameter> {
    if (value as f32).is_finite() && inside(value) {
        Ok(())
    } else {
        Err(InvalidHyperparameter { name, value, expected })
    }
}

fn non_negative(name: &'static str, value: f64) -> Result<(), InvalidHyperparameter> {
    check(name, value, "finite and at least 0", |v| v >= 0.0)
}

fn below_one(name: &'static str, value: f64) -> Result<(), InvalidHyperparameter> {
    check(name, value, "at least 0 and below 1", |v| (0.0..1.0).contains(&v))
}

fn positive(name: &'static str, value: f64) -> Result<(), InvalidHyperparameter> {
    check(name, value, "finite, above 0 and not below f32's smallest normal number", |v| {
        v as f32 >= f32::MIN_POSITIVE
    })
}
