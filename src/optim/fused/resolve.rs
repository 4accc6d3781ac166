//! Looks up the memory of a step's parameters, in two parts: the request to Burn, and its result.

use super::backend::{Fused, PlacedWeight};
use super::masters::Master;
use super::params::ResolvedParam;
use crate::engine::MethodState;
use crate::optim::bridge::{
    AllocSpec, Bridge, DeviceTensor, Memory, MemoryRequest, NewMemory, OnDevice, PendingMemory,
    identity,
};
use crate::optim::error::WsamError;
use crate::optim::param_entries::ParamEntry;
use crate::optim::params::TensorLayout;
use crate::optim::step_backend::StepContext;
use burn::backend::TensorMetadata;
use burn::module::ParamId;
use burn::tensor::{Shape, Tensor};

/// A parameter whose memory is not resolved yet.
struct PendingParam {
    id: ParamId,
    group: usize,
    perturbed: bool,
    shape: Shape,
    len: u64,
    tensor: Option<u64>,
    placed: Option<Memory>,
    master: Master,
}

/// Pending result of [`Fused::resolve`].
pub(super) struct PendingResolve {
    bridge: Bridge,
    pending: Vec<PendingParam>,
    /// The model's tensors, unless the phase is in place.
    weights: Vec<DeviceTensor>,
    /// Tensors over the requested outputs.
    pub(super) outputs: Vec<DeviceTensor>,
    resolving: PendingMemory,
}

/// Result of [`Fused::resolve`].
pub(super) struct ResolvedParams {
    pub(super) bridge: Bridge,
    pub(super) params: Vec<ResolvedParam>,
    pub(super) memory: NewMemory,
    /// The model's tensors, one for each parameter; empty if the phase is in place.
    pub(super) weights: Vec<DeviceTensor>,
    pub(super) outputs: Vec<DeviceTensor>,
}

impl PendingResolve {
    /// Weights for the second pass: the outputs, and the weights of parameters that are not perturbed.
    pub(super) fn perturbed(&self) -> Vec<DeviceTensor> {
        let mut outputs = self.outputs.iter();
        let take = |(pending, weight): (&PendingParam, &DeviceTensor)| match pending.perturbed {
            true => outputs.next().unwrap_or(weight).clone(),
            false => weight.clone(),
        };
        self.pending.iter().zip(&self.weights).map(take).collect()
    }

    /// Waits for Burn's servers.
    pub(super) fn finish(self) -> Result<ResolvedParams, WsamError> {
        let Self { bridge, pending, weights, outputs, resolving } = self;
        let resolved = resolving.finish()?;
        let mut tensors = resolved.tensors.into_iter();
        let mut next = || {
            let reason = "Burn returned too few tensors".to_owned();
            tensors.next().ok_or(WsamError::Backend { reason })
        };
        let params = pending
            .into_iter()
            .map(|PendingParam { id, group, perturbed, shape, len, tensor, placed, master }| {
                let weight = placed.map_or_else(&mut next, Ok)?;
                let master = match master {
                    Master::None => None,
                    Master::Placed(memory) => Some(memory),
                    Master::Resolving => Some(next()?),
                };
                let grad = next()?;
                let method_state = MethodState::None;
                Ok(ResolvedParam {
                    id,
                    group,
                    perturbed,
                    shape,
                    len,
                    tensor,
                    weight,
                    master,
                    grad,
                    method_state,
                })
            })
            .collect::<Result<_, WsamError>>()?;
        Ok(ResolvedParams { bridge, params, memory: resolved.new, weights, outputs })
    }
}

impl Fused {
    /// Starts to look up weights and gradients and to allocate `request`. Weights that the last step wrote are not
    /// looked up again.
    pub(super) fn resolve(
        &self,
        context: StepContext<'_>,
        entries: Vec<ParamEntry<DeviceTensor>>,
        request: MemoryRequest,
    ) -> Result<PendingResolve, WsamError> {
        let bridge = match entries.first() {
            Some(first) => Bridge::new(&first.weight),
            // Every parameter with a gradient is empty, so the step has no parameters.
            None => Bridge::new(&OnDevice::from_tensor(Tensor::<1>::zeros([1], context.device))?),
        };
        self.check_sizes(context, &bridge, &entries)?;
        // For each parameter, as far as it is looked up: weight, master weights, gradient.
        let mut tensors = Vec::with_capacity(entries.len());
        let mut weights = Vec::with_capacity(entries.len());
        let mut pending = Vec::with_capacity(entries.len());
        for entry in entries {
            let perturbed = context.in_group(&entry).perturbed;
            let tensor = identity(&entry.weight);
            let placed = self.placed(&entry).map(|weight| weight.memory.clone());
            let shape = entry.weight.shape();
            if placed.is_none() {
                tensors.push(entry.weight.clone());
            }
            let master = self.master(context, &entry, placed.is_some(), &mut tensors)?;
            if !context.in_place {
                weights.push(entry.weight);
            }
            tensors.push(entry.grad);
            let (id, group, len) = (entry.id, entry.group, entry.len as u64);
            let param = PendingParam { id, group, perturbed, shape, len, tensor, placed, master };
            pending.push(param);
        }
        let (outputs, resolving) = match context.in_place {
            true => (Vec::new(), bridge.resolve_in_place(tensors, request)?),
            false => bridge.resolve(tensors, request, Vec::new()),
        };
        Ok(PendingResolve { bridge, pending, weights, outputs, resolving })
    }

    /// The memory of a weight that the last step placed.
    pub(super) fn placed(&self, entry: &ParamEntry<DeviceTensor>) -> Option<&PlacedWeight> {
        let placed = self.weights.get(&entry.id)?;
        (Some(placed.tensor) == identity(&entry.weight)).then_some(placed)
    }

    /// Returns an error for a parameter whose state or master weights are larger than one allocation of Burn.
    /// They are in `f32`, so they may be too large where the weight in half precision is not.
    fn check_sizes(
        &self,
        context: StepContext<'_>,
        bridge: &Bridge,
        entries: &[ParamEntry<DeviceTensor>],
    ) -> Result<(), WsamError> {
        let limit = bridge.largest_allocation();
        let StepContext { hyper, .. } = context;
        let has_states =
            !(hyper.base.state_names().is_empty() && hyper.method.state_names().is_empty());
        for entry in entries {
            let single = has_states || context.has_master(entry);
            let own = AllocSpec::new(entry.len as u64, entry.dtype);
            let spec = if single { AllocSpec::single(entry.len as u64) } else { own };
            let bytes = spec.allocated();
            if bytes > limit {
                let (param, dtype) = (entry.path.clone(), entry.dtype);
                return Err(WsamError::TooLarge { param, dtype, bytes, limit });
            }
        }
        Ok(())
    }
}
