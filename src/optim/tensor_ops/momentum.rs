//! Momentum-SAM's step: the point along the momentum, and the step on the gradient there.

use super::TensorOps;
use super::batch::{Batch, in_order};
use super::norms::{TensorNorms, check_gradient, clip_factor, in_groups, norms_by_scope, scaled};
use super::updates::Update;
use crate::method::Base;
use crate::optim::param_entries::ParamEntry;
use crate::optim::step_backend::StepContext;
use burn::tensor::Tensor;

impl TensorOps {
    /// Returns `w - rho m / (||m|| + eps)` of the entries, which have a momentum.
    pub(super) fn momentum_point(
        &mut self,
        context: StepContext<'_>,
        entries: Vec<ParamEntry<Tensor<1>>>,
    ) -> Vec<Tensor<1>> {
        // The momentum takes the place of the gradient, and has no loss scale.
        let context = StepContext { inv_scale: 1.0, ..context };
        let base = &context.hyper.base;
        let with_momentum =
            |entry: ParamEntry<Tensor<1>>| match self.states.momentum(base, entry.id) {
                Some(grad) => ParamEntry { grad, ..entry },
                None => entry,
            };
        let entries = entries.into_iter().map(with_momentum).collect();
        let batches = self.states.batches(context, entries, None);
        let batches = self.states.with_masters(context, batches);
        let groups = in_groups(context, &batches);
        let lengths = norms_by_scope(context, &batches, |place| batches[place].entry.grad.clone());
        let moved = batches.iter().zip(&groups).map(|(Batch { members, entry, .. }, group)| {
            let w = entry.weight.clone();
            let length = lengths[group.scope].clone().filter(|_| group.perturbed);
            let Some(length) = length else { return (members, w) };
            (members, w - entry.grad.clone() / (length + context.hyper.epsilon) * group.rho)
        });
        in_order(context.device, moved)
    }

    /// Computes what the base optimizer steps on: the clipped gradient, with the L2 penalty of the `perturbed` weights.
    pub(super) fn momentum_updates(
        &mut self,
        context: StepContext<'_>,
        rates: &[f64],
        entries: Vec<ParamEntry<Tensor<1>>>,
        perturbed: Vec<Tensor<1>>,
    ) -> (Vec<Update>, TensorNorms) {
        let batches = self.states.batches(context, entries, Some(rates));
        let batches = self.states.with_masters(context, batches);
        let clip = context.hyper.clip;
        let norms = check_gradient(context, &batches, clip.is_some(), &Vec::new());
        let scale = clip_factor(clip, &norms.gradient);
        let mut perturbed: Vec<_> = perturbed.into_iter().map(Some).collect();
        let update = |Batch { members, entry, .. }: Batch| {
            let g = scaled(entry.grad.clone(), &scale);
            let h = match penalty(&context.in_group(&entry).base) {
                0.0 => g.clone(),
                penalty => g.clone() + members.join_of(&mut perturbed) * penalty,
            };
            Update { g_perturbed: g.clone(), g, h, members, entry }
        };
        (batches.into_iter().map(update).collect(), norms)
    }
}

/// The factor of the L2 penalty.
fn penalty(base: &Base) -> f64 {
    match base {
        Base::Sgd { weight_decay, .. } => *weight_decay,
        Base::Adam(moments) => moments.weight_decay,
        Base::AdamW(_) => 0.0,
    }
}

/// The base optimizer without its L2 penalty.
pub(super) fn without_penalty(base: Base) -> Base {
    match base {
        Base::AdamW(_) => base,
        _ => base.with_weight_decay(0.0),
    }
}
