//! The step in plain Burn tensor operations, for every backend. Knows nothing of the engine.

mod base;
mod finite;

use base::base_step;
use finite::{Fact, Facts, look, unless, unless_state};

use super::error::WsamError;
use super::record::Loaded;
use super::report::Norms;
use super::runner::{Context, Half, Runner};
use super::slots::{Flat, Slot};
use super::state::{OptimizerState, read};
use super::verdict::{Finite, Settled, Unsettled};
use crate::method::{
    Base, Blend, CLIP_EPSILON, Clip, Hyperparameters, InGroup, NonFinite, Outcome,
};
use burn::module::ParamId;
use burn::tensor::{DType, Device, Tensor};
use std::collections::HashMap;

/// State of all parameters.
#[derive(Debug, Default)]
pub(crate) struct TensorOps {
    states: HashMap<ParamId, State>,
    unsettled: Option<Unsettled<Facts>>,
}

#[derive(Clone, Debug)]
struct State {
    step: u64,
    /// In the order of [`Base::state_names`].
    tensors: Vec<Tensor<1>>,
}

/// Global norms as one-element tensors, read only if somebody asks.
#[derive(Clone, Debug)]
pub(crate) struct TensorNorms {
    pub(crate) gradient: Option<Tensor<1>>,
    pub(crate) perturbed: Option<Tensor<1>>,
    finite: Facts,
    policy: NonFinite,
    lean: bool,
}

impl TensorNorms {
    /// Waits for the device.
    pub(crate) fn outcome(&self) -> Result<Outcome, WsamError> {
        let Finite { gradient, perturbed } = self.finite.read()?;
        Ok(self.policy.outcome(self.lean, gradient, perturbed))
    }
}

/// What an ascent keeps for its descent.
#[derive(Debug)]
pub(crate) struct Kept {
    slots: Vec<Slot<Tensor<1>>>,
    inv_scale: f64,
    norms: TensorNorms,
}

/// What a mix keeps: each pair of clipped gradients, with `lr_factor sharpness`.
#[derive(Debug)]
pub(crate) struct Mixed {
    grads: Vec<(Tensor<1>, Tensor<1>, f64)>,
    norms: TensorNorms,
}

/// What a lean ascent keeps: the base optimizer's step, taken, and the term in `g`.
#[derive(Debug)]
pub(crate) struct LeanKept {
    stepped: Vec<Tensor<1>>,
    /// `lr sharpness`, for each.
    factors: Vec<f64>,
    /// What the second pass runs on.
    ran_on: Vec<Tensor<1>>,
    ids: Vec<ParamId>,
    inv_scale: f64,
    norms: TensorNorms,
}

impl TensorOps {
    #[cfg(feature = "train")]
    pub(crate) fn has_state(&self, id: ParamId) -> bool {
        self.states.get(&id).is_some_and(|state| state.step > 0)
    }

    /// A parameter's state, read back.
    pub(crate) fn state(
        &self,
        base: &Base,
        id: ParamId,
    ) -> Result<Option<OptimizerState>, WsamError> {
        let Some(state) = self.states.get(&id) else { return Ok(None) };
        let of_last = self.unsettled.as_ref().filter(|unsettled| unsettled.ids.contains(&id));
        let last = of_last.map(|last| last.settled(Facts::read)).transpose()?;
        let step = state.step.saturating_sub(last.map_or(0, |last| last.uncounted()));
        if step == 0 {
            return Ok(None);
        }
        let data = state.tensors.iter().cloned().map(read).collect::<Result<Vec<_>, _>>()?;
        let tensors = base.state_names().iter().copied().zip(data).collect();
        Ok(Some(OptimizerState { step, tensors }))
    }

    /// Notes what decides a step.
    fn judged(&mut self, ids: Vec<ParamId>, norms: &TensorNorms) {
        let TensorNorms { finite, policy, lean, .. } = norms;
        if policy.looks() {
            self.unsettled = Some(Unsettled::new(ids, *policy, *lean, finite.clone()));
        }
    }
}

/// Gradients as they are without a loss scale.
fn unscaled(mut slots: Vec<Slot<Tensor<1>>>, inv_scale: f64) -> Vec<Slot<Tensor<1>>> {
    for slot in &mut slots {
        slot.grad = times(slot.grad.clone(), inv_scale);
    }
    slots
}

