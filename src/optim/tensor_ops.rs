//! Steps in Burn tensor operations, for every backend. Does not use the engine.

mod base;
mod batch;
mod finite;
mod mixed;
mod norms;
mod states;
mod stored;

pub(crate) use mixed::MixState;

use super::error::WsamError;
use super::param_entries::ParamEntry;
use super::params::Flat;
use super::pending::{LeanStep, PendingOutcomes, ResolvedOutcome};
use super::report::Norms;
use super::state::{LoadedState, OptimizerState};
use super::state_store::StateStore;
use super::step_backend::{PhaseOutput, StepBackend, StepContext, TensorOutput};
use crate::method::{Base, InGroup, NonFinite};
use base::mix;
use batch::{Batch, Members, in_order};
use burn::module::ParamId;
use burn::tensor::{DType, Device, Tensor};
use finite::{DeviceBool, FiniteFlags, keep_where};
use norms::{
    TensorNorms, check_gradient, clip_factor, perturb, scale_of_g, scaled, unscale_and_check,
};
use states::States;

/// The route's state between steps.
#[derive(Debug, Default)]
pub(crate) struct TensorOps {
    states: States,
    pending: PendingOutcomes<FiniteFlags>,
}

/// State between an ascent and its descent.
#[derive(Debug)]
pub(crate) struct AscentState {
    batches: Vec<Batch>,
    norms: TensorNorms,
}

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
    #[cfg(feature = "train")]
    pub(crate) fn has_state(&self, id: ParamId) -> bool {
        self.states.step_of(id) > 0
    }

    /// A parameter's state, read back.
    pub(crate) fn state(
        &self,
        base: &Base,
        id: ParamId,
    ) -> Result<Option<OptimizerState>, WsamError> {
        let step = self.states.step_of(id).saturating_sub(self.overcount(Some(id))?);
        if step == 0 {
            return Ok(None);
        }
        Ok(Some(OptimizerState { step, tensors: self.states.read(base, id)? }))
    }

    /// Queues the outcome of a step, if gradients are checked.
    fn track(&mut self, ids: Vec<ParamId>, norms: &TensorNorms) {
        if norms.policy.checks_gradients() {
            self.pending.push(norms.submitted(ids));
        }
    }
}

impl StepBackend for TensorOps {
    type Layout = Flat;
    type AscentState = AscentState;
    type LeanAscentState = LeanAscentState;
    type MixState = MixState;

