//! What a route must be able to do. Tensor operations and the engine each do it in their own way;
//! the way from the module to a list of parameters and back is the same for both.

use super::error::WsamError;
use super::forms::{Form, computed_in};
use super::groups::{check_groups, group_of};
use super::rates::Rates;
use super::record::Loaded;
use super::report::Norms;
use super::slots::{Collected, Slot, assign, collect, collect_perturbed, perturbed_copy};
use super::verdict::Settled;
use crate::method::{Hyperparameters, InGroup};
use burn::module::{Module, ParamGroup, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Device};
use std::collections::HashMap;

/// What both halves of every step need to know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'a> {
    pub(crate) hyper: &'a Hyperparameters,
    /// Which parameters the hyperparameters' groups are for.
    pub(crate) groups: &'a [ParamGroup],
    pub(crate) track_norms: bool,
    /// Seed of the optimizer's, if it rounds by chance, which the fused route alone can.
    #[cfg_attr(not(feature = "fused-wsam"), allow(dead_code))]
    pub(crate) stochastic_rounding: Option<u64>,
    /// Whether parameters in half precision have master weights.
    pub(crate) master_weights: bool,
    /// What gradients are multiplied by, from a step's first half on.
    pub(crate) inv_scale: f64,
    pub(crate) device: &'a Device,
}

impl Context<'_> {
    /// Whether a slot has master weights.
    pub(crate) fn has_master<T>(&self, slot: &Slot<T>) -> bool {
        self.master_weights && computed_in(slot.dtype) != slot.dtype
    }

    /// The method as a slot's group sees it.
    pub(crate) fn in_group<T>(&self, slot: &Slot<T>) -> InGroup {
        // Slots have no other groups than those there are.
        self.hyper.in_group(slot.group).unwrap_or_else(|| self.hyper.in_no_group())
    }
}

pub(super) type TensorOf<R> = <<R as Runner>::Form as Form>::Tensor;

/// What was built of a half's tensors, and what is left for the caller.
pub(crate) struct Half<R: Runner, T, K> {
    pub(crate) built: T,
    pub(crate) rest: K,
    /// Given up once the old module is gone.
    pub(crate) retired: Vec<TensorOf<R>>,
}

/// A half whose tensors are handed on as they are.
pub(crate) type Loose<R, K> = Half<R, Vec<TensorOf<R>>, K>;

/// Halves take a `build`, which makes a module of the half's tensors in the order of the slots. It is
/// called once, maybe before they hold anything, while a route waits for Burn; on an error what it
/// built is dropped.
pub(crate) trait Runner: Sized {
    type Form: Form;
    /// From an ascent to its descent.
    type Kept;
    type LeanKept;
    /// From a mix to its sharpness step.
    type Mixed;

