//! Allocates, binds and reads the tensor that a method stores for each parameter.

use super::backend::Fused;
use super::method_memories::MethodMemory;
use super::params::ResolvedParam;
use crate::engine::MethodState;
use crate::method::{Hyperparameters, Outcome};
use crate::optim::bridge::{AllocSpec, Bridge, Memory, OnDevice};
use crate::optim::error::WsamError;
use crate::optim::params::TensorLayout;
use crate::optim::state::read;
use burn::module::ParamId;
use burn::tensor::{Shape, TensorData};

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
