//! The step in plain Burn tensor operations, for every backend. Knows nothing of the engine.

use super::slots::Slot;
use super::state::OptimizerState;
use crate::method::{Base, Blend, CLIP_EPSILON, Clip, Hyperparameters};
use burn::module::ParamId;
use burn::tensor::Tensor;
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

impl TensorOps {
    /// `w + e_w` for every slot, and `||g||` where the step or the caller wants it.
    pub(crate) fn ascend(
        hyper: &Hyperparameters,
        track_norms: bool,
        slots: &[Slot],
    ) -> (Vec<Tensor<1>>, TensorNorms) {
        let grads = || slots.iter().map(|slot| slot.grad.clone());
        let clips_g = hyper.clips_gradient();
        let (divisor, gradient) = if hyper.adaptive {
            let scaled = slots.iter().map(|slot| slot.weight.clone() * slot.grad.clone());
            (global_norm(scaled), (clips_g || track_norms).then(|| global_norm(grads())))
        } else {
            let norm = global_norm(grads());
            (norm.clone(), Some(norm))
        };
        let divisor = divisor + hyper.epsilon;
        let perturbed = slots.iter().map(|slot| {
            // Divided first: g / ||g|| is at most 1, while rho / ||g|| may leave the range.
            let mut e = slot.grad.clone() / divisor.clone() * hyper.rho;
            if hyper.adaptive {
                e = e * slot.weight.clone() * slot.weight.clone();
            }
            slot.weight.clone() + e
        });
        (perturbed.collect(), TensorNorms { gradient, perturbed: None })
    }

    /// The new weights of every slot. State advances with them.
    pub(crate) fn descend(
        &mut self,
        hyper: &Hyperparameters,
        track_norms: bool,
        lr: f64,
        slots: &[Slot],
        grads_perturbed: Vec<Tensor<1>>,
        norms: &mut TensorNorms,
    ) -> Vec<Tensor<1>> {
        if hyper.clip.is_some() || track_norms {
            norms.perturbed = Some(global_norm(grads_perturbed.iter().cloned()));
        }
        let clips_g = hyper.clip.filter(|_| hyper.clips_gradient());
        let scale_g = clip_factor(clips_g, &norms.gradient);
        let scale_perturbed = clip_factor(hyper.clip, &norms.perturbed);
        let blend = hyper.blend();
        slots
            .iter()
            .zip(grads_perturbed)
            .map(|(slot, g_perturbed)| {
                let g = scaled(slot.grad.clone(), &scale_g);
                let g_perturbed = scaled(g_perturbed, &scale_perturbed);
                let old = self.states.remove(&slot.id);
                let h = mix(&blend, &g, &g_perturbed);
                let (w, state) = base_step(&hyper.base, lr, slot.weight.clone(), h, old);
                self.states.insert(slot.id, state);
                if blend.sharpness == 0.0 {
                    w
                } else {
                    w - (g_perturbed - g) * (lr * blend.sharpness)
                }
            })
            .collect()
    }

    /// Elements of a parameter's state, if it has any.
    pub(crate) fn state_len(&self, id: ParamId) -> Option<usize> {
        let state = self.states.get(&id)?;
        state.tensors.first().map(|tensor| tensor.dims()[0])
    }

    /// A parameter's state, read back.
    pub(crate) fn state(&self, base: &Base, id: ParamId) -> Option<OptimizerState> {
        let state = self.states.get(&id)?;
        let data = state.tensors.iter().map(|tensor| tensor.to_data());
        Some(OptimizerState {
            step: state.step,
            tensors: base.state_names().iter().copied().zip(data).collect(),
        })
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
