//! Gradients for a Burn optimizer as the base, and the sharpness step after it.

use super::base::mix;
use super::batch::{Batch, Members, in_order};
use super::finite::keep_where;
use super::norms::{TensorNorms, clip_factor, scale_of_g, scaled};
use crate::method::InGroup;
use crate::optim::step_backend::StepContext;
use burn::tensor::Tensor;

/// State between a mix and its sharpness step.
#[derive(Debug)]
pub(crate) struct MixState {
    batches: Vec<MixedBatch>,
    pub(super) norms: TensorNorms,
}

/// Clipped gradients of a batch.
#[derive(Debug)]
struct MixedBatch {
    members: Members,
    g: Tensor<1>,
    g_perturbed: Tensor<1>,
    /// `lr_factor * sharpness`.
    factor: f64,
}

impl MixState {
    /// Computes `a g + b g~`, clipped, in the order of the step's parameters.
    pub(super) fn mix(
        context: StepContext<'_>,
        batches: Vec<Batch>,
        grads_perturbed: Vec<Tensor<1>>,
        norms: TensorNorms,
    ) -> (Vec<Tensor<1>>, Self) {
        let falls_back = norms.finite.falls_back(norms.policy);
        let scale_g = scale_of_g(context.hyper, &norms);
        let scale_perturbed = clip_factor(context.hyper.clip, &norms.perturbed);
        let (tensors, batches): (Vec<_>, Vec<_>) = batches
            .into_iter()
            .zip(grads_perturbed)
            .map(|(Batch { members, entry, .. }, g_perturbed)| {
                let InGroup { blend, lr_factor, .. } = context.in_group(&entry);
                let g = scaled(entry.grad, &scale_g);
                let g_perturbed = scaled(g_perturbed, &scale_perturbed);
                let g_perturbed = keep_where(&falls_back, g_perturbed, || g.clone());
                let h = mix(&blend, &g, &g_perturbed);
                let factor = lr_factor * blend.sharpness;
                (h, MixedBatch { members, g, g_perturbed, factor })
            })
            .unzip();
        let members = batches.iter().map(|batch: &MixedBatch| &batch.members);
        (in_order(context.device, members.zip(tensors)), Self { batches, norms })
    }

    /// Takes the sharpness step from `weights`, those after the Burn optimizer's step.
    pub(super) fn sharpen(
        &self,
        context: StepContext<'_>,
        rates: &[f64],
        weights: Vec<Tensor<1>>,
    ) -> Vec<Tensor<1>> {
        let mut weights: Vec<_> = weights.into_iter().map(Some).collect();
        let sharpened = self.batches.iter().map(|batch| {
            let MixedBatch { members, g, g_perturbed, factor } = batch;
            let sharpness = g_perturbed.clone() - g.clone();
            let w = members.join_of(&mut weights);
            let stepped = match members.one_rate(rates) {
                Some(lr) => w - sharpness * (lr * factor),
                None => {
                    let each = members.split(w).into_iter().zip(members.split(sharpness));
                    let each = each
                        .zip(members.places())
                        .map(|((w, sharpness), place)| w - sharpness * (rates[place] * factor));
                    members.join(each.collect())
                }
            };
            (members, stepped)
        });
        in_order(context.device, sharpened)
    }
}
