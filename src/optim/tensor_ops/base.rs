//! The mix of the gradients, and the base optimizer's step.

use crate::method::{Base, Blend};
use burn::tensor::Tensor;

/// State of parameters before or after a step.
#[derive(Debug)]
pub(super) struct State {
    pub(super) step: u64,
    /// In the order of [`Base::state_names`].
    pub(super) tensors: Vec<Tensor<1>>,
}

/// Computes `a g + b g~` as [`Blend::by_difference`], without terms whose weight is zero.
pub(super) fn mix(blend: &Blend, g: &Tensor<1>, g_perturbed: &Tensor<1>) -> Tensor<1> {
    if let Some(of_g) = blend.by_difference() {
        let sharpness = (g_perturbed.clone() - g.clone()) * blend.b;
        return if of_g == 1.0 { g.clone() + sharpness } else { g.clone() * of_g + sharpness };
    }
    match (blend.a, blend.b) {
        (1.0, 0.0) => g.clone(),
        (0.0, b) => g_perturbed.clone() * b,
        (a, b) => g.clone() * a + g_perturbed.clone() * b,
    }
}

/// One step of the base optimizer, as PyTorch and Burn define it.
pub(super) fn base_step(
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