    const TYPES: (&'static [DType], &'static str, &'static str) =
        (&[DType::F32, DType::F64, DType::F16, DType::BF16], "f16, bf16, f32 and f64", "tensor-op");

    fn ascend<T>(
        &mut self,
        context: StepContext<'_>,
        entries: Vec<ParamEntry<Tensor<1>>>,
        build: impl FnOnce(Vec<Tensor<1>>) -> T,
    ) -> Result<PhaseOutput<Self, T, AscentState>, WsamError> {
        let batches = self.states.batches(context, entries, None);
        let batches = self.states.with_masters(context, batches);
        let (perturbed, norms) = perturb(context, &batches, false);
        let members = batches.iter().map(|batch| &batch.members);
        let tensors = in_order(context.device, members.zip(perturbed));
        Ok(output(build(tensors), AscentState { batches, norms }))
    }

    fn descend<T>(
        &mut self,
        context: StepContext<'_>,
        rates: &[f64],
        ascent_state: AscentState,
        grads_perturbed: Vec<Tensor<1>>,
        build: impl FnOnce(Vec<Tensor<1>>) -> T,
    ) -> Result<PhaseOutput<Self, T, Norms>, WsamError> {
        let hyper = context.hyper;
        let AscentState { batches, mut norms } = ascent_state;
        let batches = self.states.by_rate(batches, rates);
        let grads_perturbed = joined(&batches, grads_perturbed);
        let grads_perturbed = unscale_and_check(context, grads_perturbed, &mut norms);
        let skipped = norms.finite.skipped(norms.policy);
        let falls_back = norms.finite.falls_back(norms.policy);
        self.track(ids(&batches), &norms);
        let scale_g = scale_of_g(hyper, &norms);
        let scale_perturbed = clip_factor(hyper.clip, &norms.perturbed);
        let mut stepped = Vec::with_capacity(batches.len());
        for (batch, g_perturbed) in batches.into_iter().zip(grads_perturbed) {
            let Batch { members, entry, .. } = batch;
            let InGroup { base, blend, lr_factor, .. } = context.in_group(&entry);
            let has_master = context.has_master(&entry);
            let lr = members.rate(rates) * lr_factor;
            let g = scaled(entry.grad, &scale_g);
            let g_perturbed = scaled(g_perturbed, &scale_perturbed);
            let g_perturbed = keep_where(&falls_back, g_perturbed, || g.clone());
            let h = mix(&blend, &g, &g_perturbed);
            let old = entry.weight.clone();
            let mut w = self.states.stepped(&base, lr, &members, entry.weight, h, &skipped);
            if blend.sharpness != 0.0 {
                w = w - (g_perturbed - g) * (lr * blend.sharpness);
            }
            let w = keep_where(&skipped, w, || old);
            stepped.push((self.states.store_master(members, has_master, &w), w));
        }
        let tensors =
            in_order(context.device, stepped.iter().map(|(members, w)| (members, w.clone())));
        Ok(output(build(tensors), Box::new(norms) as Norms))
    }

    fn lean_ascend<T>(
        &mut self,
        context: StepContext<'_>,
        rates: &[f64],
        entries: Vec<ParamEntry<Tensor<1>>>,
        build: impl FnOnce(Vec<Tensor<1>>) -> T,
    ) -> Result<PhaseOutput<Self, T, LeanAscentState>, WsamError> {
        let batches = self.states.batches(context, entries, Some(rates));
        let (perturbed, norms) = perturb(context, &batches, true);
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

    fn lean_descend<T>(
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

    fn exclude(ascent_state: &mut AscentState, places: &[usize]) {
        let batches = std::mem::take(&mut ascent_state.batches);
        let kept = batches.into_iter().filter_map(|batch| batch.without(places));
        ascent_state.batches = kept.collect();
    }

    fn first_gradient(ascent_state: &AscentState, place: usize) -> Option<Tensor<1>> {
        let grad = ascent_state.batches.iter().find_map(|batch| batch.gradient_of(place))?;
        Some(ascent_state.norms.scaled_again(grad))
    }

    fn base_step<T>(
        &mut self,
        context: StepContext<'_>,
        rates: &[f64],
        entries: Vec<ParamEntry<Tensor<1>>>,
        build: impl FnOnce(Vec<Tensor<1>>) -> T,
    ) -> Result<PhaseOutput<Self, T, ()>, WsamError> {
        let batches = self.states.batches(context, entries, Some(rates));
        let batches = self.states.with_masters(context, batches);
        let norms = check_gradient(context, &batches);
        let skipped = norms.finite.skipped(norms.policy);
        self.track(ids(&batches), &norms);
        let scale_g = scale_of_g(context.hyper, &norms);
        let mut stepped = Vec::with_capacity(batches.len());
        for Batch { members, entry, .. } in batches {
            let InGroup { base, lr_factor, .. } = context.in_group(&entry);
            let has_master = context.has_master(&entry);
            let lr = members.rate(rates) * lr_factor;
            let g = scaled(entry.grad, &scale_g);
            let old = entry.weight.clone();
            let w = self.states.stepped(&base, lr, &members, entry.weight, g, &skipped);
            let w = keep_where(&skipped, w, || old);
            stepped.push((self.states.store_master(members, has_master, &w), w));
        }
        let tensors =
            in_order(context.device, stepped.iter().map(|(members, w)| (members, w.clone())));
        Ok(output(build(tensors), ()))
    }

    fn mix(
        &mut self,
        context: StepContext<'_>,
        ascent_state: AscentState,
        grads_perturbed: Vec<Tensor<1>>,
    ) -> Result<TensorOutput<Self, MixState>, WsamError> {
        let AscentState { batches, mut norms } = ascent_state;
        let grads_perturbed = joined(&batches, grads_perturbed);
        let grads_perturbed = unscale_and_check(context, grads_perturbed, &mut norms);
        // The Burn optimizer counts its parameters' steps itself.
        self.track(Vec::new(), &norms);
        let (tensors, mixed) = MixState::mix(context, batches, grads_perturbed, norms);
        Ok(output(tensors, mixed))
    }

    fn clip(
        &mut self,
        context: StepContext<'_>,
        entries: Vec<ParamEntry<Tensor<1>>>,
    ) -> Result<Vec<Tensor<1>>, WsamError> {
        let batches = self.states.batches(context, entries, None);
        let norms = check_gradient(context, &batches);
        self.track(Vec::new(), &norms);
        let scale = scale_of_g(context.hyper, &norms);
        let clipped =
            batches.iter().map(|batch| (&batch.members, scaled(batch.entry.grad.clone(), &scale)));
        Ok(in_order(context.device, clipped))
    }

    fn sharpen(
        &mut self,
        context: StepContext<'_>,
        rates: &[f64],
        mixed: MixState,
        weights: Option<Vec<Tensor<1>>>,
    ) -> Result<TensorOutput<Self, Norms>, WsamError> {
        let tensors =
            weights.map(|weights| mixed.sharpen(context, rates, weights)).unwrap_or_default();
        Ok(output(tensors, Box::new(mixed.norms) as Norms))
    }

    fn release(&self, _tensors: Vec<Tensor<1>>) {}
}

impl StateStore for TensorOps {
    fn latest_outcome(&self) -> Result<Option<ResolvedOutcome>, WsamError> {
        self.pending.latest(FiniteFlags::read)
    }

    fn skipped_flag(&self) -> Result<Option<DeviceBool>, WsamError> {
        let latest = self.pending.latest_readback();
        Ok(latest.and_then(|(flags, policy, lean)| match lean {
            // Only `g` decides whether a lean step is skipped.
            true => FiniteFlags { perturbed: None, ..flags.clone() }.skipped(policy),
            false => flags.skipped(policy),
        }))
    }

    fn overcount(&self, id: Option<ParamId>) -> Result<u64, WsamError> {
        self.pending.overcount(id, FiniteFlags::read)
    }

    fn decided_outcomes(&self) -> Result<Vec<ResolvedOutcome>, WsamError> {
        self.pending.decided(FiniteFlags::read)
    }

    fn take_outcomes(&mut self) -> Result<Vec<(ResolvedOutcome, Vec<ParamId>)>, WsamError> {
        self.pending.resolve(FiniteFlags::read)
    }

    fn step_mut(&mut self, id: ParamId) -> Option<&mut u64> {
        self.states.step_mut(id)
    }

    fn replace_states(
        &mut self,
        device: &Device,
        ids: &[ParamId],
        loaded: Vec<LoadedState>,
    ) -> Result<(), WsamError> {
        self.states.replace(device, ids, loaded);
        Ok(())
    }

    fn forget(&mut self, is_dropped: &dyn Fn(ParamId) -> bool) {
        self.states.forget(is_dropped);
    }

    fn state_len(&self, id: ParamId) -> Option<usize> {
        self.states.len(id)
    }
}

/// Concatenates one tensor of each parameter by batches, and says whether reductions run by rows.
fn joined(batches: &[Batch], tensors: Vec<Tensor<1>>) -> Vec<(bool, Tensor<1>)> {
    let mut tensors: Vec<_> = tensors.into_iter().map(Some).collect();
    batches.iter().map(|batch| (batch.by_rows, batch.members.join_of(&mut tensors))).collect()
}

fn ids(batches: &[Batch]) -> Vec<ParamId> {
    batches.iter().flat_map(|batch| batch.members.ids()).collect()
}

fn output<T, K>(built: T, rest: K) -> PhaseOutput<TensorOps, T, K> {
    PhaseOutput { built, rest, released: Vec::new() }
}
