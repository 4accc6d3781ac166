//! The halves of ordinary and lean steps. Each records its kernels into one submission.

use super::resolve::{ResolvedParam, ResolvedParams};
use super::{AscentState, Fused, LeanAscentState, MixState, OutcomeReadback, OutcomeScope, State};
use crate::engine::{
    AscentOptions, AscentTensor, BaseTensor, BlendSource, DescentTensor, GradientOptions, InvScale,
    LeanAscentTensor, LeanDescentTensor, Placement, Slice, StepStats,
};
use crate::optim::bridge::{AllocSpec, Bridge, DeviceTensor, Memory, OnDevice, identity};
use crate::optim::error::WsamError;
use crate::optim::forms::TensorLayout;
use crate::optim::param_entries::ParamEntry;
use crate::optim::params::without;
use crate::optim::pending::{LeanStep, ResolvedOutcome};
use crate::optim::record::LoadedState;
use crate::optim::report::Norms;
use crate::optim::step_backend::{PhaseOutput, StepBackend, StepContext, TensorOutput};
use burn::backend::TensorMetadata;
use burn::module::ParamId;
use burn::tensor::{Bool, DType, Device, Shape, Tensor, TensorData};

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
        let (specs, shapes) = partners_of(context, &entries);
        let rounding = Self::rounding(context);
        let resolving_params = self.resolve(context, entries, vec![specs], &shapes)?;
        let built = build(resolving_params.perturbed());
        let ResolvedParams { bridge, params, mut arenas, weights, outputs } =
            resolving_params.finish()?;
        let partners = arenas.swap_remove(0);
        let tensors: Vec<_> = params
            .iter()
            .zip(partner_slices(&params, &partners))
            .map(|(param, partner)| AscentTensor {
                weight: param.weight.slice.clone(),
                grad: param.grad.slice.clone(),
                perturbed: partner.map_or(Placement::Unperturbed, Placement::OutOfPlace),
                master: param.master_slice(),
                group: param.group,
            })
            .collect();
        let StepContext { hyper, track_norms, inv_scale, .. } = context;
        let inv_scale = InvScale::Host(inv_scale);
        let options = AscentOptions { track_norms, inv_scale, rounding };
        let mut encoder = self.encoder();
        let ascent = self.engine.ascent(&mut encoder, hyper, options, &tensors)?;
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
        let (ids, specs, shapes) = columns(&params);
        let mut arenas = vec![specs];
        arenas
            .extend(self.new_states(&hyper.base, params.iter().map(|param| (param.id, param.len))));
        let (made, resolving) = bridge.resolve(grads_perturbed, arenas, perturbed, &shapes);
        let made_are = identities(&made);
        let built = build(made);
        let resolved = resolving.finish()?;
        let (grads_perturbed, mut arenas) = (resolved.tensors, resolved.arenas);
        let stepping = self.stepping(&ids, arenas.split_off(1));
        let updated = arenas.swap_remove(0);
        let tensors: Vec<_> = params
            .iter()
            .zip(&updated)
            .zip(&grads_perturbed)
            .zip(&stepping)
            .map(|(((param, updated), grad_perturbed), (step, state))| DescentTensor {
                weight: updated.slice.clone(),
                anchor: param.anchor(),
                master: param.master_slice(),
                grad: param.grad.slice.clone(),
                grad_perturbed: grad_perturbed.slice.clone(),
                state: slices(state),
                step: *step,
                group: param.group,
            })
            .collect();
        let mut encoder = self.encoder();
        let blend = BlendSource::Method;
        let stats = self.engine.descent(&mut encoder, hyper, rates, blend, &ascent, &tensors)?;
        let (policy, norms) = (hyper.non_finite, ascent.norms());
        self.submit_and_track(&bridge, encoder, policy, norms, OutcomeScope::Step(&ids))?;

        // The step is submitted and the rest cannot fail, so update the state.
        self.advance(&bridge, &params, stepping);
        self.place(&ids, &made_are, updated);
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
        let StepContext { hyper, track_norms, inv_scale, .. } = context;
        let (inv_scale, rounding) = (InvScale::Host(inv_scale), Self::rounding(context));
        let options = GradientOptions { track_norms, inv_scale, rounding };
        let parameters = || entries.iter().map(|entry| (entry.id, entry.len as u64));
        let (specs, shapes) = partners_of(context, &entries);
        let mut arenas = vec![specs, entries.iter().map(spec).collect()];
        arenas.extend(self.new_states(&hyper.base, parameters()));
        let resolving_params = self.resolve(context, entries, arenas, &shapes)?;
        let perturbed = resolving_params.perturbed();
        // The perturbed weights go into the copy for the second pass, and into the model itself.
        let built = build(perturbed.clone());
        let ResolvedParams { bridge, params, mut arenas, weights, .. } =
            resolving_params.finish()?;
        let (ids, _, shapes) = columns(&params);
        let stepping = self.stepping(&ids, arenas.split_off(2));
        let (stepped, partners) = (arenas.swap_remove(1), arenas.swap_remove(0));
        let tensors: Vec<_> = params
            .iter()
            .zip(partner_slices(&params, &partners))
            .zip(&stepped)
            .zip(&stepping)
            .map(|(((param, partner), stepped), (step, state))| LeanAscentTensor {
                weight: stepped.slice.clone(),
                anchor: Some(param.weight.slice.clone()),
                grad: param.grad.slice.clone(),
                perturbed: partner,
                state: slices(state),
                step: *step,
                group: param.group,
            })
            .collect();
        let mut encoder = self.encoder();
        let ascent = self.engine.lean_ascent(&mut encoder, hyper, rates, options, &tensors)?;
        let (policy, norms) = (hyper.non_finite, ascent.norms());
        let step = LeanStep::default();
        self.submit_and_track(
            &bridge,
            encoder,
            policy,
            norms,
            OutcomeScope::LeanFirst(&ids, &step),
        )?;

        self.advance(&bridge, &params, stepping);
        // Drop our handles to the old weights, so that they are freed with the model.
        ids.iter().for_each(|id| drop(self.weights.remove(id)));
        let mut partners = partners.into_iter();
        let ran_on: Vec<Memory> = params
            .iter()
            .map(|param| match param.perturbed {
                true => partners.next().unwrap_or_else(|| param.weight.clone()),
                false => param.weight.clone(),
            })
            .collect();
        // The second pass still uses the weights that are not perturbed.
        let perturbed_weights = params.iter().zip(weights).filter(|(param, _)| param.perturbed);
        let released = perturbed_weights.map(|(_, weight)| weight).collect();
        let groups = params.iter().map(|param| param.group).collect();
        let rest = LeanAscentState {
            bridge,
            ascent,
            ids,
            groups,
            shapes,
            stepped,
            perturbed,
            ran_on,
            step,
        };
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
        let LeanAscentState {
            bridge,
            ascent,
            ids,
            groups,
            shapes,
            stepped,
            perturbed,
            ran_on,
            step,
        } = ascent_state;
        let (_, resolving) = bridge.resolve(grads_perturbed, Vec::new(), Vec::new(), &[]);
        let made = bridge.tensors(&stepped, &shapes);
        let made_are = identities(&made);
        let built = build(made);
        let grads_perturbed = resolving.finish()?.tensors;
        let tensors: Vec<_> = stepped
            .iter()
            .zip(&grads_perturbed)
            .zip(&groups)
            .zip(&ran_on)
            .map(|(((stepped, grad_perturbed), group), ran_on)| LeanDescentTensor {
                weight: stepped.slice.clone(),
                grad_perturbed: grad_perturbed.slice.clone(),
                second_pass_weight: Some(ran_on.slice.clone()),
                group: *group,
            })
            .collect();
        let mut encoder = self.encoder();
        let stats = self.engine.lean_descent(&mut encoder, &ascent, &tensors)?;
        let (policy, norms) = (hyper.non_finite, ascent.norms());
        self.submit_and_track(&bridge, encoder, policy, norms, OutcomeScope::LeanRest(&step))?;

        self.place(&ids, &made_are, stepped);
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
        let (grad, shape) = (std::slice::from_ref(&param.grad), std::slice::from_ref(&param.shape));
        ascent_state.bridge.tensors(grad, shape).pop()
    }

    fn base_step<T>(
        &mut self,
        context: StepContext<'_>,
        rates: &[f64],
        entries: Vec<ParamEntry<DeviceTensor>>,
        build: impl FnOnce(Vec<DeviceTensor>) -> T,
    ) -> Result<PhaseOutput<Self, T, ()>, WsamError> {
        let hyper = context.hyper;
        let parameters = || entries.iter().map(|entry| (entry.id, entry.len as u64));
        let (specs, shapes) = outputs_of(entries.iter());
        let mut arenas = vec![specs];
        arenas.extend(self.new_states(&hyper.base, parameters()));
        let mut resolving_params = self.resolve(context, entries, arenas, &shapes)?;
        let made_are = identities(&resolving_params.outputs);
        let built = build(std::mem::take(&mut resolving_params.outputs));
        let ResolvedParams { bridge, params, mut arenas, weights, .. } =
            resolving_params.finish()?;
        let ids: Vec<_> = params.iter().map(|param| param.id).collect();
        let stepping = self.stepping(&ids, arenas.split_off(1));
        let updated = arenas.swap_remove(0);
        let tensors: Vec<_> = params
            .iter()
            .zip(&updated)
            .zip(&stepping)
            .map(|((param, updated), (step, state))| BaseTensor {
                weight: updated.slice.clone(),
                anchor: param.anchor(),
                master: param.master_slice(),
                grad: param.grad.slice.clone(),
                state: slices(state),
                step: *step,
                group: param.group,
            })
            .collect();
        let mut encoder = self.encoder();
        // `base_step` returns no report, so the norm is not tracked.
        let options = scaled_by(context.inv_scale);
        let base = self.engine.base_step(&mut encoder, hyper, rates, options, &tensors)?;
        let (policy, norms) = (hyper.non_finite, base.norms());
        self.submit_and_track(&bridge, encoder, policy, norms, OutcomeScope::Step(&ids))?;

        self.advance(&bridge, &params, stepping);
        self.place(&ids, &made_are, updated);
        self.last_step = Some(StepStats { submissions: 1, ..base.stats() });
        Ok(PhaseOutput { built, rest: (), released: weights })
    }

    fn mix(
        &mut self,
        context: StepContext<'_>,
        ascent_state: AscentState,
        grads_perturbed: Vec<DeviceTensor>,
    ) -> Result<TensorOutput<Self, MixState>, WsamError> {
        self.mix_external(context, ascent_state, grads_perturbed)
    }

    fn clip(
        &mut self,
        context: StepContext<'_>,
        entries: Vec<ParamEntry<DeviceTensor>>,
    ) -> Result<Vec<DeviceTensor>, WsamError> {
        self.clip_external(context, entries)
    }

    fn sharpen(
        &mut self,
        context: StepContext<'_>,
        rates: &[f64],
        mixed: MixState,
        weights: Option<Vec<DeviceTensor>>,
    ) -> Result<TensorOutput<Self, Norms>, WsamError> {
        self.sharpen_external(context, rates, mixed, weights)
    }

    fn latest_outcome(&self) -> Result<Option<ResolvedOutcome>, WsamError> {
        self.pending.latest(|readback| readback.read(&self.engine))
    }

    fn skipped_flag(&self) -> Result<Option<Tensor<1, Bool>>, WsamError> {
        self.skipped_on_device()
    }

    fn overcount(&self, id: Option<ParamId>) -> Result<u64, WsamError> {
        self.pending.overcount(id, |readback| readback.read(&self.engine))
    }

    fn decided_outcomes(&self) -> Result<Vec<ResolvedOutcome>, WsamError> {
        self.pending.decided(|readback| readback.read(&self.engine))
    }

    fn take_outcomes(&mut self) -> Result<Vec<(ResolvedOutcome, Vec<ParamId>)>, WsamError> {
        let Self { pending, engine, .. } = self;
        pending.resolve(|readback: &OutcomeReadback| readback.read(engine))
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
        let bridge = Bridge::new(&OnDevice::from_tensor(Tensor::<1>::zeros([1], device))?);
        let kinds = loaded.first().map_or(0, |state| state.tensors.len());
        let spec = |state: &LoadedState| AllocSpec::single(state.len);
        let mut arenas = vec![loaded.iter().map(spec).collect(); kinds];
        arenas.push(loaded.iter().filter(|state| state.master.is_some()).map(spec).collect());
        let (_, resolving) = bridge.resolve(Vec::new(), arenas, Vec::new(), &[]);
        let mut arenas = resolving.finish()?.arenas;
        let mut masters = arenas.pop().unwrap_or_default().into_iter();
        for id in ids {
            self.states.remove(id);
            // Dropping the location makes the next step compare the weight with the loaded master weights.
            self.weights.remove(id);
        }
        let mut arenas: Vec<_> = arenas.into_iter().map(Vec::into_iter).collect();
        let write = |Memory { slice, .. }: &Memory, data: TensorData| {
            let data = data.convert_dtype(DType::F32);
            // Burn's pending work is submitted already, and later work runs after these writes.
            self.engine.queue().write_buffer(&slice.buffer, slice.offset, data.as_bytes());
        };
        for LoadedState { id, step, tensors, master, len } in loaded {
            let memory: Vec<_> = arenas.iter_mut().filter_map(Iterator::next).collect();
            memory.iter().zip(tensors).for_each(|(memory, data)| write(memory, data));
            let master = master.and_then(|data| Some((masters.next()?, data)));
            let master = master.map(|(memory, data)| {
                write(&memory, data);
                memory
            });
            let state = State { step, len, memory, master, bridge: bridge.clone() };
            self.states.insert(id, state);
        }
        Ok(())
    }

    fn forget(&mut self, is_dropped: &dyn Fn(ParamId) -> bool) {
        self.states.retain(|id, _| !is_dropped(*id));
        self.weights.retain(|id, _| !is_dropped(*id));
    }

    fn state_len(&self, id: ParamId) -> Option<usize> {
        self.states.get(&id).map(|state| state.len as usize)
    }

    fn release(&self, tensors: Vec<DeviceTensor>) {
        if let Some(first) = tensors.first() {
            Bridge::new(first).release(tensors);
        }
    }
}

