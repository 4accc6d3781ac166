//! The phases of ordinary and lean steps. Each records its kernels into one submission.

use super::backend::{Fused, NewWeight, identities, ids, scaled_by};
use super::outcomes::OutcomeScope;
use super::params::{LeanParam, ParamStep, partners};
use super::phase_states::{AscentState, LeanAscentState, MixState};
use super::resolve::ResolvedParams;
use crate::engine::{AscentOptions, BlendSource, GradientOptions, InvScale, StepStats};
use crate::optim::bridge::{
    AllocSpec, Bridge, DeviceTensor, Memory, MemoryRequest, OnDevice, OutputSpec,
};
use crate::optim::error::WsamError;
use crate::optim::param_entries::ParamEntry;
use crate::optim::params::without;
use crate::optim::pending::LeanStep;
use crate::optim::report::Norms;
use crate::optim::route::TensorOpsReason;
use crate::optim::step_backend::{
    OnePassUpdate, PhaseOutput, StepBackend, StepContext, TensorOutput,
};
use burn::backend::TensorMetadata;
use burn::module::ParamId;
use burn::tensor::DType;

impl StepBackend for Fused {
    type Layout = OnDevice;
    type AscentState = AscentState;
    type LeanAscentState = LeanAscentState;
    type MixState = MixState;

