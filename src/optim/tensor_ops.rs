//! Steps in Burn tensor operations, for every backend. Does not use the engine.

mod base;
mod finite;
mod norms;

use super::error::WsamError;
use super::half_precision::reconciled;
use super::param_entries::ParamEntry;
use super::params::{Flat, without};
use super::pending::{LeanStep, PendingOutcomes, ResolvedOutcome};
use super::report::Norms;
use super::state::{LoadedState, OptimizerState, read, state_names};
use super::state_store::StateStore;
use super::step_backend::{PhaseOutput, StepBackend, StepContext, TensorOutput};
use crate::method::{Base, Blend, InGroup, NonFinite};
use base::base_step;
use burn::module::ParamId;
use burn::tensor::{DType, Device, Tensor, TensorData};
use finite::{DeviceBool, FiniteFlags, keep_state_where, keep_where};
use norms::{
    TensorNorms, check_gradient, clip_factor, perturb, scale_of_g, scaled, unscale_and_check,
    unscaled,
};
use std::collections::HashMap;

/// State of all parameters.
#[derive(Debug, Default)]
pub(crate) struct TensorOps {
    states: HashMap<ParamId, State>,
    /// Master weights of parameters in half precision.
    masters: HashMap<ParamId, Tensor<1>>,
    pending: PendingOutcomes<FiniteFlags>,
}

#[derive(Clone, Debug)]
struct State {
    step: u64,
    /// In the order of [`Base::state_names`].
    tensors: Vec<Tensor<1>>,
}

/// State between an ascent and its descent.
#[derive(Debug)]
pub(crate) struct AscentState {
    entries: Vec<ParamEntry<Tensor<1>>>,
    norms: TensorNorms,
}

/// State between a mix and its sharpness step: each pair of clipped gradients, with `lr_factor * sharpness`.
#[derive(Debug)]
pub(crate) struct MixState {
    grads: Vec<(Tensor<1>, Tensor<1>, f64)>,
    norms: TensorNorms,
}

/// State between a lean ascent and its descent: weights after the base optimizer's step and the `g` term of the
/// sharpness step.
#[derive(Debug)]
pub(crate) struct LeanAscentState {
    stepped: Vec<Tensor<1>>,
    /// `lr * sharpness` of each parameter.
    factors: Vec<f64>,
    /// Weights that the second pass runs on.
    ran_on: Vec<Tensor<1>>,
    norms: TensorNorms,
    step: LeanStep,
}

impl TensorOps {
    #[cfg(feature = "train")]
    pub(crate) fn has_state(&self, id: ParamId) -> bool {
        self.states.get(&id).is_some_and(|state| state.step > 0)
    }

    /// A parameter's state, read back.
    pub(crate) fn state(
        &self,
        base: &Base,
        id: ParamId,
    ) -> Result<Option<OptimizerState>, WsamError> {
        let Some(state) = self.states.get(&id) else { return Ok(None) };
        let step = state.step.saturating_sub(self.overcount(Some(id))?);
        if step == 0 {
            return Ok(None);
        }
        let tensors = state.tensors.iter().chain(self.masters.get(&id));
        let data = tensors.cloned().map(read).collect::<Result<Vec<_>, _>>()?;
        let tensors = state_names(base).zip(data).collect();
        Ok(Some(OptimizerState { step, tensors }))
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
        let entries = self.with_masters(context, unscaled(entries, context.inv_scale));
        let (tensors, norms) = perturb(context, &entries, false);
        Ok(PhaseOutput {
            built: build(tensors),
            rest: AscentState { entries, norms },
            released: Vec::new(),
        })
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
        let AscentState { entries, mut norms } = ascent_state;
        let grads_perturbed = unscale_and_check(context, grads_perturbed, &mut norms);
        let skipped = norms.finite.skipped(norms.policy);
        let falls_back = norms.finite.falls_back(norms.policy);
        self.track(entries.iter().map(|entry| entry.id).collect(), &norms);
        let scale_g = scale_of_g(hyper, &norms);
        let scale_perturbed = clip_factor(hyper.clip, &norms.perturbed);
        let tensors = entries
            .into_iter()
            .zip(rates)
            .zip(grads_perturbed)
            .map(|((entry, lr), g_perturbed)| {
                let InGroup { base, blend, lr_factor, .. } = context.in_group(&entry);
                let has_master = context.has_master(&entry);
                let lr = lr * lr_factor;
                let g = scaled(entry.grad, &scale_g);
                let g_perturbed = scaled(g_perturbed, &scale_perturbed);
                let g_perturbed = keep_where(&falls_back, g_perturbed, g.clone());
                let h = mix(&blend, &g, &g_perturbed);
                let (old, id) = (entry.weight.clone(), entry.id);
                let mut w = self.stepped(&base, lr, id, entry.weight, h, &skipped);
                if blend.sharpness != 0.0 {
                    w = w - (g_perturbed - g) * (lr * blend.sharpness);
                }
                self.store_master(id, has_master, keep_where(&skipped, w, old))
            })
            .collect();
        let rest = Box::new(norms);
        Ok(PhaseOutput { built: build(tensors), rest, released: Vec::new() })
    }

