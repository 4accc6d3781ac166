//! The step through the engine: which buffers go where.
//!
//! Burn's tensors are never written. The ascent writes `w + e_w` and the descent the new weights
//! into memory of their own, so `w` is its own anchor: restoring it is exact and free, and a clone
//! of the model that the user keeps never changes. State lives in memory only this optimizer has.

use super::bridge::Bridge;
use super::device::Shared;
use super::error::WsamError;
use super::slots::Slot;
use super::state::OptimizerState;
use crate::engine::{
    Ascent, AscentOptions, AscentTensor, BlendSource, DescentTensor, Engine, Placement, StepStats,
};
use crate::method::{Base, Hyperparameters};
use burn::cubecl::server::Handle;
use burn::module::ParamId;
use burn::tensor::Tensor;
use std::collections::HashMap;
use std::sync::Arc;

/// The fused route of one optimizer.
#[derive(Debug)]
pub(crate) struct Fused {
    engine: Arc<Engine>,
    states: HashMap<ParamId, State>,
    last_step: Option<StepStats>,
}

#[derive(Debug)]
struct State {
    step: u64,
    len: u64,
    /// In the order of [`Base::state_names`].
    handles: Vec<Handle>,
    /// A tensor on the same device, the way back to it for [`Fused::state`].
    device: Tensor<1>,
}

/// An ascent that was submitted.
#[derive(Debug)]
pub(crate) struct FusedClimb {
    engine: Arc<Engine>,
    ascent: Ascent,
    has_gradient_norm: bool,
    has_perturbed_norm: bool,
}

impl FusedClimb {
    pub(crate) fn gradient_norm(&self) -> Result<Option<f64>, WsamError> {
        let read = || Ok(f64::from(self.engine.read_norms(&self.ascent)?.gradient));
        self.has_gradient_norm.then(read).transpose()
    }

    pub(crate) fn perturbed_gradient_norm(&self) -> Result<Option<f64>, WsamError> {
        let read = || Ok(f64::from(self.engine.read_norms(&self.ascent)?.perturbed));
        self.has_perturbed_norm.then(read).transpose()
    }
}

impl Fused {
    pub(crate) fn new(shared: Shared) -> Self {
        Self { engine: shared.engine, states: HashMap::new(), last_step: None }
    }

    pub(crate) fn last_step(&self) -> Option<StepStats> {
        self.last_step
    }

    pub(crate) fn ascend(
        &self,
        hyper: &Hyperparameters,
        track_norms: bool,
        slots: &[Slot],
    ) -> Result<(Vec<Tensor<1>>, FusedClimb), WsamError> {
        let lens = lens(slots);
        let mut bridge = bridge(slots)?;
        let perturbed = bridge.allocate(lens.iter().copied());
        let inputs = slots.iter().flat_map(|slot| [slot.weight.clone(), slot.grad.clone()]);
        let inputs = bridge.resolve(inputs)?;
        let memory = inputs.chunks(2).zip(&perturbed).zip(&lens).flat_map(|((pair, out), len)| {
            [pair[0].clone(), pair[1].clone(), out.clone()].map(|handle| (handle, *len))
        });
        let slices = bridge.slices(memory)?;
        let tensors: Vec<_> = slices
            .chunks(3)
            .map(|slices| AscentTensor {
                weight: slices[0].clone(),
                grad: slices[1].clone(),
                partner: slices[2].clone(),
            })
            .collect();
        bridge.flush()?;
        let mut encoder = self.encoder();
        let options = AscentOptions { placement: Placement::OutOfPlace, track_norms };
        let ascent = self.engine.ascent(&mut encoder, hyper, options, &tensors)?;
        self.engine.queue().submit([encoder.finish()]);

        let climb = FusedClimb {
            engine: self.engine.clone(),
            ascent,
            has_gradient_norm: !hyper.adaptive || hyper.clips_gradient() || track_norms,
            has_perturbed_norm: hyper.clip.is_some() || track_norms,
        };
        Ok((bridge.tensors(perturbed, &lens), climb))
    }

