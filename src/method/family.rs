//! The methods: WSAM and its relatives.
//!
//! Every method moves the weights to `w + e_w`, takes a gradient there, and lets a base optimizer step from `w`.
//! The methods differ in the direction of `e_w`, in the gradient that the base optimizer gets, and in which steps
//! take a second gradient.
//!
//! Symbols: `g` gradient at `w`, `g~` gradient at `w + e_w`, `h` the tensor that a method stores for each
//! parameter, `<a, b>` dot product. Norms and dot products are taken over the perturbed parameters of one
//! [norm scope](super::NormScope).

use super::{Base, InvalidHyperparameter, Passes, check, non_negative};

/// A method of the SAM family.
///
/// | Method | `e_w` along | Base optimizer steps on | State `h` | Gradients a step |
/// | --- | --- | --- | --- | --- |
/// | [`Wsam`](Self::Wsam) | `g` | a blend of `g` and `g~` | | 2 |
/// | [`Gsam`](Self::Gsam) | `g` | `g~ - alpha v`, with `v` the part of `g` orthogonal to `g~` | | 2 |
/// | [`FriendlySam`](Self::FriendlySam) | `g - sigma h` | `g~` | average of `g` | 2 |
/// | [`LookSam`](Self::LookSam) | `g` | `g~`, or `g + alpha \|\|g\|\| h` | unit part of `g~` orthogonal to `g` | `1 + 1/k` |
/// | [`MomentumSam`](Self::MomentumSam) | `-m` | the only gradient, at `w + e_w` | | 1 |
///
/// [`gamma`](super::Hyperparameters::gamma) and [`coupling`](super::Hyperparameters::coupling) belong to WSAM.
/// The other methods do not read them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Method {
    /// WSAM in one of its two forms, of which SAM and the base optimizer are special cases: Yue et al., KDD 2023,
    /// <https://arxiv.org/abs/2305.15817>.
    #[default]
    Wsam,
    /// GSAM: Zhuang et al., "Surrogate Gap Minimization Improves Sharpness-Aware Training", ICLR 2022,
    /// <https://arxiv.org/abs/2203.08065>, Algorithm 1. `epsilon` stands where the authors' code has it.
    ///
    /// `cos = <g, g~> / (||g|| ||g~|| + eps)`, `v = g - cos ||g|| g~ / (||g~|| + eps)`; the base optimizer steps on
    /// `g~ - alpha v`. With `alpha` 0 it is SAM. Parameters that are not perturbed step on `g~`.
    Gsam {
        /// Weight of the orthogonal part, at least 0; 0.4 in the authors' example. The authors keep it while `rho`
        /// follows the learning rate; [`Proportional`](super::Proportional) serves either.
        alpha: f64,
    },
    /// Friendly-SAM: Li et al., CVPR 2024, <https://arxiv.org/abs/2403.12350>.
    ///
    /// `e_w` is taken along `d = g - sigma h`, in place of `g`; then `h <- lambda h + (1 - lambda) g`. The first step
    /// takes `d = g` and sets `h <- g`. The base optimizer steps on `g~`. With `sigma` 0 it is SAM.
    FriendlySam {
        /// Share of the average that is subtracted from `g`, at least 0; 1 in the authors' code.
        sigma: f64,
        /// Decay of the average, in `[0, 1]`; 0.6 to 0.95 in the authors' code.
        lambda: f64,
    },
    /// LookSAM: Liu et al., "Towards Efficient and Scalable Sharpness-Aware Minimization", CVPR 2022,
    /// <https://arxiv.org/abs/2203.02714>, Algorithm 1.
    ///
    /// Every `k`-th step, the first included, is a SAM step. It stores `h = v / ||v||`, with
    /// `v = g~ - <g, g~> / (||g||^2 + eps) g`. The other steps take one gradient, and the base optimizer steps on
    /// `g + alpha ||g|| h`. With `k` 1 it is SAM. Parameters that are not perturbed have no `h`.
    LookSam {
        /// Length of the correction over `||g||`, at least 0, for example 0.7.
        alpha: f64,
        /// Steps from one SAM step to the next, at least 1, for example 5 or 10.
        k: u32,
    },
    /// Momentum-SAM: Becker et al. 2024, <https://arxiv.org/abs/2401.12033>.
    ///
    /// A step takes one gradient, at `w - rho m / (||m|| + eps)`, where `m` is the momentum buffer (SGD) or the first
    /// moment (Adam, AdamW) after the last step. `m` is zero before the first step, so the first gradient is taken
    /// at `w`. An L2 penalty (SGD, Adam) is taken from the perturbed weights, as in the authors' code; AdamW's
    /// decoupled decay is taken from `w`. Then the base optimizer steps from `w`.
    MomentumSam,
}

