//! What the base optimizer steps on, from the two gradients of a step.

use super::TensorOps;
use super::base::mix;
use super::batch::{Batch, Members};
use super::directions::Pairs;
use super::finite::{check_norms, keep_where};
use super::norms::{
    ScopeNorms, TensorNorms, clip_factor, in_groups, scale_of_g, scaled, unscale_and_check,
};
use crate::method::{Method, NonFinite};
use crate::optim::param_entries::ParamEntry;
use crate::optim::step_backend::StepContext;
use burn::tensor::Tensor;

/// The gradients of a batch in a descent.
pub(super) struct Update {
    pub(super) members: Members,
    /// The weights, and the unclipped `g`.
    pub(super) entry: ParamEntry<Tensor<1>>,
    /// Clipped.
    pub(super) g: Tensor<1>,
    /// Clipped; `g` where the step falls back to the base optimizer's.
    pub(super) g_perturbed: Tensor<1>,
    /// What the base optimizer steps on.
    pub(super) h: Tensor<1>,
}

impl TensorOps {
    /// Computes the gradients of a step with a second pass, and the method's new state. Adds the norms and checks of
    /// `g~` to `norms`. `lengths` are [`gradient_lengths`](super::directions::gradient_lengths).
    pub(super) fn updates(
        &mut self,
        context: StepContext<'_>,
        batches: Vec<Batch>,
        lengths: &ScopeNorms,
        grads_perturbed: Vec<Tensor<1>>,
        norms: &mut TensorNorms,
    ) -> Vec<Update> {
        let hyper = context.hyper;
        let mut grads: Vec<_> = grads_perturbed.into_iter().map(Some).collect();
        let joined = |batch: &Batch| (batch.by_rows, batch.members.join_of(&mut grads));
        let joined = batches.iter().map(joined).collect();
        let grads_perturbed = unscale_and_check(context, joined, norms);
        let pairs = Pairs::new(context, &batches, lengths, &grads_perturbed);
        let flag = norms.finite.perturbed.take();
        norms.finite.perturbed = check_norms(norms.policy, flag, pairs.perturbed_lengths());
        self.store_directions(context, &batches, &pairs, &grads_perturbed, norms);

        let falls_back = norms.finite.falls_back(norms.policy);
        let skipped = norms.finite.skipped(norms.policy);
        let scale_g = scale_of_g(hyper, norms);
        let scale_perturbed = clip_factor(hyper.clip, &norms.perturbed);
        let groups = in_groups(context, &batches);
        let mut updates = Vec::with_capacity(batches.len());
        for ((batch, group), unclipped) in batches.into_iter().zip(groups).zip(grads_perturbed) {
            let Batch { members, entry, .. } = batch;
            let g = scaled(entry.grad.clone(), &scale_g);
            let g_perturbed = scaled(unclipped.clone(), &scale_perturbed);
            let h = match hyper.method {
                Method::Gsam { alpha } if group.perturbed && alpha != 0.0 => {
                    let v = pairs.orthogonal_to_perturbed(&group, &g, &unclipped, &scale_g);
                    Some(g_perturbed.clone() - v * alpha)
                }
                _ => None,
            };
            let h = h.map(|h| keep_where(&falls_back, h, || g.clone()));
            let g_perturbed = keep_where(&falls_back, g_perturbed, || g.clone());
            let h = match (hyper.method, h) {
                (_, Some(h)) => h,
                (Method::Wsam, None) => mix(&group.blend, &g, &g_perturbed),
                (_, None) => g_perturbed.clone(),
            };
            if let Method::FriendlySam { lambda, .. } = hyper.method
                && group.perturbed
            {
                let old = self.states.method_state(&members);
                let is_new = old.is_none();
                let average = match old {
                    Some(old) => {
                        let new = old.clone() * lambda + entry.grad.clone() * (1.0 - lambda);
                        keep_where(&skipped, new, || old)
                    }
                    None => entry.grad.clone(),
                };
                self.states.put_method_state(&members, average, is_new);
            }
            updates.push(Update { members, entry, g, g_perturbed, h });
        }
        updates
    }

    /// Stores LookSAM's directions after a SAM step. A step that is not taken whole keeps the old ones.
    fn store_directions(
        &mut self,
        context: StepContext<'_>,
        batches: &[Batch],
        pairs: &Pairs,
        grads_perturbed: &[Tensor<1>],
        norms: &TensorNorms,
    ) {
        if !matches!(context.hyper.method, Method::LookSam { .. }) {
            return;
        }
        let not_whole = norms.finite.skipped(NonFinite::Skip);
        let directions = pairs.directions(context, batches, grads_perturbed);
        for (batch, direction) in batches.iter().zip(directions) {
            let Some(direction) = direction else { continue };
            let old = self.states.method_state(&batch.members);
            // No direction and a direction of zeros are the same.
            let old = || old.unwrap_or_else(|| batch.entry.grad.zeros_like());
            let kept = keep_where(&not_whole, direction, old);
            self.states.put_method_state(&batch.members, kept, false);
        }
    }
}
