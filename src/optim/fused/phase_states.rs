//! What a step holds between its phases.

use super::params::{LeanParam, MixedParam, ResolvedParam};
use crate::engine::{Ascent, LeanAscent, Mix};
use crate::optim::bridge::{Binding, Bridge, DeviceTensor};
use crate::optim::error::WsamError;
use crate::optim::pending::LeanStep;
use crate::optim::step_backend::MovedTensors;
use burn::backend::StreamId;
use std::sync::Arc;

/// State between an ascent and its descent.
#[derive(Debug)]
pub(crate) struct AscentState {
    pub(super) bridge: Bridge,
    pub(super) ascent: Ascent,
    pub(super) params: Vec<ResolvedParam>,
    /// The model's tensors, one for each parameter, which are released after the step; empty if it was in place.
    pub(super) weights: Vec<DeviceTensor>,
    /// Perturbed weights, of perturbed parameters only; empty if the ascent was in place.
    pub(super) perturbed: Vec<DeviceTensor>,
    /// If the ascent was in place.
    pub(super) moved: Option<Arc<MovedWeights>>,
}

/// The tensors of a model whose ascent was in place, with the memory of `w`.
#[derive(Debug)]
pub(crate) struct MovedWeights {
    bridge: Bridge,
    /// The stream of the thread that took the ascent.
    stream: StreamId,
    /// One for each parameter.
    pub(super) bindings: Arc<Vec<Binding>>,
}

impl MovedWeights {
    pub(super) fn new(bridge: &Bridge, params: &[ResolvedParam]) -> Self {
        let bindings = params.iter().filter_map(ResolvedParam::binding).collect();
        let (bridge, stream) = (bridge.clone(), StreamId::current());
        Self { bridge, stream, bindings: Arc::new(bindings) }
    }
}

impl MovedTensors<DeviceTensor> for MovedWeights {
    fn is_same_thread(&self) -> bool {
        self.stream == StreamId::current()
    }

    fn move_back(&self) -> Result<(), WsamError> {
        self.bridge.bind(&self.bindings)
    }

    fn originals(&self) -> Vec<DeviceTensor> {
        self.bridge.tensors(self.bindings.iter().map(|binding| (&binding.memory, &binding.shape)))
    }
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
    /// The stream of the thread that took the ascent, if it was in place.
    pub(super) in_place: Option<StreamId>,
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

/// State between Momentum-SAM's ascent and its step.
#[derive(Debug)]
pub(crate) struct MomentumState {
    pub(super) ascent: Ascent,
}
