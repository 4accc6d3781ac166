//! The step in plain Burn tensor operations, for every backend. Knows nothing of the engine.

use super::error::WsamError;
use super::record::Loaded;
use super::report::Norms;
use super::runner::{Context, Half, Runner};
use super::slots::{Flat, Slot};
use super::state::{OptimizerState, read};
use crate::method::{Base, Blend, CLIP_EPSILON, Clip, Hyperparameters, InGroup};
use burn::module::ParamId;
use burn::tensor::{DType, Device, Tensor};
use std::collections::HashMap;

/// State of all parameters.
#[derive(Debug, Default)]
pub(crate) struct TensorOps {
    states: HashMap<ParamId, State>,
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
}

/// What an ascent keeps for its descent.
#[derive(Debug)]
pub(crate) struct Kept {
    slots: Vec<Slot<Tensor<1>>>,
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
    norms: TensorNorms,
}

impl TensorOps {
    #[cfg(feature = "train")]
    pub(crate) fn has_state(&self, id: ParamId) -> bool {
        self.states.contains_key(&id)
    }

    /// A parameter's state, read back.
    pub(crate) fn state(
        &self,
        base: &Base,
        id: ParamId,
    ) -> Result<Option<OptimizerState>, WsamError> {
        let Some(state) = self.states.get(&id) else { return Ok(None) };
        let data = state.tensors.iter().cloned().map(read).collect::<Result<Vec<_>, _>>()?;
        let tensors = base.state_names().iter().copied().zip(data).collect();
        Ok(Some(OptimizerState { step: state.step, tensors }))
    }
}

/// `w + e_w` for every slot, and `||g||` where the step or the caller wants it.
fn climb(context: Context<'_>, slots: &[Slot<Tensor<1>>]) -> (Vec<Tensor<1>>, TensorNorms) {
    let Context { hyper, track_norms, .. } = context;
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
        slot.weight.clone() + e
    });
    (perturbed.collect(), TensorNorms { gradient, perturbed: None })
}

