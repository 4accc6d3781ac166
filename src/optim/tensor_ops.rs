//! Steps in Burn tensor operations, for every backend. Does not use the engine.

mod base;
mod batch;
mod directions;
mod finite;
mod lean;
mod mixed;
mod momentum;
mod norms;
mod one_pass;
mod states;
mod stored;
mod updates;

pub(crate) use lean::LeanAscentState;
pub(crate) use mixed::MixState;

use super::error::WsamError;
use super::param_entries::ParamEntry;
use super::params::Flat;
use super::pending::{PendingOutcomes, ResolvedOutcome};
use super::report::Norms;
use super::state::{LoadedState, OptimizerState};
use super::state_store::{MethodStates, StateStore};
use super::step_backend::{OnePassUpdate, PhaseOutput, StepBackend, StepContext, TensorOutput};
use crate::method::{Hyperparameters, InGroup, Outcome};
use batch::{Batch, in_order};
use burn::module::ParamId;
use burn::tensor::{DType, Device, Tensor};
use directions::gradient_lengths;
use finite::{DeviceBool, FiniteFlags, keep_where};
use norms::{ScopeNorms, TensorNorms, perturb};
use states::States;
use updates::Update;

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
    /// `||g||` of each norm scope, if the method needs it.
    lengths: ScopeNorms,
}

impl TensorOps {
    #[cfg(feature = "train")]
    pub(crate) fn has_state(&self, id: ParamId) -> bool {
        self.states.step_of(id) > 0
    }

    /// A parameter's state, read back.
    pub(crate) fn state(
        &self,
        hyper: &Hyperparameters,
        id: ParamId,
    ) -> Result<Option<OptimizerState>, WsamError> {
        let skipped = self.overcount(Some(id))?;
        let step = self.states.step_of(id).saturating_sub(skipped);
        if step == 0 {
            return Ok(None);
        }
        Ok(Some(OptimizerState { step, tensors: self.states.read(hyper, id, skipped > 0)? }))
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
    type MomentumState = ();

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
        let along = self.states.directions(context, &batches);
        let (perturbed, norms, divisors) = perturb(context, &batches, &along, false);
        let lengths = gradient_lengths(context, &batches, divisors);
        let members = batches.iter().map(|batch| &batch.members);
        let tensors = in_order(context.device, members.zip(perturbed));
        Ok(output(build(tensors), AscentState { batches, norms, lengths }))
    }

