//! The phases of ordinary and lean steps. Each records its kernels into one submission.

use super::backend::{Fused, NewWeight, identities, ids, scaled_by, with_counts};
use super::outcomes::OutcomeScope;
use super::params::{ParamStep, ResolvedParam, partners};
use super::phase_states::{AscentState, LeanAscentState, MixState, MomentumState, MovedWeights};
use super::resolve::ResolvedParams;
use crate::engine::{AscentOptions, BlendSource, InvScale, StepStats};
use crate::method::Method;
use crate::optim::bridge::{
    AllocSpec, Bridge, DeviceTensor, MemoryRequest, OnDevice, OutputSpec, identity,
};
use crate::optim::error::WsamError;
use crate::optim::param_entries::ParamEntry;
use crate::optim::params::without;
use crate::optim::report::Norms;
use crate::optim::step_backend::{
    Moved, MovedTensors, OnePassUpdate, PhaseOutput, StepBackend, StepContext, TensorOutput,
};
use burn::backend::{StreamId, TensorMetadata};
use burn::module::ParamId;
use burn::tensor::DType;
use std::sync::Arc;

impl StepBackend for Fused {
    type Layout = OnDevice;
    type AscentState = AscentState;
    type LeanAscentState = LeanAscentState;
    type MixState = MixState;
    type MomentumState = MomentumState;

