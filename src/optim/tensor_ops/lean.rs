//! The two halves of a lean step.

use super::batch::{Batch, Members, in_order};
use super::finite::keep_where;
use super::norms::{
    TensorNorms, clip_factor, gradients_of, perturb, scale_of_g, scaled, unscale_and_check,
};
use super::{TensorOps, ids, output};
use crate::method::{InGroup, NonFinite};
use crate::optim::error::WsamError;
use crate::optim::param_entries::ParamEntry;
use crate::optim::pending::LeanStep;
use crate::optim::report::Norms;
use crate::optim::step_backend::{PhaseOutput, StepContext};
use burn::tensor::Tensor;

/// State between a lean ascent and its descent.
#[derive(Debug)]
pub(crate) struct LeanAscentState {
    batches: Vec<LeanBatch>,
    norms: TensorNorms,
    step: LeanStep,
}

/// A batch between the halves of a lean step.
#[derive(Debug)]
struct LeanBatch {
    members: Members,
    by_rows: bool,
    /// Weights after the base optimizer's step and the `g` term of the sharpness step.
    stepped: Tensor<1>,
    /// `lr * sharpness`.
    factor: f64,
    /// Weights that the second pass runs on, if gradients are checked.
    ran_on: Option<Tensor<1>>,
}

impl TensorOps {
    pub(super) fn first_half<T>(
        &mut self,
        context: StepContext<'_>,
        rates: &[f64],
        entries: Vec<ParamEntry<Tensor<1>>>,
        build: impl FnOnce(Vec<Tensor<1>>) -> T,
    ) -> Result<PhaseOutput<Self, T, LeanAscentState>, WsamError> {
        let batches = self.states.batches(context, entries, Some(rates));
        let along = gradients_of(&batches);
        let (perturbed, norms, _) = perturb(context, &batches, &along, true);
        let skipped = norms.finite.skipped(norms.policy);
        let step = LeanStep::default();
        let is_checked = norms.policy.checks_gradients();
        if is_checked {
            self.pending.push_lean(norms.submitted(ids(&batches)), &step);
        }
        let scale_g = scale_of_g(context.hyper, &norms);
        let mut tensors = Vec::with_capacity(batches.len());
        let mut lean = Vec::with_capacity(batches.len());
        for (Batch { members, entry, by_rows }, perturbed) in batches.into_iter().zip(perturbed) {
            let InGroup { base, blend, lr_factor, .. } = context.in_group(&entry);
            let lr = members.rate(rates) * lr_factor;
            let factor = lr * blend.sharpness;
            let g = scaled(entry.grad, &scale_g);
            let old = entry.weight.clone();
            let w = self.states.stepped(&base, lr, &members, entry.weight, g.clone(), &skipped);
            let stepped = keep_where(&skipped, w + g * factor, || old);
            let ran_on = is_checked.then(|| perturbed.clone());
            tensors.push(perturbed);
            lean.push(LeanBatch { members, by_rows, stepped, factor, ran_on });
        }
        let members = lean.iter().map(|batch| &batch.members);
        let tensors = in_order(context.device, members.zip(tensors));
        Ok(output(build(tensors), LeanAscentState { batches: lean, norms, step }))
    }

    pub(super) fn second_half<T>(
        &mut self,
        context: StepContext<'_>,
        ascent_state: LeanAscentState,
        grads_perturbed: Vec<Tensor<1>>,
        build: impl FnOnce(Vec<Tensor<1>>) -> T,
    ) -> Result<PhaseOutput<Self, T, Norms>, WsamError> {
        let LeanAscentState { batches, mut norms, step } = ascent_state;
        let mut grads: Vec<_> = grads_perturbed.into_iter().map(Some).collect();
        let grads = batches.iter().map(|batch| (batch.by_rows, batch.members.join_of(&mut grads)));
        let grads_perturbed = unscale_and_check(context, grads.collect(), &mut norms);
        // Return to `ran_on` under any policy. It is `w` if `g` is not finite, and `w + e_w` if only `g~` is not.
        let returns = norms.finite.skipped(NonFinite::Skip);
        self.pending.complete(&step, norms.finite.clone());
        let scale_perturbed = clip_factor(context.hyper.clip, &norms.perturbed);
        let mut stepped = Vec::with_capacity(batches.len());
        for (batch, g_perturbed) in batches.into_iter().zip(grads_perturbed) {
            let w = batch.stepped - scaled(g_perturbed, &scale_perturbed) * batch.factor;
            let w = match batch.ran_on {
                Some(ran_on) => keep_where(&returns, w, || ran_on),
                None => w,
            };
            stepped.push((batch.members, w));
        }
        let tensors =
            in_order(context.device, stepped.iter().map(|(members, w)| (members, w.clone())));
        Ok(output(build(tensors), Box::new(norms) as Norms))
    }
}
