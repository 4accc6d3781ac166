//! Running statistics, which forward passes change and a skipped step must not.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Bool, Tensor};
use std::any::Any;
use std::collections::VecDeque;

/// The running statistics of a model at one moment, of its batch normalisation for one.
///
/// A forward pass in training mode changes a model's running statistics, whatever becomes of the step that it
/// belongs to. [`Wsam::step`](crate::Wsam::step) and [`Wsam::step_accumulated`](crate::Wsam::step_accumulated)
/// put them back where a step is skipped or refused. Callers of [`Wsam::ascend`](crate::Wsam::ascend) and
/// [`Wsam::descend`](crate::Wsam::descend) take them before the first pass, and hand them to
/// [`Wsam::keep_statistics`](crate::Wsam::keep_statistics) behind the second half:
///
/// ```
/// # use burn::nn::{BatchNorm, BatchNormConfig};
/// # use burn::optim::GradientsParams;
/// # use burn::tensor::{Device, Distribution, Tensor};
/// # use burn_wsam::{RunningStatistics, SgdBaseConfig, WsamConfig, WsamError};
/// # fn main() -> Result<(), WsamError> {
/// # let device = Device::flex().autodiff();
/// # let model = BatchNormConfig::new(4).init(&device);
/// # let mut optim = WsamConfig::new(SgdBaseConfig::new().into()).init(&device)?;
/// # let x = Tensor::<2>::random([8, 4], Distribution::Default, &device);
/// # let loss = |model: &BatchNorm| model.forward(x.clone()).powi_scalar(3).mean();
/// let statistics = RunningStatistics::of(&model);
/// let grads = GradientsParams::from_grads(loss(&model).backward(), &model);
/// let ascended = optim.ascend(model, grads)?;
/// let grads = GradientsParams::from_grads(loss(&ascended).backward(), &*ascended);
/// let model = optim.descend(0.1, ascended, grads)?;
/// let model = optim.keep_statistics(model, &statistics)?;
/// # let _ = model;
/// # Ok(())
/// # }
/// ```
pub struct RunningStatistics {
    /// In the order of a walk over the module's float parameters: the value of running statistics, a
    /// `Tensor<D>`, and `None` for every other parameter. Empty if there are no running statistics.
    values: Vec<Option<Box<dyn Any + Send>>>,
}

impl RunningStatistics {
    /// The statistics of `model` as they are. The values stay on the device.
    pub fn of<M: Module>(model: &M) -> Self {
        let mut first = Candidates::default();
        model.visit(&mut first);
        if first.0.iter().all(Option::is_none) {
            return Self { values: Vec::new() };
        }
        let mut second = Compare { candidates: first.0.into(), is_statistic: Vec::new() };
        model.visit(&mut second);
        let is_statistic = second.is_statistic;
        if !is_statistic.contains(&true) {
            return Self { values: Vec::new() };
        }
        bring_up_to_date(model);
        let mut take = TakeStatistics { is_statistic: is_statistic.into(), values: Vec::new() };
        model.visit(&mut take);
        Self { values: take.values }
    }

    /// Whether the model has none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Puts the statistics back into `model`, which is the one that they are of or has its modules. Clones of
    /// the model share them, so it changes theirs, too.
    pub fn restore<M: Module>(&self, model: M) -> M {
        self.put(model, None)
    }

    /// Puts the statistics back if `skipped` is true, which the device decides.
    pub(crate) fn restore_if<M: Module>(&self, model: M, skipped: &Tensor<1, Bool>) -> M {
        self.put(model, Some(skipped))
    }

    fn put<M: Module>(&self, model: M, skipped: Option<&Tensor<1, Bool>>) -> M {
        if self.is_empty() {
            return model;
        }
        bring_up_to_date(&model);
        model.map(&mut Put { values: self.values.iter(), skipped })
    }
}

impl std::fmt::Debug for RunningStatistics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count = self.values.iter().flatten().count();
        f.debug_struct("RunningStatistics").field("count", &count).finish_non_exhaustive()
    }
}

/// Burn keeps the last update of running statistics aside, for each thread. `valid` is its only way to apply it
/// from outside of a module.
fn bring_up_to_date<M: Module>(model: &M) {
    drop(model.valid());
}

/// What may be running statistics: a clone of each float parameter that requires no gradient.
#[derive(Default)]
struct Candidates(Vec<Option<Box<dyn Any>>>);

impl ModuleVisitor for Candidates {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let candidate = !param.is_require_grad();
        self.0.push(candidate.then(|| Box::new(param.clone()) as Box<dyn Any>));
    }
}

/// Tells running statistics from frozen parameters. Clones of a parameter share one value, so the clone of a
/// frozen parameter refers to the very value that the next walk shows; Burn shows running statistics as a
/// parameter that it makes for each walk.
struct Compare {
    candidates: VecDeque<Option<Box<dyn Any>>>,
    is_statistic: Vec<bool>,
}

impl ModuleVisitor for Compare {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let candidate = self.candidates.pop_front().flatten();
        let before = candidate.as_ref().and_then(|param| param.downcast_ref::<Param<Tensor<D>>>());
        let is_other =
            |before: &Param<Tensor<D>>| !std::ptr::eq(&raw const **before, &raw const **param);
        self.is_statistic.push(before.is_some_and(is_other));
    }
}

struct TakeStatistics {
    is_statistic: VecDeque<bool>,
    values: Vec<Option<Box<dyn Any + Send>>>,
}

impl ModuleVisitor for TakeStatistics {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let is_statistic = self.is_statistic.pop_front().unwrap_or(false);
        self.values.push(is_statistic.then(|| Box::new(param.val()) as Box<dyn Any + Send>));
    }
}

struct Put<'a> {
    values: std::slice::Iter<'a, Option<Box<dyn Any + Send>>>,
    skipped: Option<&'a Tensor<1, Bool>>,
}

impl ModuleMapper for Put<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let value = self.values.next().and_then(Option::as_ref);
        let Some(old) = value.and_then(|value| value.downcast_ref::<Tensor<D>>()) else {
            return param;
        };
        let Some(skipped) = self.skipped else { return param.map(|_| old.clone()) };
        param.map(|new| {
            let (is_autodiff, strategy) =
                (new.is_autodiff(), new.gradient_checkpointing_strategy());
            let (new, old) = (new.without_autodiff(), old.clone().without_autodiff());
            let skipped = skipped.clone().reshape([1; D]).expand(new.shape());
            let value = new.mask_where(skipped, old);
            match (is_autodiff, strategy) {
                (false, _) => value,
                (true, None) => Tensor::from_inner(value),
                (true, Some(strategy)) => {
                    Tensor::from_inner(value).with_gradient_checkpointing_strategy(strategy)
                }
            }
        })
    }
}
