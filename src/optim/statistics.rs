//! Running statistics, which forward passes change, and which a skipped step must leave unchanged.

use super::walk::for_each_param;
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Bool, Tensor};
use std::any::Any;

/// A copy of a model's running statistics, for example those of batch normalisation.
///
/// A forward pass in training mode changes a model's running statistics, even if its step is skipped later.
/// [`Wsam::step`](crate::Wsam::step) and [`Wsam::step_accumulated`](crate::Wsam::step_accumulated)
/// restore them if a step is skipped or fails. Callers of [`Wsam::ascend`](crate::Wsam::ascend) and
/// [`Wsam::descend`](crate::Wsam::descend) take them before the first pass, and pass them to
/// [`Wsam::restore_statistics_if_skipped`](crate::Wsam::restore_statistics_if_skipped) after the second phase:
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
/// let grads = GradientsParams::from_grads(loss(ascended.model()).backward(), ascended.model());
/// let model = optim.descend(0.1, ascended, grads)?;
/// let model = optim.restore_statistics_if_skipped(model, &statistics)?;
/// # let _ = model;
/// # Ok(())
/// # }
/// ```
pub struct RunningStatistics {
    /// For each float parameter in module order: the `Tensor<D>` of running statistics, or `None` for another
    /// parameter. Empty if the model has no running statistics.
    values: Vec<Option<Box<dyn Any + Send>>>,
}

impl RunningStatistics {
    /// The current statistics of `model`. The values stay on the device.
    pub fn of<M: Module>(model: &M) -> Self {
        let mut candidates = Vec::new();
        for_each_param(model, |param, _| {
            candidates.push((!param.requires_grad()).then(|| param.clone_param()));
        });
        if candidates.iter().all(Option::is_none) {
            return Self { values: Vec::new() };
        }
        // Clones of a parameter share one value, so a frozen parameter has the same address at each visit. Burn
        // makes a new parameter for running statistics at each visit, so their addresses differ.
        let mut candidates = candidates.into_iter();
        let mut is_statistic = Vec::new();
        for_each_param(model, |param, _| {
            let before = candidates.next().flatten();
            is_statistic
                .push(before.is_some_and(|before| before.value_address() != param.value_address()));
        });
        if !is_statistic.contains(&true) {
            return Self { values: Vec::new() };
        }
        bring_up_to_date(model);
        let mut is_statistic = is_statistic.into_iter();
        let mut values = Vec::new();
        for_each_param(model, |param, _| {
            values.push(is_statistic.next().unwrap_or(false).then(|| param.value()));
        });
        Self { values }
    }

    /// Whether the model has no running statistics.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Whether the float parameter at a place of the module order is a running statistic.
    pub(crate) fn is_statistic(&self, place: usize) -> bool {
        self.values.get(place).is_some_and(Option::is_some)
    }

    /// Restores the statistics of `model`, which must be the model they were taken from or have the same modules.
    /// Clones of the model share its statistics, so this changes theirs too.
    pub fn restore<M: Module>(&self, model: M) -> M {
        self.put(model, None)
    }

    /// Restores the statistics if `skipped` is true on the device.
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

/// Burn defers the last update of running statistics, for each thread. `valid` is the only way to apply it from
/// outside of a module.
pub(crate) fn bring_up_to_date<M: Module>(model: &M) {
    drop(model.valid());
}

/// Puts values back, in module order.
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
