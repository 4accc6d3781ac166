//! What the fused route keeps between steps: the states of parameters, and the outcomes of steps.

use super::backend::{Fused, State};
use super::method_memories::MethodMemory;
use super::outcomes::OutcomeReadback;
use super::params::NewStates;
use crate::layout;
use crate::method::{Hyperparameters, NonFinite, Outcome};
use crate::optim::bridge::{AllocSpec, Bridge, Memory, MemoryRequest, OnDevice, OutputSpec};
use crate::optim::error::WsamError;
use crate::optim::params::TensorLayout;
use crate::optim::pending::ResolvedOutcome;
use crate::optim::state::{LoadedState, MASTER_WEIGHTS, OptimizerState, read};
use crate::optim::state_store::{MethodStates, StateStore};
use burn::module::ParamId;
use burn::tensor::{Bool, DType, Device, Shape, Tensor, TensorData};
use std::mem::offset_of;
use std::sync::Arc;

impl Fused {
    #[cfg(feature = "train")]
    pub(crate) fn has_state(&self, id: ParamId) -> bool {
        self.states.get(&id).is_some_and(|state| state.step > 0)
    }

    /// A parameter's state, read back.
    pub(crate) fn state(
        &self,
        hyper: &Hyperparameters,
        id: ParamId,
    ) -> Result<Option<OptimizerState>, WsamError> {
        let Some(state) = self.states.get(&id) else { return Ok(None) };
        let step = state.step.saturating_sub(self.overcount(Some(id))?);
        if step == 0 {
            return Ok(None);
        }
        let method = self.read_method_state(hyper, id, self.last_outcome()?)?;
        let shape = Shape::from([state.len as usize]);
        let memory = state.memory.iter().chain(&state.master);
        let tensors = state.bridge.tensors(memory.map(|memory| (memory, &shape)));
        let data =
            tensors.into_iter().map(|tensor| read(OnDevice::into_tensor(tensor, shape.clone())));
        let data = data.collect::<Result<Vec<_>, _>>()?;
        let mut data = data.into_iter();
        let names = hyper.base.state_names().iter().copied();
        let mut tensors: Vec<_> = names.zip(data.by_ref()).collect();
        tensors.extend(method);
        tensors.extend(data.map(|master| (MASTER_WEIGHTS, master)));
        Ok(Some(OptimizerState { step, tensors }))
    }

    /// The outcome of the last step, if it was not resolved yet.
    fn last_outcome(&self) -> Result<Option<Outcome>, WsamError> {
        Ok(self.latest_outcome()?.map(|latest| latest.outcome))
    }
}

impl StateStore for Fused {
    fn latest_outcome(&self) -> Result<Option<ResolvedOutcome>, WsamError> {
        self.pending.latest(|readback| readback.read(&self.engine))
    }

    /// Copied on the device from the norms of the step.
    fn skipped_flag(&self) -> Result<Option<Tensor<1, Bool>>, WsamError> {
        let Some((readback, policy, lean)) = self.pending.latest_readback() else {
            return Ok(None);
        };
        let words = size_of::<layout::Norms>() / size_of::<f32>();
        let shape = Shape::from([words]);
        let spec = AllocSpec::single(words as u64);
        let output = OutputSpec { spec, shape: shape.clone(), tensor: None };
        let request = MemoryRequest { outputs: vec![output], ..MemoryRequest::default() };
        let (made, resolving) = readback.bridge.resolve(Vec::new(), request, Vec::new());
        let memory = resolving.finish()?.new.outputs.into_iter().next();
        let (Some(memory), Some(made)) = (memory, made.into_iter().next()) else {
            return Err(WsamError::Backend {
                reason: "Burn allocated no memory for the skip flag".to_owned(),
            });
        };
        let mut encoder = self.encoder();
        let slice = &memory.slice;
        let bytes = size_of::<layout::Norms>() as u64;
        encoder.copy_buffer_to_buffer(&readback.norms, 0, &slice.buffer, slice.offset, bytes);
        self.submit(encoder);
        let norms: Tensor<1> = OnDevice::into_tensor(made, shape);
        let is_bad = |offset: usize| {
            let word = offset / size_of::<f32>();
            norms.clone().narrow(0, word, 1).not_equal_elem(0.0)
        };
        let bad_gradient = is_bad(offset_of!(layout::Norms, nonfinite_gradient));
        // Only `g` decides whether a lean step, or a step under BaseStep, is skipped.
        let by_first = lean || policy == NonFinite::BaseStep;
        Ok(Some(match by_first {
            true => bad_gradient,
            false => bad_gradient.bool_or(is_bad(offset_of!(layout::Norms, nonfinite_perturbed))),
        }))
    }

