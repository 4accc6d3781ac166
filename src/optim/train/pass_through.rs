//! The learner's optimizer, which assigns new weights to the learner's model and writes the state to its
//! checkpoints.
//!
//! A `Learner` gives no write access to its model or its optimizer, and Burn's `Optimizer` gets one parameter
//! at a time, where WSAM needs all of them. So the strategy takes the steps, and passes the new weights to the
//! learner in place of gradients; this optimizer returns them as the stepped weights. Its state of each
//! parameter is a handle, from which a record reads the state in [`Wsam`](crate::Wsam).

use super::checkpoint::CheckpointState;
use super::shared::{Mode, Shared};
use crate::optim::record::{OPTIMIZER, STEP_FIELDS, TENSOR_FIELDS, owned};
use crate::optim::run_state;
use crate::optim::state::Recorded;
use burn::optim::{LearningRate, Optimizer, RecordState, StateSink, StateSource};
use burn::tensor::{Device, Shape, Tensor, TensorData};
use burn_pack::Scalar;
use std::sync::Arc;

/// Name of the training's step count in a record, which is separate from each parameter's own.
const TRAINING_STEPS: &str = "wsam.steps";

#[derive(Clone)]
pub(super) struct PassThroughOptimizer(pub(super) Arc<Shared>);

/// State that the learner's optimizer holds for a parameter.
#[derive(Clone)]
pub(super) enum StateHandle {
    /// The state is in [`Wsam`](crate::Wsam).
    Live { shared: Arc<Shared>, shape: Shape },
    /// The state was read from a checkpoint and is not yet loaded into [`Wsam`](crate::Wsam).
    Loaded(Arc<CheckpointState>),
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
                        "WSAM's learner takes no step without WSAM's strategy: pass \
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
        // A live state is on the optimizer's device, and a loaded one is on the host.
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
        // Burn reads the checkpoint's file lazily, and the training may delete the file first, so copy the data
        // now. `None` would drop the state silently. If the data cannot be read, an empty tensor makes the load
        // fail when the training begins.
        let take = |field| {
            let data = source.take_tensor(prefix, field)?;
            Some((field, owned(data).unwrap_or_else(|_| TensorData::new(Vec::<f32>::new(), [0]))))
        };
        let tensors = TENSOR_FIELDS.into_iter().chain([OPTIMIZER]).filter_map(take).collect();
        // A record written by `Wsam` has the run state once, without a parameter's id.
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
