//! Values that change in the course of a training.

use burn::lr_scheduler::LrScheduler;
use burn::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
use std::fmt;
use std::sync::Arc;

/// A place in a training: that of the step that is about to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The epoch, from 1 as Burn counts them.
    pub epoch: usize,
    /// Optimizer steps taken before, in all epochs. A resumed training counts on; one that was begun with
    /// an optimizer of Burn's own counts from 0.
    pub step: u64,
}

/// A value for each optimizer step: a scheduler of Burn's, or a function.
///
/// ```
/// use burn::lr_scheduler::linear::LinearLrSchedulerConfig;
/// use burn_wsam::train::{Moment, Schedule};
///
/// # fn main() -> Result<(), String> {
/// let linear: Schedule = LinearLrSchedulerConfig::new(0.2, 0.05, 1000).init()?.into();
/// let by_epoch = Schedule::of(|at: Moment| if at.epoch > 5 { 0.1 } else { 0.05 });
/// # let _ = (linear, by_epoch);
/// # Ok(())
/// # }
/// ```
///
/// A scheduler takes one step with each step of the optimizer, whether WSAM is on or off. A training
/// that resumes lets it take those that were taken before, so a scheduler must do the same each time,
/// as all of Burn's do.
#[derive(Clone)]
pub struct Schedule(Source);

#[derive(Clone)]
enum Source {
    Function(Arc<dyn Fn(Moment) -> f64 + Send + Sync>),
    Scheduler(ModuleLrScheduler),
}

impl Schedule {
    /// The value of a function. It sees where the training is and should depend on nothing else, or a
    /// resumed training takes another way.
    pub fn of(value: impl Fn(Moment) -> f64 + Send + Sync + 'static) -> Self {
        Self(Source::Function(Arc::new(value)))
    }

    /// A scheduler of your own. What the `init` of Burn's configurations gives comes in by `into`.
    pub fn by(scheduler: impl LrScheduler + 'static) -> Self {
        Self(Source::Scheduler(ModuleLrScheduler::new(scheduler)))
    }

    /// The value for the next step.
    pub(super) fn next(&mut self, at: Moment) -> f64 {
        match &mut self.0 {
            Source::Function(value) => value(at),
            Source::Scheduler(scheduler) => scheduler.step().base(),
        }
    }

    /// The schedule as it is after some steps.
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
            Source::Function(_) => "Schedule::of(..)",
            Source::Scheduler(_) => "Schedule::by(..)",
        })
    }
}