fn times(tensor: Tensor<1>, factor: f64) -> Tensor<1> {
    if factor == 1.0 { tensor } else { tensor * factor }
}

/// `w + e_w` for every slot, and `||g||` where the step or the caller wants it.
fn climb(
    context: Context<'_>,
    slots: &[Slot<Tensor<1>>],
    lean: bool,
) -> (Vec<Tensor<1>>, TensorNorms) {
    let Context { hyper, track_norms, .. } = context;
    let policy = hyper.non_finite;
    let fact = look(policy, slots.iter().map(|slot| slot.grad.clone()));
    let finite = Facts { gradient: fact, perturbed: None };
    let skipped = finite.skipped(policy);
    let groups: Vec<InGroup> = slots.iter().map(|slot| context.in_group(slot)).collect();
    let divisors: Vec<_> = (0..hyper.scopes())
        .map(|scope| {
            let is_inside = |group: &InGroup| group.perturbed && group.scope == scope;
            let inside = slots.iter().zip(&groups).filter(|(_, group)| is_inside(group)).map(
                |(slot, group)| match group.adaptive {
                    true => slot.weight.clone() * slot.grad.clone(),
                    false => slot.grad.clone(),
                },
            );
            // A scope without parameters has nothing to divide.
            groups.iter().any(is_inside).then(|| global_norm(inside))
        })
        .collect();
    let gradient = match &divisors[0] {
        Some(norm) if hyper.perturbs_by_gradient_norm() => Some(norm.clone()),
        _ if hyper.clips_gradient() || track_norms => {
            Some(global_norm(slots.iter().map(|slot| slot.grad.clone())))
        }
        _ => None,
    };
    let divisors: Vec<_> =
        divisors.into_iter().map(|norm| norm.map(|norm| norm + hyper.epsilon)).collect();
    let perturbed = slots.iter().zip(&groups).map(|(slot, group)| {
        let divisor = divisors[group.scope].as_ref().filter(|_| group.perturbed);
        let Some(divisor) = divisor else { return slot.weight.clone() };
        // Divided first: g / ||g|| is at most 1, while rho / ||g|| may leave the range.
        let mut e = slot.grad.clone() / divisor.clone() * group.rho;
        if group.adaptive {
            e = e * slot.weight.clone() * slot.weight.clone();
        }
        unless(&skipped, slot.weight.clone() + e, slot.weight.clone())
    });
    (perturbed.collect(), TensorNorms { gradient, perturbed: None, finite, policy, lean })
}

/// Adds `||g~||`, where the step or the caller wants it, and whether `g~` is finite.
fn look_at_perturbed(context: Context<'_>, grads_perturbed: &[Tensor<1>], norms: &mut TensorNorms) {
    let wanted = context.hyper.clip.is_some() || context.track_norms;
    norms.perturbed = wanted.then(|| global_norm(grads_perturbed.iter().cloned()));
    norms.finite.perturbed = look(norms.policy, grads_perturbed.iter().cloned());
}

/// `||g||` of a step without a second pass, where it clips, and whether `g` is finite.
fn look_at_gradient(context: Context<'_>, slots: &[Slot<Tensor<1>>]) -> TensorNorms {
    let grads = || slots.iter().map(|slot| slot.grad.clone());
    let policy = context.hyper.non_finite;
    TensorNorms {
        gradient: context.hyper.clips_gradient().then(|| global_norm(grads())),
        perturbed: None,
        finite: Facts { gradient: look(policy, grads()), perturbed: None },
        policy,
        lean: false,
    }
}

fn scale_of_g(hyper: &Hyperparameters, norms: &TensorNorms) -> Option<Tensor<1>> {
    clip_factor(hyper.clip.filter(|_| hyper.clips_gradient()), &norms.gradient)
}

impl Runner for TensorOps {
    type Form = Flat;
    type Kept = Kept;
    type LeanKept = LeanKept;
    type Mixed = Mixed;