    const TYPES: (&'static [DType], &'static str, &'static str) =
        (&[DType::F32, DType::F16, DType::BF16], "f32, f16 and bf16", "fused");

    fn ascend<T>(
        &mut self,
        context: StepContext<'_>,
        entries: Vec<ParamEntry<DeviceTensor>>,
        build: impl FnOnce(Vec<DeviceTensor>) -> T,
    ) -> Result<PhaseOutput<Self, T, AscentState>, WsamError> {
        // Friendly-SAM's ascent reads the average; the other methods' states belong to the descent.
        let has_state = matches!(context.hyper.method, Method::FriendlySam { .. });
        let mut request = MemoryRequest {
            outputs: perturbed_outputs(context, &entries),
            ..MemoryRequest::default()
        };
        if has_state {
            request.states = vec![self.new_method_states(context.hyper, lens(context, &entries))];
        }
        let resolving = self.resolve(context, entries, request)?;
        let built = build(resolving.perturbed());
        let ResolvedParams { bridge, mut params, memory, weights, outputs } = resolving.finish()?;
        if has_state {
            let new = memory.states.into_iter().flatten().collect();
            self.bind_method_states(context.hyper, &bridge, &mut params, new);
        }
        let moved = context.in_place.then(|| Arc::new(MovedWeights::new(&bridge, &params)));
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
        let ascent = self.engine.ascent(&mut encoder, context.hyper, options, &tensors);
        let ascent = moved_back_on_error(ascent.map_err(WsamError::from), moved.as_deref())?;
        self.submit(encoder);
        let rest = AscentState { bridge, ascent, params, weights, perturbed: outputs, moved };
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
        let AscentState { bridge, ascent, mut params, weights, perturbed, moved } = ascent_state;
        let ids = ids(&params);
        let lens = params.iter().map(|param| (param.id, param.len));
        let mut states = self.new_states(&hyper.base, lens);
        let methods = params.iter().map(|param| (param.id, param.len, param.perturbed));
        states.push(self.new_method_states(hyper, methods));
        // In place the tensors get the memory of `w` first, so that the memory of `w + e_w` can be reused.
        let moved = moved.filter(|_| context.in_place);
        let request = MemoryRequest {
            bindings: moved.map(|moved| moved.bindings.clone()).unwrap_or_default(),
            outputs: params.iter().map(|param| param.stepped(context.in_place)).collect(),
            states,
            ..MemoryRequest::default()
        };
        let (made, resolving) = match context.in_place {
            true => (Vec::new(), bridge.resolve_in_place(grads_perturbed, request)?),
            false => bridge.resolve(grads_perturbed, request, perturbed),
        };
        let made_are = if context.in_place { tensors_of(&params) } else { identities(&made) };
        let built = build(made);
        let mut resolved = resolving.finish()?;
        let methods = resolved.new.states.pop().unwrap_or_default();
        self.bind_method_states(hyper, &bridge, &mut params, methods);
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
        self.methods.set(hyper, steps.iter().map(|step| step.param));
        self.place(new_weights(steps, made_are));
        self.count((&bridge, context.in_place), ascent.stats(), stats);
        let rest = self.norms(hyper, track_norms, false, ascent.norms());
        Ok(PhaseOutput { built, rest, released: weights })
    }

    fn may_move(&self, entries: &[ParamEntry<DeviceTensor>]) -> bool {
        entries.iter().all(|entry| self.placed(entry).is_some())
    }

    fn moved(ascent_state: &AscentState) -> Option<Moved<Self>> {
        ascent_state.moved.clone().map(|moved| moved as Moved<Self>)
    }

    fn is_lean_in_place(ascent_state: &LeanAscentState) -> bool {
        ascent_state.in_place == Some(StreamId::current())
    }

    fn lean_ascend<T>(
        &mut self,
        context: StepContext<'_>,
        rates: &[f64],
        entries: Vec<ParamEntry<DeviceTensor>>,
        build: impl FnOnce(Vec<DeviceTensor>) -> T,
    ) -> Result<PhaseOutput<Self, T, LeanAscentState>, WsamError> {
        self.ascend_lean(context, rates, entries, build)
    }

    fn lean_descend<T>(
        &mut self,
        context: StepContext<'_>,
        ascent_state: LeanAscentState,
        grads_perturbed: Vec<DeviceTensor>,
        build: impl FnOnce(Vec<DeviceTensor>) -> T,
    ) -> Result<PhaseOutput<Self, T, Norms>, WsamError> {
        self.descend_lean(context, ascent_state, grads_perturbed, build)
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
        update: OnePassUpdate,
        rates: &[f64],
        entries: Vec<ParamEntry<DeviceTensor>>,
        build: impl FnOnce(Vec<DeviceTensor>) -> T,
    ) -> Result<PhaseOutput<Self, T, Norms>, WsamError> {
        let hyper = context.hyper;
        let corrects = update == OnePassUpdate::Corrected;
        let of_base = entries.iter().map(|entry| (entry.id, entry.len as u64));
        let mut states = self.new_states(&hyper.base, of_base);
        if corrects {
            states.push(self.new_method_states(hyper, lens(context, &entries)));
        }
        let request = MemoryRequest {
            outputs: entries.iter().map(|entry| new_weight(context, entry)).collect(),
            states,
            ..MemoryRequest::default()
        };
        let mut resolving = self.resolve(context, entries, request)?;
        let made = std::mem::take(&mut resolving.outputs);
        let made_are = identities(&made);
        let built = build(made);
        let ResolvedParams { bridge, mut params, mut memory, weights, .. } = resolving.finish()?;
        if corrects {
            let methods = memory.states.pop().unwrap_or_default();
            self.bind_method_states(hyper, &bridge, &mut params, methods);
        }
        let moved = context.in_place.then(|| MovedWeights::new(&bridge, &params));
        let made_are = if context.in_place { tensors_of(&params) } else { made_are };
        let ids = ids(&params);
        let steps = self.param_steps(&params, memory.outputs, memory.states);
        let tensors: Vec<_> = steps.iter().map(ParamStep::base_step).collect();
        let mut encoder = self.encoder();
        let tracks = context.tracks_gradient();
        let options = scaled_by(context.inv_scale, tracks);
        let base = match update {
            OnePassUpdate::Gradient => {
                self.engine.base_step(&mut encoder, hyper, rates, options, &tensors)
            }
            OnePassUpdate::Corrected => {
                self.engine.one_pass_step(&mut encoder, hyper, rates, options, &tensors)
            }
        };
        let submitted = base.map_err(WsamError::from).and_then(|base| {
            let (policy, norms) = (hyper.non_finite, base.norms());
            self.submit_and_track(&bridge, encoder, policy, norms, OutcomeScope::Step(&ids))?;
            Ok(base)
        });
        let base = moved_back_on_error(submitted, moved.as_ref())?;

        self.advance(&bridge, &steps);
        self.place(new_weights(steps, made_are));
        let stats = StepStats { submissions: 1, ..base.stats() };
        self.last_step = Some(with_counts(&bridge, context.in_place, stats));
        let rest = self.one_pass_norms(hyper, tracks, base.norms());
        Ok(PhaseOutput { built, rest, released: weights })
    }

    fn has_momentum(&self, _context: StepContext<'_>, id: ParamId) -> bool {
        Fused::has_momentum(self, id)
    }

    fn perturb_along_momentum(
        &mut self,
        context: StepContext<'_>,
        entries: Vec<ParamEntry<DeviceTensor>>,
    ) -> Result<(Vec<DeviceTensor>, MomentumState), WsamError> {
        self.momentum_point(context, entries)
    }

    fn momentum_step<T>(
        &mut self,
        context: StepContext<'_>,
        rates: &[f64],
        ascent: MomentumState,
        entries: Vec<ParamEntry<DeviceTensor>>,
        _perturbed: Vec<DeviceTensor>,
        build: impl FnOnce(Vec<DeviceTensor>) -> T,
    ) -> Result<PhaseOutput<Self, T, Norms>, WsamError> {
        self.step_at_momentum(context, rates, ascent, entries, build)
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
        update: OnePassUpdate,
        entries: Vec<ParamEntry<DeviceTensor>>,
    ) -> Result<TensorOutput<Self, Norms>, WsamError> {
        self.clip_gradients(context, update, entries)
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

/// Id, length and whether it is perturbed, of each parameter.
pub(super) fn lens(
    context: StepContext<'_>,
    entries: &[ParamEntry<DeviceTensor>],
) -> impl Iterator<Item = (ParamId, u64, bool)> {
    entries.iter().map(move |entry| (entry.id, entry.len as u64, context.in_group(entry).perturbed))
}

pub(super) fn spec(entry: &ParamEntry<DeviceTensor>) -> AllocSpec {
    AllocSpec::new(entry.len as u64, entry.dtype)
}

/// A new tensor in place of the weight.
pub(super) fn output(entry: &ParamEntry<DeviceTensor>) -> OutputSpec {
    OutputSpec { spec: spec(entry), shape: entry.weight.shape(), tensor: None }
}

/// New memory for the weight, and the tensor that gets it: the model's if the phase is in place, or a new one.
fn new_weight(context: StepContext<'_>, entry: &ParamEntry<DeviceTensor>) -> OutputSpec {
    let tensor = if context.in_place { identity(&entry.weight) } else { None };
    OutputSpec { tensor, ..output(entry) }
}

/// New memory for the weights that the ascent perturbs.
pub(super) fn perturbed_outputs(
    context: StepContext<'_>,
    entries: &[ParamEntry<DeviceTensor>],
) -> Vec<OutputSpec> {
    let perturbed = entries.iter().filter(|entry| context.in_group(entry).perturbed);
    perturbed.map(|entry| new_weight(context, entry)).collect()
}

/// `identity` of the model's tensors.
fn tensors_of(params: &[ResolvedParam]) -> Vec<Option<u64>> {
    params.iter().map(|param| param.tensor).collect()
}

/// Returns the result. On an error the tensors of a phase in place get the memory of `w` again.
pub(super) fn moved_back_on_error<T>(
    result: Result<T, WsamError>,
    moved: Option<&MovedWeights>,
) -> Result<T, WsamError> {
    if let (Err(_), Some(moved)) = (&result, moved) {
        // This fails only if Burn's server does. The first error is the cause.
        let _ = moved.move_back();
    }
    result
}

/// The weights that a step made, with the `identity` of each tensor.
pub(super) fn new_weights(
    steps: Vec<ParamStep<'_>>,
    tensors: Vec<Option<u64>>,
) -> impl Iterator<Item = NewWeight> {
    let with_tensors = steps.into_iter().zip(tensors);
    with_tensors.map(|(step, tensor)| NewWeight { id: step.param.id, tensor, memory: step.updated })
}
