//! What the handle, the strategy and the learner's optimizer share.

use super::error::WsamTrainingError;
use super::pass_through::{self, CheckpointState};
use super::report::TrainingStep;
use super::sharpness::Queue;
use crate::burn::error::WsamError;
use crate::burn::optimizer::Wsam;
use crate::burn::record::Recorded;
use burn::module::ParamId;
use burn::tensor::Shape;
use burn::train::train::WorkerFailure;
use burn::train::{Interrupter, TrainingError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Two locks: the desk may be asked while a step is taken.
pub(super) struct Shared {
    wsam: Mutex<Wsam>,
    training: Mutex<TrainingState>,
}

/// Where weights are handed over, and what is known of the training.
#[derive(Default)]
pub(super) struct TrainingState {
    pub(super) mode: Mode,
    /// Optimizer steps of the training; `None` before one.
    pub(super) steps: Option<u64>,
    /// The parameter that the state of a Burn optimizer is recorded with.
    pub(super) record_owner: Option<ParamId>,
    pub(super) last: Option<Arc<TrainingStep>>,
    pub(super) sharpness: Queue,
    pub(super) error: Option<Arc<WsamTrainingError>>,
    pub(super) warned: bool,
    interrupter: Option<Interrupter>,
}

/// What the learner's optimizer is there for at the moment.
#[derive(Debug, Default)]
pub(super) enum Mode {
    /// Nothing: somebody else calls it.
    #[default]
    Closed,
    /// Giving away the states that it carries, the weights stay.
    Collecting { taken: usize, found: Vec<Arc<CheckpointState>> },
    /// Bringing new weights.
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

    /// Makes ready for a training.
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
            // Burn has no case for optimizers; this one stands for a step that went wrong.
            Some(interrupter) => interrupter
                .fail(TrainingError::Workers(vec![WorkerFailure { device_id: 0, message }])),
            None => log::error!("{message}"),
        }
    }

    /// A parameter's state, read for a record.
    pub(super) fn recorded(&self, prefix: &str, shape: &Shape) -> Option<Recorded> {
        let read = || -> Result<Option<Recorded>, WsamError> {
            let Some(id) = pass_through::id(prefix) else { return Ok(None) };
            let owns_record = self.training().record_owner == Some(id);
            let wsam = self.wsam();
            let recorded = match wsam.burn_optimizer() {
                None => wsam.recorded(id, &format!("parameter {prefix}"), shape)?,
                Some(_) if owns_record => wsam.recorded_external()?,
                Some(_) => None,
            };
            let Some(mut recorded) = recorded else { return Ok(None) };
            recorded.scalars.extend(wsam.run_state()?.scalars()?);
            Ok(Some(recorded))
        };
        // There is nobody to return an error to.
        read().unwrap_or_else(|error| {
            self.fail(error.into());
            None
        })
    }
}