    /// Element types it takes, in values and in words, and what it is called.
    const TYPES: (&'static [DType], &'static str, &'static str);

    fn ascend<T>(
        &mut self,
        context: Context<'_>,
        slots: Vec<Slot<TensorOf<Self>>>,
        build: impl FnOnce(Vec<TensorOf<Self>>) -> T,
    ) -> Result<Half<Self, T, Self::Kept>, WsamError>;

    fn descend<T>(
        &mut self,
        context: Context<'_>,
        rates: &[f64],
        kept: Self::Kept,
        grads_perturbed: Vec<TensorOf<Self>>,
        build: impl FnOnce(Vec<TensorOf<Self>>) -> T,
    ) -> Result<Half<Self, T, Norms>, WsamError>;

    fn lean_ascend<T>(
        &mut self,
        context: Context<'_>,
        rates: &[f64],
        slots: Vec<Slot<TensorOf<Self>>>,
        build: impl FnOnce(Vec<TensorOf<Self>>) -> T,
    ) -> Result<Half<Self, T, Self::LeanKept>, WsamError>;

    fn lean_descend<T>(
        &mut self,
        context: Context<'_>,
        kept: Self::LeanKept,
        grads_perturbed: Vec<TensorOf<Self>>,
        build: impl FnOnce(Vec<TensorOf<Self>>) -> T,
    ) -> Result<Half<Self, T, Norms>, WsamError>;

    /// The base optimizer's step alone.
    fn base_step<T>(
        &mut self,
        context: Context<'_>,
        rates: &[f64],
        slots: Vec<Slot<TensorOf<Self>>>,
        build: impl FnOnce(Vec<TensorOf<Self>>) -> T,
    ) -> Result<Half<Self, T, ()>, WsamError>;

    /// What a base optimizer elsewhere steps on: `a g + b g~`, clipped.
    fn mix(
        &mut self,
        context: Context<'_>,
        kept: Self::Kept,
        grads_perturbed: Vec<TensorOf<Self>>,
    ) -> Result<Loose<Self, Self::Mixed>, WsamError>;

    /// The clipped gradients alone, for a step without a second pass.
    fn clip(
        &mut self,
        context: Context<'_>,
        slots: Vec<Slot<TensorOf<Self>>>,
    ) -> Result<Vec<TensorOf<Self>>, WsamError>;

    /// The sharpness step, from the weights that such an optimizer left; in the coupled form there is
    /// none, and no weights.
    fn sharpen(
        &mut self,
        context: Context<'_>,
        rates: &[f64],
        mixed: Self::Mixed,
        weights: Option<Vec<TensorOf<Self>>>,
    ) -> Result<Loose<Self, Norms>, WsamError>;

    /// What became of the last step, if it may have been another than the method's and
    /// [`settle`](Self::settle) was not called since. Waits for that step, and for nothing after it.
    fn last_outcome(&self) -> Result<Option<Settled>, WsamError>;

    /// The parameters that this step was counted for.
    fn unsettled(&self) -> &[ParamId];

    fn forget_last(&mut self);

    /// A parameter's count of steps, if it has a state.
    fn step_mut(&mut self, id: ParamId) -> Option<&mut u64>;

    /// By how much a parameter's count of steps is too high.
    fn uncounted(&self, id: ParamId) -> Result<u64, WsamError> {
        if !self.unsettled().contains(&id) {
            return Ok(0);
        }
        Ok(self.last_outcome()?.map_or(0, |settled| settled.uncounted()))
    }

    /// As [`last_outcome`](Self::last_outcome), and counts the step only if it was taken. To be called
    /// before step counts are needed.
    fn settle(&mut self) -> Result<Option<Settled>, WsamError> {
        let Some(settled) = self.last_outcome()? else { return Ok(None) };
        for id in self.unsettled().to_vec() {
            if let Some(step) = self.step_mut(id) {
                *step = step.saturating_sub(settled.uncounted());
            }
        }
        self.forget_last();
        Ok(Some(settled))
    }

    /// Forgets the states of `ids` and takes those that were loaded. On an error nothing changed.
    fn replace_states(
        &mut self,
        device: &Device,
        ids: &[ParamId],
        loaded: Vec<Loaded>,
    ) -> Result<(), WsamError>;

    /// Elements of a parameter's state, if it has any.
    fn state_len(&self, id: ParamId) -> Option<usize>;

    fn retire(&self, tensors: Vec<TensorOf<Self>>);
}

/// An ascent's leavings, with the parameters that took part.
#[derive(Debug)]
pub(crate) struct Pending<K> {
    pub(crate) names: Vec<(ParamId, String)>,
    pub(super) kept: K,
}

pub(super) fn slots<R: Runner, M: Module>(
    runner: &R,
    context: Context<'_>,
    model: &M,
    grads: GradientsParams,
) -> Result<Collected<R::Form>, WsamError> {
    let mut collected = collect::<R::Form, M>(model, grads, context.device)?;
    let (types, expected, route) = R::TYPES;
    for slot in &mut collected.slots {
        slot.group = group_of(context.groups, slot.id, &slot.path);
        let param = || slot.path.clone();
        if !types.contains(&slot.dtype) {
            let found = slot.dtype;
            return Err(WsamError::DType { param: param(), found, expected, route });
        }
        match runner.state_len(slot.id) {
            Some(state) if state != slot.len => {
                return Err(WsamError::State { param: param(), found: slot.len, state });
            }
            _ => {}
        }
    }
    check_groups(context.groups, model, collected.slots.iter().map(|slot| slot.group))?;
    Ok(collected)
}

pub(super) fn names<T>(slots: &[Slot<T>]) -> Vec<(ParamId, String)> {
    slots.iter().map(|slot| (slot.id, slot.path.clone())).collect()
}

pub(super) fn by_id<T>(names: &[(ParamId, String)], tensors: Vec<T>) -> HashMap<ParamId, T> {
    names.iter().map(|(id, _)| *id).zip(tensors).collect()
}

/// The model stepped by the base optimizer alone, or as it was.
pub(crate) fn base_step<R: Runner, M: Module>(
    runner: &mut R,
    context: Context<'_>,
    rates: &Rates,
    model: M,
    grads: GradientsParams,
) -> Result<M, (M, WsamError)> {
    let collected = slots(runner, context, &model, grads);
    let stepped = collected.and_then(|Collected { slots, .. }| {
        let names = names(&slots);
        let rates = rates.of(&names)?;
        let build = |tensors| stepped_copy::<R, M>(&model, &names, tensors);
        runner.base_step(context, &rates, slots, build)
    });
    finish(runner, model, stepped).map(|(model, ())| model)
}

/// The perturbed copy of `model`, and what its descent needs.
pub(crate) fn ascend<R: Runner, M: Module>(
    runner: &mut R,
    context: Context<'_>,
    model: &M,
    grads: GradientsParams,
) -> Result<(M, Pending<R::Kept>), WsamError> {
    let Collected { slots, whole } = slots(runner, context, model, grads)?;
    let names = names(&slots);
    let build = |tensors| perturbed_copy::<R::Form, M>(model, by_id(&names, tensors), whole);
    let half = runner.ascend(context, slots, build)?;
    Ok((half.built, Pending { names, kept: half.rest }))
}

/// The stepped model, or `anchor` as it was.
pub(crate) fn descend<R: Runner, M: Module>(
    runner: &mut R,
    context: Context<'_>,
    rates: &Rates,
    (perturbed, anchor): (M, M),
    pending: Pending<R::Kept>,
    grads: GradientsParams,
) -> Result<(M, Norms), (M, WsamError)> {
    let Pending { names, kept } = pending;
    let collected = collect_perturbed::<R::Form, M>(perturbed, grads, context.device, &names);
    let build = |tensors| stepped_copy::<R, M>(&anchor, &names, tensors);
    let descended =
        collected.and_then(|grads| runner.descend(context, &rates.of(&names)?, kept, grads, build));
    finish(runner, anchor, descended)
}

/// What was built of a half that was taken, or the module before it.
fn finish<R: Runner, M: Module, T, K>(
    runner: &R,
    before: M,
    half: Result<Half<R, T, K>, WsamError>,
) -> Result<(T, K), (M, WsamError)> {
    match half {
        Ok(Half { built, rest, retired }) => {
            drop(before);
            runner.retire(retired);
            Ok((built, rest))
        }
        Err(error) => Err((before, error)),
    }
}

/// The module with the new weights. It shares all else with `model`, which is to go.
fn stepped_copy<R: Runner, M: Module>(
    model: &M,
    names: &[(ParamId, String)],
    tensors: Vec<TensorOf<R>>,
) -> M {
    assign::<R::Form, M>(model.clone(), by_id(names, tensors))
}

/// The perturbed copy, the model at the perturbed weights with its own running statistics, and
/// what the descent needs. On an error the model is as it was.
#[allow(clippy::type_complexity)]
pub(crate) fn lean_ascend<R: Runner, M: Module>(
    runner: &mut R,
    context: Context<'_>,
    rates: &Rates,
    model: M,
    grads: GradientsParams,
) -> Result<((M, M), Pending<R::LeanKept>), (M, WsamError)> {
    let Collected { slots, whole } = match slots(runner, context, &model, grads) {
        Ok(collected) => collected,
        Err(error) => return Err((model, error)),
    };
    let names = names(&slots);
    let build = |tensors: Vec<TensorOf<R>>| {
        let perturbed = by_id(&names, tensors.clone());
        let perturbed = perturbed_copy::<R::Form, M>(&model, perturbed, whole);
        (perturbed, stepped_copy::<R, M>(&model, &names, tensors))
    };
    let half = rates.of(&names).and_then(|rates| runner.lean_ascend(context, &rates, slots, build));
    let (modules, kept) = finish(runner, model, half)?;
    Ok((modules, Pending { names, kept }))
}

/// The stepped model, or `anchor` as it was.
pub(crate) fn lean_descend<R: Runner, M: Module>(
    runner: &mut R,
    context: Context<'_>,
    (perturbed, anchor): (M, M),
    pending: Pending<R::LeanKept>,
    grads: GradientsParams,
) -> Result<(M, Norms), (M, WsamError)> {
    let Pending { names, kept } = pending;
    let collected = collect_perturbed::<R::Form, M>(perturbed, grads, context.device, &names);
    let build = |tensors| stepped_copy::<R, M>(&anchor, &names, tensors);
    let descended = collected.and_then(|grads| runner.lean_descend(context, kept, grads, build));
    finish(runner, anchor, descended)
}
