//! Gradients for a Burn optimizer as the base, and the sharpness step after it.

use super::batch::{Members, in_order};
use super::norms::TensorNorms;
use super::updates::Update;
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
    /// Returns the base optimizer's gradients in the order of the step's parameters, and the state for the sharpness
    /// step.
    pub(super) fn new(
        context: StepContext<'_>,
        updates: Vec<Update>,
        norms: TensorNorms,
    ) -> (Vec<Tensor<1>>, Self) {
        let (tensors, batches): (Vec<_>, Vec<_>) = updates
            .into_iter()
            .map(|Update { members, entry, g, g_perturbed, h }| {
                let InGroup { blend, lr_factor, .. } = context.in_group(&entry);
                (h, MixedBatch { members, g, g_perturbed, factor: lr_factor * blend.sharpness })
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
