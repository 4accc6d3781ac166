//! The learner's optimizer: it brings new weights to the learner's model, and the state to its
//! checkpoints.
//!
//! A `Learner` gives nobody write access to its model or its optimizer, and Burn's `Optimizer` sees
//! one parameter at a time, where WSAM needs all of them. So the strategy takes the steps, and hands the
//! new weights to the learner in the place of gradients; this optimizer returns what it is handed. The
//! state it carries for each parameter is a handle: who asks for a record reads the state where it is.

use super::shared::{Mode, Shared};
use crate::burn::record::{OPTIMIZER, Recorded, STEP_FIELDS, TENSOR_FIELDS, owned};
use crate::burn::run_state;
use burn::module::ParamId;
use burn::optim::{LearningRate, Optimizer, RecordState, StateSink, StateSource};
use burn::tensor::{Device, Shape, Tensor, TensorData};
use burn_pack::Scalar;
use std::sync::Arc;

/// Steps of the training, beside each parameter's own.
const TRAINING_STEPS: &str = "wsam.steps";

#[derive(Clone)]
pub(super) struct PassThroughOptimizer(pub(super) Arc<Shared>);

/// What the learner's optimizer holds for a parameter.
#[derive(Clone)]
pub(super) enum StateHandle {
    /// The optimizer has the state.
    Live { shared: Arc<Shared>, shape: Shape },
    /// Out of a checkpoint, and not yet in the optimizer.
    Loaded(Arc<CheckpointState>),
}

/// State of a parameter out of a checkpoint.
#[derive(Debug)]
pub(super) struct CheckpointState {
    pub(super) id: u64,
    pub(super) state: Recorded,
    /// Steps of the training, if it was one under this strategy.
    pub(super) steps: Option<u64>,
}

impl Optimizer for PassThroughOptimizer {
    type State<const D: usize> = StateHandle;

    fn step<const D: usize>(
        &self,
        _lr: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<StateHandle>,
    ) -> (Tensor<D>, Option<StateHandle>) {
        let live = |shape| StateHandle::Live { shared: self.0.clone(), shape };
        let mut training = self.0.training();
        match &mut training.mode {
            Mode::Closed => {
                if !std::mem::replace(&mut training.warned, true) {
                    log::error!(
                        "WSAM's learner takes no step without WSAM's strategy: hand \
                         WsamTraining::strategy to SupervisedTraining::with_training_strategy"
                    );
                }
                (tensor, state)
            }
            Mode::Collecting { taken, found } => {
                *taken += 1;
                let Some(StateHandle::Loaded(loaded)) = state else { return (tensor, state) };
                found.push(loaded);
                let shape = tensor.shape();
                (tensor, Some(live(shape)))
            }
            Mode::Delivering { taken } => {
                *taken += 1;
                let shape = grad.shape();
                (grad, Some(live(shape)))
            }
        }
    }

    fn to_device<const D: usize>(state: StateHandle, _device: &Device) -> StateHandle {
        // The optimizer sees to it, and the host's copy has no device.
        state
    }
}

impl RecordState for StateHandle {
    fn state_flatten(&self, prefix: &str, out: &mut StateSink) {
        let (state, steps) = match self {
            StateHandle::Loaded(loaded) => (Some(loaded.state.clone()), loaded.steps),
            StateHandle::Live { shared, shape } => (shared.recorded(prefix, shape), shared.steps()),
        };
        let Some(state) = state else { return };
        for (field, data) in state.tensors {
            out.push_tensor(prefix, field, data);
        }
        for (field, value) in state.scalars {
            out.push_scalar(prefix, field, value);
        }
        if let Some(steps) = steps {
            out.push_scalar(prefix, TRAINING_STEPS, Scalar::from(steps));
        }
    }

    fn state_unflatten(prefix: &str, source: &mut StateSource, _device: &Device) -> Option<Self> {
        let id = prefix.parse().ok()?;
        // Burn reads from the checkpoint's file when somebody looks, and by then the training may have
        // deleted it. `None` would drop the state in silence, so what cannot be read is left empty, and is
        // refused when the training begins.
        let take = |field| {
            let data = source.take_tensor(prefix, field)?;
            Some((field, owned(data).unwrap_or_else(|_| TensorData::new(Vec::<f32>::new(), [0]))))
        };
        let tensors = TENSOR_FIELDS.into_iter().chain([OPTIMIZER]).filter_map(take).collect();
        // A record that `Wsam` has written has the optimizer's own values once, behind no parameter's id.
        let mut find = |field| {
            let once = source.take_scalar("", field).filter(|_| run_state::FIELDS.contains(&field));
            source.take_scalar(prefix, field).or(once)
        };
        let fields = STEP_FIELDS.into_iter().chain(run_state::FIELDS);
        let scalars = fields.filter_map(|field| Some((field, find(field)?))).collect();
        let steps = source.take_scalar(prefix, TRAINING_STEPS);
        let steps = steps.and_then(|steps| u64::try_from(steps).ok());
        Some(Self::Loaded(Arc::new(CheckpointState {
            id,
            state: Recorded { tensors, scalars },
            steps,
        })))
    }
}

/// A parameter's id, by which records name its states.
pub(super) fn id(prefix: &str) -> Option<ParamId> {
    prefix.parse::<u64>().ok().map(ParamId::from)
}