    pub(crate) fn descend(
        &mut self,
        hyper: &Hyperparameters,
        lr: f64,
        slots: &[Slot],
        grads_perturbed: Vec<Tensor<1>>,
        climb: &FusedClimb,
    ) -> Result<Vec<Tensor<1>>, WsamError> {
        let lens = lens(slots);
        let mut bridge = bridge(slots)?;
        let updated = bridge.allocate(lens.iter().copied());
        let mut fresh = self.fresh_states(&hyper.base, &bridge, slots, &lens);
        let inputs = slots.iter().zip(grads_perturbed).flat_map(|(slot, grad_perturbed)| {
            [slot.weight.clone(), slot.grad.clone(), grad_perturbed]
        });
        let inputs = bridge.resolve(inputs)?;
        let states = hyper.base.state_names().len();
        let mut steps = Vec::with_capacity(slots.len());
        let mut memory = Vec::with_capacity(slots.len() * (4 + states));
        let rows = slots.iter().zip(&lens).zip(&updated).zip(inputs.chunks(3));
        for (((slot, len), updated), inputs) in rows {
            let (step, state) = match (self.states.get(&slot.id), fresh.get(&slot.id)) {
                (Some(state), _) => (state.step + 1, state.handles.as_slice()),
                (None, Some(handles)) => (1, handles.as_slice()),
                (None, None) => (1, [].as_slice()),
            };
            steps.push(step);
            let handles = [updated].into_iter().chain(inputs).chain(state);
            memory.extend(handles.map(|handle| (handle.clone(), *len)));
        }
        let slices = bridge.slices(memory.into_iter())?;
        let tensors: Vec<_> = slices
            .chunks(4 + states)
            .zip(steps)
            .map(|(slices, step)| DescentTensor {
                weight: slices[0].clone(),
                anchor: Some(slices[1].clone()),
                grad: slices[2].clone(),
                grad_perturbed: slices[3].clone(),
                state: slices[4..].to_vec(),
                step,
            })
            .collect();
        bridge.flush()?;
        let mut encoder = self.encoder();
        let (ascent, blend) = (&climb.ascent, BlendSource::Method);
        let stats = self.engine.descent(&mut encoder, hyper, lr, blend, ascent, &tensors)?;
        self.engine.queue().submit([encoder.finish()]);

        // Nothing can fail any more: the step is taken.
        for (slot, tensor) in slots.iter().zip(&tensors) {
            let handles = fresh.remove(&slot.id).unwrap_or_default();
            let state = self.states.entry(slot.id).or_insert_with(|| State {
                step: 0,
                len: tensor.weight.len,
                handles,
                device: Tensor::empty([1], &slot.weight.device()),
            });
            state.step = tensor.step;
        }
        let mut step = climb.ascent.stats();
        step += stats;
        step.submissions += 2;
        self.last_step = Some(step);
        Ok(bridge.tensors(updated, &lens))
    }

    /// Memory for the state of parameters that take their first step. The descent ignores what is
    /// in it.
    fn fresh_states(
        &self,
        base: &Base,
        bridge: &Bridge,
        slots: &[Slot],
        lens: &[u64],
    ) -> HashMap<ParamId, Vec<Handle>> {
        let names = base.state_names().len();
        let new = || slots.iter().zip(lens).filter(|(slot, _)| !self.states.contains_key(&slot.id));
        // All first states, then all second ones: neighbours in a dispatch, neighbours in memory.
        let planes: Vec<_> =
            (0..names).map(|_| bridge.allocate(new().map(|(_, len)| *len))).collect();
        new()
            .enumerate()
            .map(|(i, (slot, _))| (slot.id, planes.iter().map(|plane| plane[i].clone()).collect()))
            .collect()
    }

    fn encoder(&self) -> wgpu::CommandEncoder {
        let label = Some("wsam");
        self.engine.device().create_command_encoder(&wgpu::CommandEncoderDescriptor { label })
    }

    /// Elements of a parameter's state, if it has any.
    pub(crate) fn state_len(&self, id: ParamId) -> Option<usize> {
        self.states.get(&id).map(|state| state.len as usize)
    }

    /// A parameter's state, read back.
    pub(crate) fn state(
        &self,
        base: &Base,
        id: ParamId,
    ) -> Result<Option<OptimizerState>, WsamError> {
        let Some(state) = self.states.get(&id) else { return Ok(None) };
        let bridge = Bridge::new(state.device.clone())?;
        let lens = vec![state.len; state.handles.len()];
        let tensors = bridge.tensors(state.handles.clone(), &lens);
        let data = tensors.into_iter().map(Tensor::into_data);
        let tensors = base.state_names().iter().copied().zip(data).collect();
        Ok(Some(OptimizerState { step: state.step, tensors }))
    }
}

fn lens(slots: &[Slot]) -> Vec<u64> {
    slots.iter().map(|slot| slot.weight.dims()[0] as u64).collect()
}

fn bridge(slots: &[Slot]) -> Result<Bridge, WsamError> {
    // A step without parameters was refused before.
    let first = slots.first().ok_or(WsamError::NoGradients { gradients: 0 })?;
    Bridge::new(first.weight.clone())
}