    fn descend<T>(
        &mut self,
        context: StepContext<'_>,
        rates: &[f64],
        ascent_state: AscentState,
        grads_perturbed: Vec<Tensor<1>>,
        build: impl FnOnce(Vec<Tensor<1>>) -> T,
    ) -> Result<PhaseOutput<Self, T, Norms>, WsamError> {
        let AscentState { batches, mut norms, lengths } = ascent_state;
        let batches = self.states.by_rate(batches, rates);
        let ids = ids(&batches);
        let updates = self.updates(context, batches, &lengths, grads_perturbed, &mut norms);
        let skipped = norms.finite.skipped(norms.policy);
        self.track(ids, &norms);
        let mut stepped = Vec::with_capacity(updates.len());
        for Update { members, entry, g, g_perturbed, h } in updates {
            let InGroup { base, blend, lr_factor, .. } = context.in_group(&entry);
            let has_master = context.has_master(&entry);
            let lr = members.rate(rates) * lr_factor;
            let old = entry.weight.clone();
            let mut w = self.states.stepped(&base, lr, &members, entry.weight, h, &skipped);
            if context.has_sharpness_step() && blend.sharpness != 0.0 {
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
        self.first_half(context, rates, entries, build)
    }

    fn lean_descend<T>(
        &mut self,
        context: StepContext<'_>,
        ascent_state: LeanAscentState,
        grads_perturbed: Vec<Tensor<1>>,
        build: impl FnOnce(Vec<Tensor<1>>) -> T,
    ) -> Result<PhaseOutput<Self, T, Norms>, WsamError> {
        self.second_half(context, ascent_state, grads_perturbed, build)
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

    fn one_pass_step<T>(
        &mut self,
        context: StepContext<'_>,
        update: OnePassUpdate,
        rates: &[f64],
        entries: Vec<ParamEntry<Tensor<1>>>,
        build: impl FnOnce(Vec<Tensor<1>>) -> T,
    ) -> Result<PhaseOutput<Self, T, Norms>, WsamError> {
        let batches = self.states.batches(context, entries, Some(rates));
        let batches = self.states.with_masters(context, batches);
        let (updates, norms) = self.one_pass_updates(context, update, batches);
        let (tensors, norms) = self.one_pass_steps(context, rates, updates, norms, false);
        Ok(output(build(tensors), norms))
    }

    fn has_momentum(&self, context: StepContext<'_>, id: ParamId) -> bool {
        self.states.has_momentum(&context.hyper.base, id)
    }

    fn perturb_along_momentum(
        &mut self,
        context: StepContext<'_>,
        entries: Vec<ParamEntry<Tensor<1>>>,
    ) -> Result<(Vec<Tensor<1>>, ()), WsamError> {
        Ok((self.momentum_point(context, entries), ()))
    }

    fn momentum_step<T>(
        &mut self,
        context: StepContext<'_>,
        rates: &[f64],
        _ascent: (),
        entries: Vec<ParamEntry<Tensor<1>>>,
        perturbed: Vec<Tensor<1>>,
        build: impl FnOnce(Vec<Tensor<1>>) -> T,
    ) -> Result<PhaseOutput<Self, T, Norms>, WsamError> {
        let (updates, norms) = self.momentum_updates(context, rates, entries, perturbed);
        let (tensors, norms) = self.one_pass_steps(context, rates, updates, norms, true);
        Ok(output(build(tensors), norms))
    }

    fn mix(
        &mut self,
        context: StepContext<'_>,
        ascent_state: AscentState,
        grads_perturbed: Vec<Tensor<1>>,
    ) -> Result<TensorOutput<Self, MixState>, WsamError> {
        let AscentState { batches, mut norms, lengths } = ascent_state;
        let updates = self.updates(context, batches, &lengths, grads_perturbed, &mut norms);
        // The Burn optimizer counts its parameters' steps itself.
        self.track(Vec::new(), &norms);
        let (tensors, mixed) = MixState::new(context, updates, norms);
        Ok(output(tensors, mixed))
    }

    fn clip(
        &mut self,
        context: StepContext<'_>,
        update: OnePassUpdate,
        entries: Vec<ParamEntry<Tensor<1>>>,
    ) -> Result<TensorOutput<Self, Norms>, WsamError> {
        let batches = self.states.batches(context, entries, None);
        let (updates, norms) = self.one_pass_updates(context, update, batches);
        self.track(Vec::new(), &norms);
        let clipped = updates.iter().map(|update| (&update.members, update.h.clone()));
        Ok(output(in_order(context.device, clipped), Box::new(norms) as Norms))
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
        let outcomes = self.pending.resolve(FiniteFlags::read)?;
        let is_skipped =
            |(resolved, _): &(ResolvedOutcome, _)| resolved.outcome == Outcome::Skipped;
        self.states.resolve_method_states(outcomes.iter().any(is_skipped));
        Ok(outcomes)
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

    fn method_states(&self, hyper: &Hyperparameters) -> Result<MethodStates, WsamError> {
        let latest = self.latest_outcome()?;
        let is_skipped = latest.is_some_and(|latest| latest.outcome == Outcome::Skipped);
        self.states.read_method_states(hyper, is_skipped)
    }

    fn awaits_outcome(&self) -> bool {
        self.states.has_new_method_states()
    }

    fn forget(&mut self, is_dropped: &dyn Fn(ParamId) -> bool) {
        self.states.forget(is_dropped);
    }

    fn state_len(&self, id: ParamId) -> Option<usize> {
        self.states.len(id)
    }
}

fn ids(batches: &[Batch]) -> Vec<ParamId> {
    batches.iter().flat_map(|batch| batch.members.ids()).collect()
}

fn output<T, K>(built: T, rest: K) -> PhaseOutput<TensorOps, T, K> {
    PhaseOutput { built, rest, released: Vec::new() }
}
