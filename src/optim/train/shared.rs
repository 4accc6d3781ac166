//! State shared by the handle, the strategy and the learner's optimizer.

use super::checkpoint::{self, CheckpointState};
use super::error::WsamTrainingError;
use super::queue::Queue;
use super::report::TrainingStep;
use crate::optim::error::WsamError;
use crate::optim::optimizer::Wsam;
use crate::optim::state::Recorded;
use burn::module::{Module, ParamId};
use burn::tensor::{Device, Shape};
use burn::train::train::WorkerFailure;
use burn::train::{Interrupter, TrainingError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Two locks, so that the training state can be read while a step holds the optimizer.
pub(super) struct Shared {
    wsam: Mutex<Wsam>,
    training: Mutex<TrainingState>,
}

/// State of the training, and the mode of the learner's optimizer.
#[derive(Default)]
pub(super) struct TrainingState {
    pub(super) mode: Mode,
    /// Optimizer steps of the training; `None` before it begins.
    pub(super) steps: Option<u64>,
    /// Parameter whose state in a checkpoint holds the record of a Burn optimizer.
    pub(super) record_owner: Option<ParamId>,
    pub(super) last: Option<Arc<TrainingStep>>,
    pub(super) sharpness: Queue,
    pub(super) error: Option<Arc<WsamTrainingError>>,
    pub(super) warned: bool,
    interrupter: Option<Interrupter>,
}

/// Current mode of the learner's optimizer.
#[derive(Debug, Default)]
pub(super) enum Mode {
    /// No call is expected: a call comes from another strategy.
    #[default]
    Closed,
    /// Collects states from a checkpoint. The weights do not change.
    Collecting { taken: usize, found: Vec<Arc<CheckpointState>> },
    /// Assigns new weights.
    Delivering { taken: usize },
}

impl Shared {
    pub(super) fn new(wsam: Wsam) -> Self {
        Self { wsam: Mutex::new(wsam), training: Mutex::default() }
    }

    pub(super) fn wsam(&self) -> MutexGuard<'_, Wsam> {
        self.wsam.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn training(&self) -> MutexGuard<'_, TrainingState> {
        self.training.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn steps(&self) -> Option<u64> {
        self.training().steps
    }

    /// The optimizer's device, with the model's autodiff context if the model is already on that device.
    pub(super) fn device_for<M: Module>(&self, model: &M) -> Device {
        let own = self.wsam().device().clone();
        let of_model = model.devices().into_iter().find(|device| *device == own);
        let device = of_model.unwrap_or(own);
        if device.is_autodiff() { device } else { device.autodiff() }
    }

    /// Resets the state for a new training.
    pub(super) fn begin(&self, interrupter: &Interrupter) {
        let mut training = self.training();
        let sharpness = training.sharpness.emptied();
        *training = TrainingState {
            interrupter: Some(interrupter.clone()),
            sharpness,
            ..TrainingState::default()
        };
    }

    /// Stops the training.
    pub(super) fn fail(&self, error: WsamTrainingError) {
        let message = error.to_string();
        let interrupter = {
            let mut training = self.training();
            training.error.get_or_insert_with(|| Arc::new(error));
            training.interrupter.clone()
        };
        match interrupter {
            // Burn has no error variant for optimizers; this is the closest one.
            Some(interrupter) => interrupter
                .fail(TrainingError::Workers(vec![WorkerFailure { device_id: 0, message }])),
            None => log::error!("{message}"),
        }
    }

    /// A parameter's state, read for a record.
    pub(super) fn recorded(&self, prefix: &str, shape: &Shape) -> Option<Recorded> {
        let read = || -> Result<Option<Recorded>, WsamError> {
            let Some(id) = checkpoint::id(prefix) else { return Ok(None) };
            let owns_record = self.training().record_owner == Some(id);
            let wsam = self.wsam();
            let recorded = match wsam.burn_optimizer() {
                None => wsam.recorded(id, &format!("parameter {prefix}"), shape)?,
                Some(_) if owns_record => wsam.recorded_burn_base()?,
                Some(_) => None,
            };
            let Some(mut recorded) = recorded else { return Ok(None) };
            recorded.scalars.extend(wsam.run_state()?.scalars()?);
            Ok(Some(recorded))
        };
        // The caller cannot return an error, so end the training.
        read().unwrap_or_else(|error| {
            self.fail(error.into());
            None
        })
    }
}
