//! What a step holds between its halves.

use super::params::{LeanParam, MixedParam, ResolvedParam};
use crate::engine::{Ascent, LeanAscent, Mix};
use crate::optim::bridge::{Bridge, DeviceTensor};
use crate::optim::pending::LeanStep;

/// State between an ascent and its descent.
#[derive(Debug)]
pub(crate) struct AscentState {
    pub(super) bridge: Bridge,
    pub(super) ascent: Ascent,
    pub(super) params: Vec<ResolvedParam>,
    /// The model's tensors, one for each parameter, which are released after the step.
    pub(super) weights: Vec<DeviceTensor>,
    /// Perturbed weights, of perturbed parameters only.
    pub(super) perturbed: Vec<DeviceTensor>,
}

/// State between a lean ascent and its descent. It holds neither weights nor gradients.
#[derive(Debug)]
pub(crate) struct LeanAscentState {
    pub(super) bridge: Bridge,
    pub(super) ascent: LeanAscent,
    pub(super) params: Vec<LeanParam>,
    /// Tensors that the second pass runs on, which are released after the step.
    pub(super) perturbed: Vec<DeviceTensor>,
    pub(super) step: LeanStep,
}

/// State between a mix and its sharpness step.
#[derive(Debug)]
pub(crate) struct MixState {
    pub(super) bridge: Bridge,
    pub(super) ascent: Ascent,
    pub(super) params: Vec<MixedParam>,
    /// `None` if the base optimizer steps on an unmodified `g`.
    pub(super) mix: Option<Mix>,
}