    const TYPES: (&'static [DType], &'static str, &'static str) =
        (&[DType::F32, DType::F16, DType::BF16], "f32, f16 and bf16", "fused");

    fn ascend<T>(
        &mut self,
        context: StepContext<'_>,
        entries: Vec<ParamEntry<DeviceTensor>>,
        build: impl FnOnce(Vec<DeviceTensor>) -> T,
    ) -> Result<PhaseOutput<Self, T, AscentState>, WsamError> {
        let request = MemoryRequest {
            outputs: perturbed_outputs(context, &entries),
            ..MemoryRequest::default()
        };
        let resolving = self.resolve(context, entries, request)?;
        let built = build(resolving.perturbed());
        let ResolvedParams { bridge, params, memory, weights, outputs } = resolving.finish()?;
        let partners = partners(&params, memory.outputs);
        let tensors: Vec<_> = params
            .iter()
            .zip(&partners)
            .map(|(param, partner)| param.ascent(partner.as_ref()))
            .collect();
        let options = AscentOptions {
            track_norms: context.tracks_gradient(),
            inv_scale: InvScale::Host(context.inv_scale),
            rounding: Self::rounding(context),
        };
        let mut encoder = self.encoder();
        let ascent = self.engine.ascent(&mut encoder, context.hyper, options, &tensors)?;
        self.submit(encoder);
        let rest = AscentState { bridge, ascent, params, weights, perturbed: outputs };
        Ok(PhaseOutput { built, rest, released: Vec::new() })
    }

    fn descend<T>(
        &mut self,
        context: StepContext<'_>,
        rates: &[f64],
        ascent_state: AscentState,
        grads_perturbed: Vec<DeviceTensor>,
        build: impl FnOnce(Vec<DeviceTensor>) -> T,
    ) -> Result<PhaseOutput<Self, T, Norms>, WsamError> {
        let StepContext { hyper, track_norms, .. } = context;
        let AscentState { bridge, ascent, params, weights, perturbed } = ascent_state;
        let ids = ids(&params);
        let lens = params.iter().map(|param| (param.id, param.len));
        let request = MemoryRequest {
            outputs: params.iter().map(|param| param.output()).collect(),
            states: self.new_states(&hyper.base, lens),
            ..MemoryRequest::default()
        };
        let (made, resolving) = bridge.resolve(grads_perturbed, request, perturbed);
        let made_are = identities(&made);
        let built = build(made);
        let resolved = resolving.finish()?;
        let steps = self.param_steps(&params, resolved.new.outputs, resolved.new.states);
        let tensors: Vec<_> = steps
            .iter()
            .zip(&resolved.tensors)
            .map(|(step, grad_perturbed)| step.descent(grad_perturbed))
            .collect();
        let mut encoder = self.encoder();
        let blend = BlendSource::Method;
        let stats = self.engine.descent(&mut encoder, hyper, rates, blend, &ascent, &tensors)?;
        let (policy, norms) = (hyper.non_finite, ascent.norms());
        self.submit_and_track(&bridge, encoder, policy, norms, OutcomeScope::Step(&ids))?;

        // The step is submitted and the rest cannot fail, so update the state.
        self.advance(&bridge, &steps);
        self.place(new_weights(steps, made_are));
        self.count(ascent.stats(), stats);
        let rest = self.norms(hyper, track_norms, false, ascent.norms());
        Ok(PhaseOutput { built, rest, released: weights })
    }

    fn lean_ascend<T>(
        &mut self,
        context: StepContext<'_>,
        rates: &[f64],
        entries: Vec<ParamEntry<DeviceTensor>>,
        build: impl FnOnce(Vec<DeviceTensor>) -> T,
    ) -> Result<PhaseOutput<Self, T, LeanAscentState>, WsamError> {
        let hyper = context.hyper;
        let lens = entries.iter().map(|entry| (entry.id, entry.len as u64));
        let request = MemoryRequest {
            outputs: perturbed_outputs(context, &entries),
            stepped: entries.iter().map(spec).collect(),
            states: self.new_states(&hyper.base, lens),
            ..MemoryRequest::default()
        };
        let resolving = self.resolve(context, entries, request)?;
        let perturbed = resolving.perturbed();
        // The perturbed weights go into the copy for the second pass, and into the model itself.
        let built = build(perturbed.clone());
        let ResolvedParams { bridge, params, memory, weights, .. } = resolving.finish()?;
        let ids = ids(&params);
        let partners = partners(&params, memory.outputs);
        let steps = self.param_steps(&params, memory.stepped, memory.states);
        let tensors: Vec<_> = steps
            .iter()
            .zip(&partners)
            .map(|(step, partner)| step.lean_ascent(partner.as_ref()))
            .collect();
        let options = GradientOptions {
            track_norms: context.tracks_gradient(),
            inv_scale: InvScale::Host(context.inv_scale),
            rounding: Self::rounding(context),
        };
        let mut encoder = self.encoder();
        let ascent = self.engine.lean_ascent(&mut encoder, hyper, rates, options, &tensors)?;
        let (policy, norms) = (hyper.non_finite, ascent.norms());
        let step = LeanStep::default();
        let scope = OutcomeScope::LeanFirst(&ids, &step);
        self.submit_and_track(&bridge, encoder, policy, norms, scope)?;

        self.advance(&bridge, &steps);
        // Drop our handles to the old weights, so that they are freed with the model.
        ids.iter().for_each(|id| drop(self.weights.remove(id)));
        let lean = |(step, partner): (ParamStep<'_>, Option<Memory>)| LeanParam {
            id: step.param.id,
            group: step.param.group,
            shape: step.param.shape.clone(),
            stepped: step.updated,
            ran_on: partner.unwrap_or_else(|| step.param.weight.clone()),
        };
        let lean_params = steps.into_iter().zip(partners).map(lean).collect();
        // The second pass still uses the weights that are not perturbed.
        let perturbed_weights = params.iter().zip(weights).filter(|(param, _)| param.perturbed);
        let released = perturbed_weights.map(|(_, weight)| weight).collect();
        let rest = LeanAscentState { bridge, ascent, params: lean_params, perturbed, step };
        Ok(PhaseOutput { built, rest, released })
    }

    fn lean_descend<T>(
        &mut self,
        context: StepContext<'_>,
        ascent_state: LeanAscentState,
        grads_perturbed: Vec<DeviceTensor>,
        build: impl FnOnce(Vec<DeviceTensor>) -> T,
    ) -> Result<PhaseOutput<Self, T, Norms>, WsamError> {
        let StepContext { hyper, track_norms, .. } = context;
        let LeanAscentState { bridge, ascent, params, perturbed, step } = ascent_state;
        let (_, resolving) = bridge.resolve(grads_perturbed, MemoryRequest::default(), Vec::new());
        let made = bridge.tensors(params.iter().map(|param| (&param.stepped, &param.shape)));
        let made_are = identities(&made);
        let built = build(made);
        let grads_perturbed = resolving.finish()?.tensors;
        let tensors: Vec<_> = params
            .iter()
            .zip(&grads_perturbed)
            .map(|(param, grad_perturbed)| param.descent(grad_perturbed))
            .collect();
        let mut encoder = self.encoder();
        let stats = self.engine.lean_descent(&mut encoder, &ascent, &tensors)?;
        let (policy, norms) = (hyper.non_finite, ascent.norms());
        self.submit_and_track(&bridge, encoder, policy, norms, OutcomeScope::LeanRest(&step))?;

        let weights = params.into_iter().zip(made_are);
        self.place(weights.map(|(param, tensor)| NewWeight {
            id: param.id,
            tensor,
            memory: param.stepped,
        }));
        self.count(ascent.stats(), stats);
        let rest = self.norms(hyper, track_norms, true, ascent.norms());
        Ok(PhaseOutput { built, rest, released: perturbed })
    }

    fn exclude(ascent_state: &mut AscentState, places: &[usize]) {
        ascent_state.params = without(std::mem::take(&mut ascent_state.params), places);
        ascent_state.weights = without(std::mem::take(&mut ascent_state.weights), places);
        ascent_state.ascent.leave_out(places.len());
    }

    fn first_gradient(ascent_state: &AscentState, place: usize) -> Option<DeviceTensor> {
        let param = ascent_state.params.get(place)?;
        ascent_state.bridge.tensors([(&param.grad, &param.shape)].into_iter()).pop()
    }

    fn one_pass_step<T>(
        &mut self,
        context: StepContext<'_>,
        _update: OnePassUpdate,
        rates: &[f64],
        entries: Vec<ParamEntry<DeviceTensor>>,
        build: impl FnOnce(Vec<DeviceTensor>) -> T,
    ) -> Result<PhaseOutput<Self, T, Norms>, WsamError> {
        let hyper = context.hyper;
        let lens = entries.iter().map(|entry| (entry.id, entry.len as u64));
        let request = MemoryRequest {
            outputs: entries.iter().map(output).collect(),
            states: self.new_states(&hyper.base, lens),
            ..MemoryRequest::default()
        };
        let mut resolving = self.resolve(context, entries, request)?;
        let made_are = identities(&resolving.outputs);
        let built = build(std::mem::take(&mut resolving.outputs));
        let ResolvedParams { bridge, params, memory, weights, .. } = resolving.finish()?;
        let ids = ids(&params);
        let steps = self.param_steps(&params, memory.outputs, memory.states);
        let tensors: Vec<_> = steps.iter().map(ParamStep::base_step).collect();
        let mut encoder = self.encoder();
        let tracks = context.tracks_gradient();
        let options = scaled_by(context.inv_scale, tracks);
        let base = self.engine.base_step(&mut encoder, hyper, rates, options, &tensors)?;
        let (policy, norms) = (hyper.non_finite, base.norms());
        self.submit_and_track(&bridge, encoder, policy, norms, OutcomeScope::Step(&ids))?;

        self.advance(&bridge, &steps);
        self.place(new_weights(steps, made_are));
        self.last_step = Some(StepStats { submissions: 1, ..base.stats() });
        let rest = self.one_pass_norms(hyper, tracks, base.norms());
        Ok(PhaseOutput { built, rest, released: weights })
    }

    fn momentum(
        &self,
        _context: StepContext<'_>,
        _id: ParamId,
    ) -> Result<Option<DeviceTensor>, WsamError> {
        Err(no_kernels())
    }

    fn perturb_along_momentum(
        &mut self,
        _context: StepContext<'_>,
        _entries: Vec<ParamEntry<DeviceTensor>>,
    ) -> Result<Vec<DeviceTensor>, WsamError> {
        Err(no_kernels())
    }

    fn momentum_step<T>(
        &mut self,
        _context: StepContext<'_>,
        _rates: &[f64],
        _entries: Vec<ParamEntry<DeviceTensor>>,
        _perturbed: Vec<DeviceTensor>,
        _build: impl FnOnce(Vec<DeviceTensor>) -> T,
    ) -> Result<PhaseOutput<Self, T, Norms>, WsamError> {
        Err(no_kernels())
    }

    fn mix(
        &mut self,
        context: StepContext<'_>,
        ascent_state: AscentState,
        grads_perturbed: Vec<DeviceTensor>,
    ) -> Result<TensorOutput<Self, MixState>, WsamError> {
        self.mix_gradients(context, ascent_state, grads_perturbed)
    }

    fn clip(
        &mut self,
        context: StepContext<'_>,
        _update: OnePassUpdate,
        entries: Vec<ParamEntry<DeviceTensor>>,
    ) -> Result<TensorOutput<Self, Norms>, WsamError> {
        self.clip_gradients(context, entries)
    }

    fn sharpen(
        &mut self,
        context: StepContext<'_>,
        rates: &[f64],
        mixed: MixState,
        weights: Option<Vec<DeviceTensor>>,
    ) -> Result<TensorOutput<Self, Norms>, WsamError> {
        self.take_sharpness_step(context, rates, mixed, weights)
    }

    fn release(&self, tensors: Vec<DeviceTensor>) {
        if let Some(first) = tensors.first() {
            Bridge::new(first).release(tensors);
        }
    }
}

/// The fused route is not chosen for the methods whose kernels are missing.
fn no_kernels() -> WsamError {
    WsamError::NotFused { reason: TensorOpsReason::Method.to_string() }
}

fn spec(entry: &ParamEntry<DeviceTensor>) -> AllocSpec {
    AllocSpec::new(entry.len as u64, entry.dtype)
}

/// A new tensor in place of the weight.
pub(super) fn output(entry: &ParamEntry<DeviceTensor>) -> OutputSpec {
    OutputSpec { spec: spec(entry), shape: entry.weight.shape() }
}

/// New tensors for the weights that the ascent perturbs.
fn perturbed_outputs(
    context: StepContext<'_>,
    entries: &[ParamEntry<DeviceTensor>],
) -> Vec<OutputSpec> {
    entries.iter().filter(|entry| context.in_group(entry).perturbed).map(output).collect()
}

/// The weights that a step made, with the `identity` of each tensor.
fn new_weights(
    steps: Vec<ParamStep<'_>>,
    tensors: Vec<Option<u64>>,
) -> impl Iterator<Item = NewWeight> {
    let with_tensors = steps.into_iter().zip(tensors);
    with_tensors.map(|(step, tensor)| NewWeight { id: step.param.id, tensor, memory: step.updated })
}