    const TYPES: (&'static [DType], &'static str, &'static str) =
        (&[DType::F32, DType::F64], "f32 and f64", "tensor-op");

    fn ascend(
        &mut self,
        context: Context<'_>,
        slots: Vec<Slot<Tensor<1>>>,
    ) -> Result<Half<Self, Kept>, WsamError> {
        let inv_scale = context.inv_scale;
        let slots = unscaled(slots, inv_scale);
        let (tensors, norms) = climb(context, &slots, false);
        Ok(Half { tensors, rest: Kept { slots, inv_scale, norms }, retired: Vec::new() })
    }

    fn descend(
        &mut self,
        context: Context<'_>,
        rates: &[f64],
        kept: Kept,
        grads_perturbed: Vec<Tensor<1>>,
    ) -> Result<Half<Self, Norms>, WsamError> {
        let hyper = context.hyper;
        let Kept { slots, inv_scale, mut norms } = kept;
        let grads_perturbed: Vec<_> =
            grads_perturbed.into_iter().map(|grad| times(grad, inv_scale)).collect();
        look_at_perturbed(context, &grads_perturbed, &mut norms);
        let skipped = norms.finite.skipped(norms.policy);
        let falls_back = norms.finite.falls_back(norms.policy);
        self.judged(slots.iter().map(|slot| slot.id).collect(), &norms);
        let scale_g = scale_of_g(hyper, &norms);
        let scale_perturbed = clip_factor(hyper.clip, &norms.perturbed);
        let tensors = slots
            .into_iter()
            .zip(rates)
            .zip(grads_perturbed)
            .map(|((slot, lr), g_perturbed)| {
                let InGroup { base, blend, lr_factor, .. } = context.in_group(&slot);
                let lr = lr * lr_factor;
                let g = scaled(slot.grad, &scale_g);
                let g_perturbed = scaled(g_perturbed, &scale_perturbed);
                let g_perturbed = unless(&falls_back, g_perturbed, g.clone());
                let h = mix(&blend, &g, &g_perturbed);
                let old = slot.weight.clone();
                let mut w = self.stepped(&base, lr, slot.id, slot.weight, h, &skipped);
                if blend.sharpness != 0.0 {
                    w = w - (g_perturbed - g) * (lr * blend.sharpness);
                }
                unless(&skipped, w, old)
            })
            .collect();
        let rest = Norms::TensorOps(Box::new(norms));
        Ok(Half { tensors, rest, retired: Vec::new() })
    }

    fn lean_ascend(
        &mut self,
        context: Context<'_>,
        rates: &[f64],
        slots: Vec<Slot<Tensor<1>>>,
    ) -> Result<Half<Self, LeanKept>, WsamError> {
        let hyper = context.hyper;
        let inv_scale = context.inv_scale;
        let slots = unscaled(slots, inv_scale);
        let (tensors, norms) = climb(context, &slots, true);
        let skipped = norms.finite.skipped(norms.policy);
        let ids: Vec<_> = slots.iter().map(|slot| slot.id).collect();
        self.judged(ids.clone(), &norms);
        let scale_g = scale_of_g(hyper, &norms);
        let (stepped, factors) = slots
            .into_iter()
            .zip(rates)
            .map(|(slot, lr)| {
                let InGroup { base, blend, lr_factor, .. } = context.in_group(&slot);
                let lr = lr * lr_factor;
                let factor = lr * blend.sharpness;
                let g = scaled(slot.grad, &scale_g);
                let old = slot.weight.clone();
                let stepped = self.stepped(&base, lr, slot.id, slot.weight, g.clone(), &skipped);
                (unless(&skipped, stepped + g * factor, old), factor)
            })
            .unzip();
        let ran_on = if norms.policy.looks() { tensors.clone() } else { Vec::new() };
        let rest = LeanKept { stepped, factors, ran_on, ids, inv_scale, norms };
        Ok(Half { tensors, rest, retired: Vec::new() })
    }

    fn lean_descend(
        &mut self,
        context: Context<'_>,
        kept: LeanKept,
        grads_perturbed: Vec<Tensor<1>>,
    ) -> Result<Half<Self, Norms>, WsamError> {
        let LeanKept { stepped, factors, ran_on, ids, inv_scale, mut norms } = kept;
        let grads_perturbed: Vec<_> =
            grads_perturbed.into_iter().map(|grad| times(grad, inv_scale)).collect();
        look_at_perturbed(context, &grads_perturbed, &mut norms);
        // Under any policy: `g` was not finite and `ran_on` is w, or `g~` is not.
        let returns = norms.finite.skipped(NonFinite::Skip);
        self.judged(ids, &norms);
        let scale_perturbed = clip_factor(context.hyper.clip, &norms.perturbed);
        let mut ran_on = ran_on.into_iter();
        let tensors = stepped
            .into_iter()
            .zip(factors)
            .zip(grads_perturbed)
            .map(|((stepped, factor), g_perturbed)| {
                let w = stepped - scaled(g_perturbed, &scale_perturbed) * factor;
                match ran_on.next() {
                    Some(ran_on) => unless(&returns, w, ran_on),
                    None => w,
                }
            })
            .collect();
        let rest = Norms::TensorOps(Box::new(norms));
        Ok(Half { tensors, rest, retired: Vec::new() })
    }

    fn base_step(
        &mut self,
        context: Context<'_>,
        rates: &[f64],
        slots: Vec<Slot<Tensor<1>>>,
    ) -> Result<Half<Self, ()>, WsamError> {
        let slots = unscaled(slots, context.inv_scale);
        let norms = look_at_gradient(context, &slots);
        let skipped = norms.finite.skipped(norms.policy);
        self.judged(slots.iter().map(|slot| slot.id).collect(), &norms);
        let scale_g = scale_of_g(context.hyper, &norms);
        let tensors = slots
            .into_iter()
            .zip(rates)
            .map(|(slot, lr)| {
                let InGroup { base, lr_factor, .. } = context.in_group(&slot);
                let g = scaled(slot.grad, &scale_g);
                let old = slot.weight.clone();
                let w = self.stepped(&base, lr * lr_factor, slot.id, slot.weight, g, &skipped);
                unless(&skipped, w, old)
            })
            .collect();
        Ok(Half { tensors, rest: (), retired: Vec::new() })
    }

    fn mix(
        &mut self,
        context: Context<'_>,
        kept: Kept,
        grads_perturbed: Vec<Tensor<1>>,
    ) -> Result<Half<Self, Mixed>, WsamError> {
        let Kept { slots, inv_scale, mut norms } = kept;
        let grads_perturbed: Vec<_> =
            grads_perturbed.into_iter().map(|grad| times(grad, inv_scale)).collect();
        look_at_perturbed(context, &grads_perturbed, &mut norms);
        let falls_back = norms.finite.falls_back(norms.policy);
        // Around it no step is counted here.
        self.judged(Vec::new(), &norms);
        let scale_g = scale_of_g(context.hyper, &norms);
        let scale_perturbed = clip_factor(context.hyper.clip, &norms.perturbed);
        let (tensors, grads) = slots
            .into_iter()
            .zip(grads_perturbed)
            .map(|(slot, g_perturbed)| {
                let InGroup { blend, lr_factor, .. } = context.in_group(&slot);
                let g = scaled(slot.grad, &scale_g);
                let g_perturbed = scaled(g_perturbed, &scale_perturbed);
                let g_perturbed = unless(&falls_back, g_perturbed, g.clone());
                (mix(&blend, &g, &g_perturbed), (g, g_perturbed, lr_factor * blend.sharpness))
            })
            .unzip();
        Ok(Half { tensors, rest: Mixed { grads, norms }, retired: Vec::new() })
    }

    fn clip(
        &mut self,
        context: Context<'_>,
        slots: Vec<Slot<Tensor<1>>>,
    ) -> Result<Vec<Tensor<1>>, WsamError> {
        let slots = unscaled(slots, context.inv_scale);
        let norms = look_at_gradient(context, &slots);
        self.judged(Vec::new(), &norms);
        let scale = scale_of_g(context.hyper, &norms);
        Ok(slots.into_iter().map(|slot| scaled(slot.grad, &scale)).collect())
    }

    fn sharpen(
        &mut self,
        _context: Context<'_>,
        rates: &[f64],
        mixed: Mixed,
        weights: Option<Vec<Tensor<1>>>,
    ) -> Result<Half<Self, Norms>, WsamError> {
        let tensors =
            weights.into_iter().flatten().zip(rates).zip(mixed.grads).map(
                |((w, lr), (g, g_perturbed, sharpness))| w - (g_perturbed - g) * (lr * sharpness),
            );
        let rest = Norms::TensorOps(Box::new(mixed.norms));
        Ok(Half { tensors: tensors.collect(), rest, retired: Vec::new() })
    }

    fn last_outcome(&self) -> Result<Option<Settled>, WsamError> {
        self.unsettled.as_ref().map(|last| last.settled(Facts::read)).transpose()
    }

    fn settle(&mut self) -> Result<Option<Settled>, WsamError> {
        let Some(settled) = self.last_outcome()? else { return Ok(None) };
        for id in self.unsettled.take().into_iter().flat_map(|unsettled| unsettled.ids) {
            if let Some(state) = self.states.get_mut(&id) {
                state.step = state.step.saturating_sub(settled.uncounted());
            }
        }
        Ok(Some(settled))
    }

    fn replace_states(
        &mut self,
        device: &Device,
        ids: &[ParamId],
        loaded: Vec<Loaded>,
    ) -> Result<(), WsamError> {
        ids.iter().for_each(|id| drop(self.states.remove(id)));
        for Loaded { id, step, tensors, .. } in loaded {
            let tensors = tensors
                .into_iter()
                .map(|data| {
                    let dtype = data.dtype();
                    Tensor::from_data(data, (device, dtype))
                })
                .collect();
            self.states.insert(id, State { step, tensors });
        }
        Ok(())
    }

    fn state_len(&self, id: ParamId) -> Option<usize> {
        let state = self.states.get(&id)?;
        state.tensors.first().map(|tensor| tensor.dims()[0])
    }

    fn retire(&self, _tensors: Vec<Tensor<1>>) {}
}

impl TensorOps {
    /// The base optimizer's step of one parameter; its state advances, unless the step is skipped.
    fn stepped(
        &mut self,
        base: &Base,
        lr: f64,
        id: ParamId,
        w: Tensor<1>,
        h: Tensor<1>,
        skipped: &Option<Fact>,
    ) -> Tensor<1> {
        // At step 0 it holds what a first step left behind that was skipped.
        let old = self.states.remove(&id).filter(|state| state.step > 0);
        let before = old.as_ref().map(|old| old.tensors.clone());
        let (w, state) = base_step(base, lr, w, h, old);
        self.states.insert(id, unless_state(skipped, state, before));
        w
    }
}

/// `a g + b g~`, without the terms whose weight is zero.
fn mix(blend: &Blend, g: &Tensor<1>, g_perturbed: &Tensor<1>) -> Tensor<1> {
    match (blend.a, blend.b) {
        (1.0, 0.0) => g.clone(),
        (0.0, b) => g_perturbed.clone() * b,
        (a, b) => g.clone() * a + g_perturbed.clone() * b,
    }
}

fn clip_factor(clip: Option<Clip>, norm: &Option<Tensor<1>>) -> Option<Tensor<1>> {
    let (clip, norm) = (clip?, norm.clone()?);
    Some(((norm + CLIP_EPSILON).recip() * clip.max_norm).clamp_max(1.0))
}

fn scaled(tensor: Tensor<1>, factor: &Option<Tensor<1>>) -> Tensor<1> {
    match factor {
        Some(factor) => tensor * factor.clone(),
        None => tensor,
    }
}

/// The L2 norm over all tensors, scaled by the largest magnitude so that no square leaves the
/// range: right for gradients of 1e-30 and of 1e+30.
fn global_norm(tensors: impl Iterator<Item = Tensor<1>> + Clone) -> Tensor<1> {
    let filled = tensors.filter(|tensor| tensor.dims()[0] > 0);
    let largest: Vec<_> = filled.clone().map(|tensor| tensor.abs().max()).collect();
    let Some(device) = largest.first().map(Tensor::device) else {
        return Tensor::zeros([1], &Default::default());
    };
    let largest = Tensor::cat(largest, 0).max();
    // A zero gradient is 0 / tiny, not 0 / 0.
    let scale = largest.clone().clamp_min(f32::MIN_POSITIVE);
    let sum = filled.fold(Tensor::zeros([1], &device), |sum, tensor| {
        let scaled = tensor / scale.clone();
        sum + (scaled.clone() * scaled).sum()
    });
    largest * sum.sqrt()
}