    fn lean_ascend<T>(
        &mut self,
        context: StepContext<'_>,
        rates: &[f64],
        entries: Vec<ParamEntry<Tensor<1>>>,
        build: impl FnOnce(Vec<Tensor<1>>) -> T,
    ) -> Result<PhaseOutput<Self, T, LeanAscentState>, WsamError> {
        let hyper = context.hyper;
        let entries = unscaled(entries, context.inv_scale);
        let (tensors, norms) = perturb(context, &entries, true);
        let skipped = norms.finite.skipped(norms.policy);
        let step = LeanStep::default();
        if norms.policy.checks_gradients() {
            let ids = entries.iter().map(|entry| entry.id).collect();
            self.pending.push_lean(norms.submitted(ids), &step);
        }
        let scale_g = scale_of_g(hyper, &norms);
        let (stepped, factors) = entries
            .into_iter()
            .zip(rates)
            .map(|(entry, lr)| {
                let InGroup { base, blend, lr_factor, .. } = context.in_group(&entry);
                let lr = lr * lr_factor;
                let factor = lr * blend.sharpness;
                let g = scaled(entry.grad, &scale_g);
                let old = entry.weight.clone();
                let stepped = self.stepped(&base, lr, entry.id, entry.weight, g.clone(), &skipped);
                (keep_where(&skipped, stepped + g * factor, old), factor)
            })
            .unzip();
        let ran_on = if norms.policy.checks_gradients() { tensors.clone() } else { Vec::new() };
        let rest = LeanAscentState { stepped, factors, ran_on, norms, step };
        Ok(PhaseOutput { built: build(tensors), rest, released: Vec::new() })
    }

    fn lean_descend<T>(
        &mut self,
        context: StepContext<'_>,
        ascent_state: LeanAscentState,
        grads_perturbed: Vec<Tensor<1>>,
        build: impl FnOnce(Vec<Tensor<1>>) -> T,
    ) -> Result<PhaseOutput<Self, T, Norms>, WsamError> {
        let LeanAscentState { stepped, factors, ran_on, mut norms, step } = ascent_state;
        let grads_perturbed = unscale_and_check(context, grads_perturbed, &mut norms);
        // Return to `ran_on` under any policy. It is `w` if `g` is not finite, and `w + e_w` if only `g~` is not.
        let returns = norms.finite.skipped(NonFinite::Skip);
        self.pending.complete(&step, norms.finite.clone());
        let scale_perturbed = clip_factor(context.hyper.clip, &norms.perturbed);
        let mut ran_on = ran_on.into_iter();
        let tensors = stepped
            .into_iter()
            .zip(factors)
            .zip(grads_perturbed)
            .map(|((stepped, factor), g_perturbed)| {
                let w = stepped - scaled(g_perturbed, &scale_perturbed) * factor;
                match ran_on.next() {
                    Some(ran_on) => keep_where(&returns, w, ran_on),
                    None => w,
                }
            })
            .collect();
        let rest = Box::new(norms);
        Ok(PhaseOutput { built: build(tensors), rest, released: Vec::new() })
    }

    fn exclude(ascent_state: &mut AscentState, places: &[usize]) {
        ascent_state.entries = without(std::mem::take(&mut ascent_state.entries), places);
    }

    fn first_gradient(ascent_state: &AscentState, place: usize) -> Option<Tensor<1>> {
        ascent_state
            .entries
            .get(place)
            .map(|entry| ascent_state.norms.scaled_again(entry.grad.clone()))
    }

    fn base_step<T>(
        &mut self,
        context: StepContext<'_>,
        rates: &[f64],
        entries: Vec<ParamEntry<Tensor<1>>>,
        build: impl FnOnce(Vec<Tensor<1>>) -> T,
    ) -> Result<PhaseOutput<Self, T, ()>, WsamError> {
        let entries = self.with_masters(context, unscaled(entries, context.inv_scale));
        let norms = check_gradient(context, &entries);
        let skipped = norms.finite.skipped(norms.policy);
        self.track(entries.iter().map(|entry| entry.id).collect(), &norms);
        let scale_g = scale_of_g(context.hyper, &norms);
        let tensors = entries
            .into_iter()
            .zip(rates)
            .map(|(entry, lr)| {
                let InGroup { base, lr_factor, .. } = context.in_group(&entry);
                let has_master = context.has_master(&entry);
                let g = scaled(entry.grad, &scale_g);
                let (old, id) = (entry.weight.clone(), entry.id);
                let w = self.stepped(&base, lr * lr_factor, id, entry.weight, g, &skipped);
                self.store_master(id, has_master, keep_where(&skipped, w, old))
            })
            .collect();
        Ok(PhaseOutput { built: build(tensors), rest: (), released: Vec::new() })
    }

