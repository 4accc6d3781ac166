//! Values that change during a training.

use burn::lr_scheduler::LrScheduler;
use burn::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
use std::fmt;
use std::sync::Arc;

/// Position in a training of the step that is about to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StepInfo {
    /// The epoch, from 1 as Burn counts them.
    pub epoch: usize,
    /// Optimizer steps taken before, in all epochs. A resumed training continues the count; one that was begun
    /// with a Burn optimizer counts from 0.
    pub step: u64,
}

/// A value for each optimizer step: a Burn scheduler or a function.
///
/// ```
/// use burn::lr_scheduler::linear::LinearLrSchedulerConfig;
/// use burn_wsam::train::{StepInfo, Schedule};
///
/// # fn main() -> Result<(), String> {
/// let linear: Schedule = LinearLrSchedulerConfig::new(0.2, 0.05, 1000).init()?.into();
/// let by_epoch = Schedule::from_fn(|at: StepInfo| if at.epoch > 5 { 0.1 } else { 0.05 });
/// # let _ = (linear, by_epoch);
/// # Ok(())
/// # }
/// ```
///
/// A scheduler takes one step with each step of the optimizer, whether WSAM is active or not. A resumed training
/// repeats the earlier steps of the scheduler, so a scheduler must be deterministic, as all of Burn's are.
#[derive(Clone)]
pub struct Schedule(Source);

#[derive(Clone)]
enum Source {
    Function(Arc<dyn Fn(StepInfo) -> f64 + Send + Sync>),
    Scheduler(ModuleLrScheduler),
}

impl Schedule {
    /// Schedule from a function of the position in the training. The value should depend only on the argument,
    /// otherwise a resumed training may differ.
    pub fn from_fn(value: impl Fn(StepInfo) -> f64 + Send + Sync + 'static) -> Self {
        Self(Source::Function(Arc::new(value)))
    }

    /// Schedule from a custom scheduler. Schedulers from the `init` of Burn's configurations convert with `into`.
    pub fn from_scheduler(scheduler: impl LrScheduler + 'static) -> Self {
        Self(Source::Scheduler(ModuleLrScheduler::new(scheduler)))
    }

    /// The value for the next step.
    pub(super) fn next(&mut self, at: StepInfo) -> f64 {
        match &mut self.0 {
            Source::Function(value) => value(at),
            Source::Scheduler(scheduler) => scheduler.step().base(),
        }
    }

    /// The schedule after `steps` steps.
    pub(super) fn after(&self, steps: u64) -> Self {
        let mut schedule = self.clone();
        if let Source::Scheduler(scheduler) = &mut schedule.0 {
            (0..steps).for_each(|_| drop(scheduler.step()));
        }
        schedule
    }
}

impl From<ModuleLrScheduler> for Schedule {
    fn from(scheduler: ModuleLrScheduler) -> Self {
        Self(Source::Scheduler(scheduler))
    }
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Source::Function(_) => "Schedule::from_fn(..)",
            Source::Scheduler(_) => "Schedule::from_scheduler(..)",
        })
    }
}
