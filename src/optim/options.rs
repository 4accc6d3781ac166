//! Options of an optimizer besides the method's hyperparameters: the policies that a user chooses from, and the
//! values that an optimizer keeps.

use super::error::WsamError;
use super::loss_scale::LossScale;
use super::pass_schedule::PassSchedule;
use crate::method::NonFinite;
use burn::config::Config;

/// What a step does with a parameter that has a gradient in only one of its two passes, for example under random
/// depth (LayerDrop) or with experts that no token was routed to.
///
/// A parameter without a second gradient has taken part in the ascent under each policy: it counts in `||g||`
/// and in the norm that perturbations are divided by. Lean mode supports only `Refuse`.
#[derive(Config, Debug, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MissingGradientPolicy {
    /// Refuse the step, with [`WsamError::MissingGradient`](crate::WsamError::MissingGradient) or
    /// [`WsamError::MissingFirstGradient`](crate::WsamError::MissingFirstGradient).
    Refuse,
    /// Leave the parameter's weight, state and step count as they are. It does not count in `||g~||`.
    Hold,
    /// Use its first gradient in place of the missing second one, so its step is the base optimizer's; that
    /// gradient counts in `||g~||`. With clipping, each of the two is clipped by its
    /// own global norm. A parameter without a first gradient is left unchanged, as under `Hold`.
    UseFirst,
}

/// What a step does if `g` or `g~` holds a NaN or an infinity, or has a norm beyond `f32`. [`NonFinite`]
/// has the details, and the rule of lean mode.
///
/// The device decides. The host reads the outcome when the next step needs the step count: it then waits for the
/// last step only. In tensor operations, and around a Burn optimizer, it waits for all queued work.
#[derive(Config, Debug, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NonFinitePolicy {
    /// Skip the step: weights, state and running statistics stay as they were, bit for bit.
    Skip,
    /// Skip the step if `g` is not finite; take the base optimizer's step if only `g~` is not.
    BaseStep,
    /// Skip the step, and return the model with [`WsamError::NonFinite`]. Every step waits for the device.
    Refuse,
    /// Take the step with whatever values result. Gradients are not checked, and the host does not wait.
    Propagate,
}

impl NonFinitePolicy {
    pub(super) fn method(self) -> NonFinite {
        match self {
            Self::Skip | Self::Refuse => NonFinite::Skip,
            Self::BaseStep => NonFinite::BaseStep,
            Self::Propagate => NonFinite::Propagate,
        }
    }
}

/// How weights are perturbed in a step over several micro-batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Perturbation {
    /// Once, along the gradient of all micro-batches, as in a step over one large batch.
    Whole,
    /// For each micro-batch along its own gradient, so that `g~` is the average of gradients at
    /// different points: m-sharpness, as in data-parallel training with unsynchronised perturbations
    /// (Foret et al. 2021, section 4.1 of <https://arxiv.org/abs/2010.01412>). It takes one more ascent for
    /// each micro-batch.
    EachMicroBatch,
}

/// Options of a configuration other than the method's hyperparameters.
#[derive(Debug)]
pub(crate) struct Options {
    pub(super) track_norms: bool,
    pub(super) lean: bool,
    pub(super) mask_seed: Option<u64>,
    pub(super) stochastic_rounding: Option<u64>,
    pub(super) master_weights: bool,
    pub(super) missing_gradient: MissingGradientPolicy,
    /// Whether a skipped step is an error.
    pub(super) error_on_skip: bool,
    pub(super) loss_scale: Option<LossScale>,
    pub(super) schedule: PassSchedule,
}

/// A lean step takes the base step on `g` and frees `w` before `g~` is known.
pub(crate) const LEAN_BASE_STEP: WsamError = WsamError::Conflict {
    option: "lean mode",
    other: "non_finite = BaseStep",
    reason: "a lean step frees the weights before g~ is known, so it cannot take the base step instead; \
             use Skip or Refuse",
};