/// `||g~||`, where the step or the caller wants it.
fn perturbed_norm(context: Context<'_>, grads_perturbed: &[Tensor<1>]) -> Option<Tensor<1>> {
    let wanted = context.hyper.clip.is_some() || context.track_norms;
    wanted.then(|| global_norm(grads_perturbed.iter().cloned()))
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
        let (tensors, norms) = climb(context, &slots);
        Ok(Half { tensors, rest: Kept { slots, norms }, retired: Vec::new() })
    }

    fn descend(
        &mut self,
        context: Context<'_>,
        rates: &[f64],
        kept: Kept,
        grads_perturbed: Vec<Tensor<1>>,
    ) -> Result<Half<Self, Norms>, WsamError> {
        let hyper = context.hyper;
        let Kept { slots, mut norms } = kept;
        norms.perturbed = perturbed_norm(context, &grads_perturbed);
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
                let h = mix(&blend, &g, &g_perturbed);
                let w = self.stepped(&base, lr, slot.id, slot.weight, h);
                if blend.sharpness == 0.0 {
                    w
                } else {
                    w - (g_perturbed - g) * (lr * blend.sharpness)
                }
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
        let (tensors, norms) = climb(context, &slots);
        let scale_g = scale_of_g(hyper, &norms);
        let (stepped, factors) = slots
            .into_iter()
            .zip(rates)
            .map(|(slot, lr)| {
                let InGroup { base, blend, lr_factor, .. } = context.in_group(&slot);
                let lr = lr * lr_factor;
                let factor = lr * blend.sharpness;
                let g = scaled(slot.grad, &scale_g);
                let stepped = self.stepped(&base, lr, slot.id, slot.weight, g.clone());
                (stepped + g * factor, factor)
            })
            .unzip();
        let rest = LeanKept { stepped, factors, norms };
        Ok(Half { tensors, rest, retired: Vec::new() })
    }

    fn lean_descend(
        &mut self,
        context: Context<'_>,
        kept: LeanKept,
        grads_perturbed: Vec<Tensor<1>>,
    ) -> Result<Half<Self, Norms>, WsamError> {
        let LeanKept { stepped, factors, mut norms } = kept;
        norms.perturbed = perturbed_norm(context, &grads_perturbed);
        let scale_perturbed = clip_factor(context.hyper.clip, &norms.perturbed);
        let tensors = stepped
            .into_iter()
            .zip(factors)
            .zip(grads_perturbed)
            .map(|((stepped, factor), g_perturbed)| {
                stepped - scaled(g_perturbed, &scale_perturbed) * factor
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
        let hyper = context.hyper;
        let norm = || global_norm(slots.iter().map(|slot| slot.grad.clone()));
        let gradient = hyper.clips_gradient().then(norm);
        let norms = TensorNorms { gradient, perturbed: None };
        let scale_g = scale_of_g(hyper, &norms);
        let tensors = slots
            .into_iter()
            .zip(rates)
            .map(|(slot, lr)| {
                let InGroup { base, lr_factor, .. } = context.in_group(&slot);
                let g = scaled(slot.grad, &scale_g);
                self.stepped(&base, lr * lr_factor, slot.id, slot.weight, g)
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
        let Kept { slots, mut norms } = kept;
        norms.perturbed = perturbed_norm(context, &grads_perturbed);
        let scale_g = scale_of_g(context.hyper, &norms);
        let scale_perturbed = clip_factor(context.hyper.clip, &norms.perturbed);
        let (tensors, grads) = slots
            .into_iter()
            .zip(grads_perturbed)
            .map(|(slot, g_perturbed)| {
                let InGroup { blend, lr_factor, .. } = context.in_group(&slot);
                let g = scaled(slot.grad, &scale_g);
                let g_perturbed = scaled(g_perturbed, &scale_perturbed);
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
        let norm = || global_norm(slots.iter().map(|slot| slot.grad.clone()));
        let gradient = context.hyper.clips_gradient().then(norm);
        let scale = scale_of_g(context.hyper, &TensorNorms { gradient, perturbed: None });
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
    /// The base optimizer's step of one parameter; its state advances.
    fn stepped(
        &mut self,
        base: &Base,
        lr: f64,
        id: ParamId,
        w: Tensor<1>,
        h: Tensor<1>,
    ) -> Tensor<1> {
        let (w, state) = base_step(base, lr, w, h, self.states.remove(&id));
        self.states.insert(id, state);
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

/// One step of the base optimizer, as PyTorch and Burn define it.
fn base_step(
    base: &Base,
    lr: f64,
    w: Tensor<1>,
    h: Tensor<1>,
    old: Option<State>,
) -> (Tensor<1>, State) {
    let step = old.as_ref().map_or(1, |state| state.step + 1);
    let mut old = old.map_or_else(Vec::new, |state| state.tensors).into_iter();
    match *base {
        Base::Sgd { momentum, weight_decay } => {
            let d = decayed(h, &w, weight_decay);
            let Some(m) = momentum else {
                return (w - d * lr, State { step, tensors: vec![] });
            };
            let buffer = match old.next() {
                Some(buffer) => buffer * m.momentum + d.clone() * (1.0 - m.dampening),
                None => d.clone(),
            };
            let u = if m.nesterov { d + buffer.clone() * m.momentum } else { buffer.clone() };
            (w - u * lr, State { step, tensors: vec![buffer] })
        }
        Base::Adam(m) | Base::AdamW(m) => {
            let decoupled = matches!(base, Base::AdamW(_));
            let d = if decoupled { h } else { decayed(h, &w, m.weight_decay) };
            let w = if decoupled { w * (1.0 - lr * m.weight_decay) } else { w };
            let square = d.clone() * d.clone() * (1.0 - m.beta_2);
            let first = match old.next() {
                Some(first) => first * m.beta_1 + d * (1.0 - m.beta_1),
                None => d * (1.0 - m.beta_1),
            };
            let second = match old.next() {
                Some(second) => second * m.beta_2 + square,
                None => square,
            };
            let largest = m.amsgrad.then(|| match old.next() {
                Some(largest) => largest.max_pair(second.clone()),
                None => second.clone(),
            });
            let under_root = largest.clone().unwrap_or_else(|| second.clone());
            let bias_1 = 1.0 - m.beta_1.powf(step as f64);
            let bias_2 = 1.0 - m.beta_2.powf(step as f64);
            let u = (first.clone() / bias_1) / ((under_root / bias_2).sqrt() + m.epsilon);
            let tensors = [Some(first), Some(second), largest].into_iter().flatten().collect();
            (w - u * lr, State { step, tensors })
        }
    }
}

fn decayed(h: Tensor<1>, w: &Tensor<1>, penalty: f64) -> Tensor<1> {
    if penalty == 0.0 { h } else { h + w.clone() * penalty }
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