/// The smallest `||v|| / ||g~||` of a LookSAM step that stores a direction. Below it `h` is zero.
///
/// `v` is a difference of two vectors of nearly the length of `g~`. In `f32` each of its elements has an error of
/// about `2^-24` of theirs, so a shorter `v` is little more than rounding error. The recorded code divides by `||v||`
/// without this limit, so it stores rounding errors or NaN where `g~` equals `g`.
pub const LOOK_SAM_SMALLEST_SINE: f64 = 1.0 / (1u64 << 20) as f64;

impl Method {
    /// Returns the name of the method, for reports and errors.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Wsam => "WSAM",
            Self::Gsam { .. } => "GSAM",
            Self::FriendlySam { .. } => "Friendly-SAM",
            Self::LookSam { .. } => "LookSAM",
            Self::MomentumSam => "Momentum-SAM",
        }
    }

    /// Returns the names of the state tensors that the method keeps beside the base optimizer's
    /// ([`Base::state_names`]). Each tensor has the shape of its parameter.
    pub fn state_names(&self) -> &'static [&'static str] {
        match self {
            Self::FriendlySam { .. } => &["average"],
            Self::LookSam { .. } => &["direction"],
            Self::Wsam | Self::Gsam { .. } | Self::MomentumSam => &[],
        }
    }

    /// Returns the steps after which the method repeats itself: LookSAM's `k`, and 1 for the others.
    pub fn cycle(&self) -> u32 {
        match self {
            Self::LookSam { k, .. } => (*k).max(1),
            _ => 1,
        }
    }

    /// Returns how many gradients the step at place `place` of the [cycle](Self::cycle) takes.
    ///
    /// The place is part of the optimizer's state. It starts at 0. [`next_place`](Self::next_place) advances it.
    pub fn passes(&self, place: u32) -> Passes {
        match self {
            Self::MomentumSam => Passes::One,
            Self::LookSam { .. } if place != 0 => Passes::One,
            _ => Passes::Two,
        }
    }

    /// Returns the place in the cycle after a step at `place` that was taken as requested.
    ///
    /// A skipped step leaves the place as it is. So does a step of two passes of which the base optimizer took over
    /// because `g~` was not finite: it has no `h` to store, and the next step tries again.
    pub fn next_place(&self, place: u32) -> u32 {
        (place + 1) % self.cycle()
    }

    pub(super) fn validate(&self) -> Result<(), InvalidHyperparameter> {
        match *self {
            Self::Wsam | Self::MomentumSam => Ok(()),
            Self::Gsam { alpha } => non_negative("alpha", alpha),
            Self::FriendlySam { sigma, lambda } => {
                non_negative("sigma", sigma)?;
                check("lambda", lambda, "finite and in [0, 1]", |v| (0.0..=1.0).contains(&v))
            }
            Self::LookSam { alpha, k } => {
                non_negative("alpha", alpha)?;
                check("k", f64::from(k), "at least 1", |v| v >= 1.0)
            }
        }
    }
}

impl Base {
    /// Returns the index of the state tensor that Momentum-SAM perturbs along, in the order of
    /// [`state_names`](Self::state_names): the momentum buffer or the first moment. Returns `None` for SGD without
    /// momentum.
    pub fn momentum_state(&self) -> Option<usize> {
        match self {
            Self::Sgd { momentum: None, .. } => None,
            Self::Sgd { momentum: Some(_), .. } | Self::Adam(_) | Self::AdamW(_) => Some(0),
        }
    }
}