    fn overcount(&self, id: Option<ParamId>) -> Result<u64, WsamError> {
        self.pending.overcount(id, |readback| readback.read(&self.engine))
    }

    fn decided_outcomes(&self) -> Result<Vec<ResolvedOutcome>, WsamError> {
        self.pending.decided(|readback| readback.read(&self.engine))
    }

    fn take_outcomes(&mut self) -> Result<Vec<(ResolvedOutcome, Vec<ParamId>)>, WsamError> {
        let Self { pending, engine, methods, .. } = self;
        let outcomes = pending.resolve(|readback: &OutcomeReadback| readback.read(engine))?;
        methods.resolve(outcomes.iter().map(|(resolved, _)| resolved));
        Ok(outcomes)
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
        let has_master = |state: &&LoadedState| state.master.is_some();
        let has_method = |state: &&LoadedState| !state.method.is_empty();
        let mut states = vec![loaded.iter().map(spec).collect(); kinds];
        states.push(loaded.iter().filter(has_method).map(spec).collect());
        let request = MemoryRequest {
            states,
            masters: loaded.iter().filter(has_master).map(spec).collect(),
            ..MemoryRequest::default()
        };
        let (_, resolving) = bridge.resolve(Vec::new(), request, Vec::new());
        let mut memory = resolving.finish()?.new;
        let mut methods = memory.states.pop().unwrap_or_default().into_iter();
        self.methods.forget(&|id| ids.contains(&id));
        for id in ids {
            self.states.remove(id);
            // Dropping the location makes the next step compare the weight with the loaded master weights.
            self.weights.remove(id);
        }
        let write = |memory: &Memory, data: TensorData| {
            let slice = &memory.slice;
            let data = data.convert_dtype(DType::F32);
            // Burn's pending work is submitted already, and later work runs after these writes.
            self.engine.queue().write_buffer(&slice.buffer, slice.offset, data.as_bytes());
        };
        let mut new_states = NewStates::new(memory.states);
        let mut masters = memory.masters.into_iter();
        for LoadedState { id, step, tensors, method, master, len } in loaded {
            let memory: Arc<[_]> = new_states.next().into();
            memory.iter().zip(tensors).for_each(|(memory, data)| write(memory, data));
            if let Some(data) = method.into_iter().next()
                && let Some(memory) = methods.next()
            {
                write(&memory, data);
                let state = MethodMemory { memory, is_set: true, bridge: bridge.clone() };
                self.methods.insert(id, state);
            }
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

    fn method_states(&self, hyper: &Hyperparameters) -> Result<MethodStates, WsamError> {
        let outcome = self.last_outcome()?;
        let mut all = Vec::new();
        for id in self.method_ids() {
            let found = self.read_method_state(hyper, id, outcome)?;
            all.extend(found.map(|(name, data)| (id, name, data)));
        }
        Ok(all)
    }

    fn awaits_outcome(&self) -> bool {
        self.methods.awaits_outcome()
    }

    fn forget(&mut self, is_dropped: &dyn Fn(ParamId) -> bool) {
        self.states.retain(|id, _| !is_dropped(*id));
        self.methods.forget(is_dropped);
        self.weights.retain(|id, _| !is_dropped(*id));
    }

    fn state_len(&self, id: ParamId) -> Option<usize> {
        let len = self.states.get(&id).map(|state| state.len as usize);
        len.or_else(|| self.methods.len(id))
    }
}
