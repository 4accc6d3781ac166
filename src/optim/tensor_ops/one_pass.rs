//! Steps over one gradient: the base optimizer's alone, and LookSAM's between its SAM steps.

use super::TensorOps;
use super::batch::{Batch, in_order};
use super::finite::keep_where;
use super::momentum::without_penalty;
use super::norms::{TensorNorms, check_gradient, norms_by_scope, scale_of_g, scaled};
use super::updates::Update;
use crate::method::{InGroup, Method};
use crate::optim::report::Norms;
use crate::optim::step_backend::{OnePassUpdate, StepContext};
use burn::tensor::Tensor;

impl TensorOps {
    /// Computes what the base optimizer steps on: `g`, or LookSAM's `g + alpha ||g|| h`, clipped by the norm of `g`.
    pub(super) fn one_pass_updates(
        &self,
        context: StepContext<'_>,
        update: OnePassUpdate,
        batches: Vec<Batch>,
    ) -> (Vec<Update>, TensorNorms) {
        let correction = match (update, context.hyper.method) {
            (OnePassUpdate::Corrected, Method::LookSam { alpha, .. }) => {
                let grad_of = |place: usize| batches[place].entry.grad.clone();
                Some((alpha, norms_by_scope(context, &batches, grad_of)))
            }
            _ => None,
        };
        let lengths = correction.as_ref().map(|(_, lengths)| lengths.clone()).unwrap_or_default();
        let clips = context.hyper.clips_gradient();
        let norms = check_gradient(context, &batches, clips, &lengths);
        let scale_g = scale_of_g(context.hyper, &norms);
        let update = |Batch { members, entry, .. }: Batch| {
            let group = context.in_group(&entry);
            let corrected = correction.as_ref().filter(|_| group.perturbed).and_then(|found| {
                let (alpha, lengths) = found;
                let length = lengths[group.scope].clone()?;
                let h = self.states.method_state(&members)?;
                Some(entry.grad.clone() + h * (length * *alpha))
            });
            let h = scaled(corrected.unwrap_or_else(|| entry.grad.clone()), &scale_g);
            Update { g: h.clone(), g_perturbed: h.clone(), h, members, entry }
        };
        (batches.into_iter().map(update).collect(), norms)
    }

    /// Takes the base optimizer's steps, and returns the weights in the order of the step's parameters.
    /// `is_penalised` if the updates include the L2 penalty.
    pub(super) fn one_pass_steps(
        &mut self,
        context: StepContext<'_>,
        rates: &[f64],
        updates: Vec<Update>,
        norms: TensorNorms,
        is_penalised: bool,
    ) -> (Vec<Tensor<1>>, Norms) {
        let skipped = norms.finite.skipped(norms.policy);
        self.track(updates.iter().flat_map(|update| update.members.ids()).collect(), &norms);
        let mut stepped = Vec::with_capacity(updates.len());
        for Update { members, entry, h, .. } in updates {
            let InGroup { base, lr_factor, .. } = context.in_group(&entry);
            let base = if is_penalised { without_penalty(base) } else { base };
            let has_master = context.has_master(&entry);
            let lr = members.rate(rates) * lr_factor;
            let old = entry.weight.clone();
            let w = self.states.stepped(&base, lr, &members, entry.weight, h, &skipped);
            let w = keep_where(&skipped, w, || old);
            stepped.push((self.states.store_master(members, has_master, &w), w));
        }
        let weights = stepped.iter().map(|(members, w)| (members, w.clone()));
        (in_order(context.device, weights), Box::new(norms))
    }
}
