//! The tensor that a method stores for each parameter, in memory of its own.

use super::backend::Fused;
use super::params::ResolvedParam;
use crate::engine::MethodState;
use crate::method::{Hyperparameters, Method, Outcome};
use crate::optim::bridge::{AllocSpec, Bridge, Memory, OnDevice};
use crate::optim::error::WsamError;
use crate::optim::params::TensorLayout;
use crate::optim::pending::ResolvedOutcome;
use crate::optim::state::read;
use burn::module::ParamId;
use burn::tensor::{Shape, TensorData};
use std::collections::HashMap;

/// The method's states of all parameters.
#[derive(Debug, Default)]
pub(super) struct MethodMemories {
    by_id: HashMap<ParamId, MethodMemory>,
    /// Parameters whose state the last submitted step set first. It is valid only if that step was taken.
    new: Vec<ParamId>,
    /// Whether a step that fell back to the base optimizer has set no state.
    needs_whole: bool,
}

/// The method's state of one parameter.
#[derive(Debug)]
pub(super) struct MethodMemory {
    pub(super) memory: Memory,
    /// Whether a step has written it.
    pub(super) is_set: bool,
    pub(super) bridge: Bridge,
}

impl MethodMemories {
    fn contains(&self, id: ParamId) -> bool {
        self.by_id.contains_key(&id)
    }

    pub(super) fn len(&self, id: ParamId) -> Option<usize> {
        self.by_id.get(&id).map(|state| state.memory.slice.len as usize)
    }

    pub(super) fn forget(&mut self, is_dropped: &dyn Fn(ParamId) -> bool) {
        self.by_id.retain(|id, _| !is_dropped(*id));
    }

    pub(super) fn insert(&mut self, id: ParamId, state: MethodMemory) {
        self.by_id.insert(id, state);
    }

    /// Whether states are valid only if the last step was taken.
    pub(super) fn awaits_outcome(&self) -> bool {
        !self.new.is_empty()
    }

    /// Notes that a submitted step of two passes sets the states of its perturbed parameters.
    pub(super) fn set<'a>(
        &mut self,
        hyper: &Hyperparameters,
        params: impl Iterator<Item = &'a ResolvedParam>,
    ) {
        self.needs_whole = matches!(hyper.method, Method::LookSam { .. });
        for param in params {
            if let Some(state) = self.by_id.get_mut(&param.id)
                && param.perturbed
                && !std::mem::replace(&mut state.is_set, true)
            {
                self.new.push(param.id);
            }
        }
    }

    /// Applies the outcomes of the steps since the last call.
    pub(super) fn resolve<'a>(&mut self, mut outcomes: impl Iterator<Item = &'a ResolvedOutcome>) {
        let needs_whole = self.needs_whole;
        let sets = |outcome| match outcome {
            Outcome::Skipped => false,
            Outcome::Whole => true,
            _ => !needs_whole,
        };
        let is_set = outcomes.all(|resolved| sets(resolved.outcome));
        for id in self.new.drain(..).filter(|_| !is_set) {
            if let Some(state) = self.by_id.get_mut(&id) {
                state.is_set = false;
            }
        }
    }

    /// The state of a parameter, if it is set. `outcome` is that of the last step, if it is pending.
    fn valid(&self, id: ParamId, outcome: Option<Outcome>) -> Option<&MethodMemory> {
        let is_invalid = match outcome {
            None | Some(Outcome::Whole) => false,
            Some(Outcome::Skipped) => true,
            Some(_) => self.needs_whole,
        };
        let state = self.by_id.get(&id).filter(|state| state.is_set)?;
        (!(is_invalid && self.new.contains(&id))).then_some(state)
    }
}

impl Fused {
    /// Specs of the method's states of perturbed parameters that have none yet.
    pub(super) fn new_method_states(
        &self,
        hyper: &Hyperparameters,
        parameters: impl Iterator<Item = (ParamId, u64, bool)>,
    ) -> Vec<AllocSpec> {
        if hyper.method.state_names().is_empty() {
            return Vec::new();
        }
        let new = parameters.filter(|(id, _, perturbed)| *perturbed && !self.methods.contains(*id));
        new.map(|(_, len, _)| AllocSpec::single(len)).collect()
    }

    /// Gives new memory to the perturbed parameters that have no state of the method, and each parameter its state for
    /// the kernels.
    pub(super) fn bind_method_states(
        &mut self,
        hyper: &Hyperparameters,
        bridge: &Bridge,
        params: &mut [ResolvedParam],
        new: Vec<Memory>,
    ) {
        if hyper.method.state_names().is_empty() {
            return;
        }
        let mut new = new.into_iter();
        for param in params.iter_mut().filter(|param| param.perturbed) {
            if !self.methods.contains(param.id)
                && let Some(memory) = new.next()
            {
                let state = MethodMemory { memory, is_set: false, bridge: bridge.clone() };
                self.methods.insert(param.id, state);
            }
            if let Some(MethodMemory { memory, is_set, .. }) = self.methods.by_id.get(&param.id) {
                let slice = memory.slice.clone();
                param.method_state =
                    if *is_set { MethodState::Set(slice) } else { MethodState::Unset(slice) };
            }
        }
    }

    /// A parameter's state of the method with its name, read back, if it is set.
    pub(super) fn read_method_state(
        &self,
        hyper: &Hyperparameters,
        id: ParamId,
        outcome: Option<Outcome>,
    ) -> Result<Option<(&'static str, TensorData)>, WsamError> {
        let name = hyper.method.state_names().first();
        let (Some(name), Some(state)) = (name, self.methods.valid(id, outcome)) else {
            return Ok(None);
        };
        let shape = Shape::from([state.memory.slice.len as usize]);
        let tensor = state.bridge.tensors([(&state.memory, &shape)].into_iter()).pop();
        let data = tensor.map(|tensor| read(OnDevice::into_tensor(tensor, shape)));
        Ok(data.transpose()?.map(|data| (*name, data)))
    }

    /// The parameters with a state of the method, sorted.
    pub(super) fn method_ids(&self) -> Vec<ParamId> {
        let mut ids: Vec<_> = self.methods.by_id.keys().copied().collect();
        ids.sort_by_key(ParamId::val);
        ids
    }
}