    fn mix(
        &mut self,
        context: StepContext<'_>,
        ascent_state: AscentState,
        grads_perturbed: Vec<Tensor<1>>,
    ) -> Result<TensorOutput<Self, MixState>, WsamError> {
        let AscentState { entries, mut norms } = ascent_state;
        let grads_perturbed = unscale_and_check(context, grads_perturbed, &mut norms);
        let falls_back = norms.finite.falls_back(norms.policy);
        // The Burn optimizer counts its parameters' steps itself.
        self.track(Vec::new(), &norms);
        let scale_g = scale_of_g(context.hyper, &norms);
        let scale_perturbed = clip_factor(context.hyper.clip, &norms.perturbed);
        let (tensors, grads) = entries
            .into_iter()
            .zip(grads_perturbed)
            .map(|(entry, g_perturbed)| {
                let InGroup { blend, lr_factor, .. } = context.in_group(&entry);
                let g = scaled(entry.grad, &scale_g);
                let g_perturbed = scaled(g_perturbed, &scale_perturbed);
                let g_perturbed = keep_where(&falls_back, g_perturbed, g.clone());
                (mix(&blend, &g, &g_perturbed), (g, g_perturbed, lr_factor * blend.sharpness))
            })
            .unzip();
        Ok(PhaseOutput { built: tensors, rest: MixState { grads, norms }, released: Vec::new() })
    }

    fn clip(
        &mut self,
        context: StepContext<'_>,
        entries: Vec<ParamEntry<Tensor<1>>>,
    ) -> Result<Vec<Tensor<1>>, WsamError> {
        let entries = unscaled(entries, context.inv_scale);
        let norms = check_gradient(context, &entries);
        self.track(Vec::new(), &norms);
        let scale = scale_of_g(context.hyper, &norms);
        Ok(entries.into_iter().map(|entry| scaled(entry.grad, &scale)).collect())
    }

    fn sharpen(
        &mut self,
        _context: StepContext<'_>,
        rates: &[f64],
        mixed: MixState,
        weights: Option<Vec<Tensor<1>>>,
    ) -> Result<TensorOutput<Self, Norms>, WsamError> {
        let tensors =
            weights.into_iter().flatten().zip(rates).zip(mixed.grads).map(
                |((w, lr), (g, g_perturbed, sharpness))| w - (g_perturbed - g) * (lr * sharpness),
            );
        let rest = Box::new(mixed.norms);
        Ok(PhaseOutput { built: tensors.collect(), rest, released: Vec::new() })
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
        self.states.get_mut(&id).map(|state| &mut state.step)
    }

    fn replace_states(
        &mut self,
        device: &Device,
        ids: &[ParamId],
        loaded: Vec<LoadedState>,
    ) -> Result<(), WsamError> {
        for id in ids {
            self.states.remove(id);
            self.masters.remove(id);
        }
        for LoadedState { id, step, tensors, master, .. } in loaded {
            let put = |data: TensorData| {
                let dtype = data.dtype();
                Tensor::from_data(data, (device, dtype))
            };
            self.masters.extend(master.map(|master| (id, put(master))));
            let tensors = tensors.into_iter().map(put).collect();
            self.states.insert(id, State { step, tensors });
        }
        Ok(())
    }

    fn forget(&mut self, is_dropped: &dyn Fn(ParamId) -> bool) {
        self.states.retain(|id, _| !is_dropped(*id));
        self.masters.retain(|id, _| !is_dropped(*id));
    }

    fn state_len(&self, id: ParamId) -> Option<usize> {
        let state = self.states.get(&id)?;
        state.tensors.first().map(|tensor| tensor.dims()[0])
    }
}

impl TensorOps {
    /// Replaces weights by master weights, for parameters that have them.
    fn with_masters(
        &self,
        context: StepContext<'_>,
        mut entries: Vec<ParamEntry<Tensor<1>>>,
    ) -> Vec<ParamEntry<Tensor<1>>> {
        for entry in &mut entries {
            if context.has_master(entry) {
                let master = self.masters.get(&entry.id).cloned();
                entry.weight = reconciled(entry.weight.clone(), entry.dtype, master);
            }
        }
        entries
    }

    /// Stores the stepped weights as master weights, if the parameter has them, and returns the weights.
    fn store_master(&mut self, id: ParamId, has_master: bool, w: Tensor<1>) -> Tensor<1> {
        if has_master {
            self.masters.insert(id, w.clone());
        }
        w
    }

    /// Takes the base optimizer's step of one parameter. Its state advances unless the step is skipped.
    fn stepped(
        &mut self,
        base: &Base,
        lr: f64,
        id: ParamId,
        w: Tensor<1>,
        h: Tensor<1>,
        skipped: &Option<DeviceBool>,
    ) -> Tensor<1> {
        // A state at step 0 was written by a skipped first step, so it is discarded.
        let old = self.states.remove(&id).filter(|state| state.step > 0);
        let before = old.as_ref().map(|old| old.tensors.clone());
        let (w, state) = base_step(base, lr, w, h, old);
        self.states.insert(id, keep_state_where(skipped, state, before));
        w
    }
}

/// Computes `a g + b g~` as [`Blend::by_difference`], without terms whose weight is zero.
fn mix(blend: &Blend, g: &Tensor<1>, g_perturbed: &Tensor<1>) -> Tensor<1> {
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