/// Options for gradients of a loss that was multiplied by `1 / inv_scale`.
pub(super) fn scaled_by(inv_scale: f64) -> GradientOptions<'static> {
    GradientOptions { inv_scale: InvScale::Host(inv_scale), ..Default::default() }
}

fn spec(entry: &ParamEntry<DeviceTensor>) -> AllocSpec {
    AllocSpec::new(entry.len as u64, entry.dtype)
}

pub(super) fn columns(params: &[ResolvedParam]) -> (Vec<ParamId>, Vec<AllocSpec>, Vec<Shape>) {
    let ids = params.iter().map(|param| param.id).collect();
    let shapes = params.iter().map(|param| param.shape.clone()).collect();
    (ids, params.iter().map(|param| param.weight.alloc_spec()).collect(), shapes)
}

/// Specs and shapes of the perturbed weights.
fn partners_of(
    context: StepContext<'_>,
    entries: &[ParamEntry<DeviceTensor>],
) -> (Vec<AllocSpec>, Vec<Shape>) {
    outputs_of(entries.iter().filter(|entry| context.in_group(entry).perturbed))
}

/// Specs and shapes of the tensors that replace the weights.
pub(super) fn outputs_of<'a>(
    entries: impl Iterator<Item = &'a ParamEntry<DeviceTensor>>,
) -> (Vec<AllocSpec>, Vec<Shape>) {
    entries.map(|entry| (spec(entry), entry.weight.shape())).unzip()
}

pub(super) fn identities(tensors: &[DeviceTensor]) -> Vec<Option<u64>> {
    tensors.iter().map(identity).collect()
}

/// Slices of the perturbed weights, `None` for parameters that are not perturbed.
fn partner_slices(params: &[ResolvedParam], partners: &[Memory]) -> Vec<Option<Slice>> {
    let mut partners = partners.iter();
    let mut next = || partners.next().map(|partner| partner.slice.clone());
    params.iter().map(|param| if param.perturbed { next() } else { None }).collect()
}

fn slices(memory: &[Memory]) -> Vec<Slice> {
    memory.iter().map(|memory| memory.slice.clone()).collect()
}
