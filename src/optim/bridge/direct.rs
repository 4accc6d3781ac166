//! The bridge without Burn's fusion, where a tensor holds its memory.

use super::memory::{
    AllocSpec, Binding, BridgeCounts, CubeClient, Memory, MemoryRequest, ResolvedMemory,
    contiguous, largest_allocation, resolve,
};
use crate::optim::error::WsamError;
use burn::backend::StreamId;
use burn::backend::wgpu::CubeTensor;
use burn::tensor::Shape;
use std::sync::Arc;

/// A Burn tensor on a wgpu device, of any rank, without autodiff.
pub(crate) type DeviceTensor = CubeTensor;

/// Always `None`: no readable property identifies a tensor's value, so each step looks its memory up again.
pub(crate) fn identity(_tensor: &DeviceTensor) -> Option<u64> {
    None
}

/// Connection to one device's server.
#[derive(Clone)]
pub(crate) struct Bridge {
    cube: CubeClient,
    pub(super) device: burn::cubecl::Device,
    pub(super) counts: Arc<BridgeCounts>,
}

impl Bridge {
    /// A bridge to the device of `tensor`.
    pub(crate) fn new(tensor: &DeviceTensor) -> Self {
        let (cube, device) = (tensor.client.clone(), tensor.device.clone());
        Self { cube, device, counts: Arc::default() }
    }

    /// Looks up the memory of `tensors` and allocates `request`. Returns tensors over its outputs.
    ///
    /// Drops `released` and makes Burn submit its pending work before it allocates.
    pub(crate) fn resolve(
        &self,
        tensors: Vec<DeviceTensor>,
        request: MemoryRequest,
        released: Vec<DeviceTensor>,
    ) -> (Vec<DeviceTensor>, PendingMemory) {
        drop(released);
        let spec = |t: &DeviceTensor| AllocSpec::new(t.meta.num_elements() as u64, t.dtype);
        let specs: Vec<_> = tensors.iter().map(spec).collect();
        let handles = tensors.into_iter().map(contiguous).collect();
        let resolved = resolve(&self.cube, StreamId::current(), handles, &specs, &request);
        self.counts.add_call();
        let made = match &resolved {
            Ok(ResolvedMemory { new, .. }) => {
                let shapes = request.outputs.iter().map(|output| &output.shape);
                self.tensors(new.outputs.iter().zip(shapes))
            }
            Err(_) => Vec::new(),
        };
        (made, PendingMemory(resolved))
    }

    /// Not called: without fusion no phase is in place.
    pub(crate) fn resolve_in_place(
        &self,
        tensors: Vec<DeviceTensor>,
        request: MemoryRequest,
    ) -> Result<PendingMemory, WsamError> {
        Ok(self.resolve(tensors, request, Vec::new()).1)
    }

    /// Burn tensors of these shapes over memory of an arena.
    pub(crate) fn tensors<'a>(
        &self,
        memory: impl Iterator<Item = (&'a Memory, &'a Shape)>,
    ) -> Vec<DeviceTensor> {
        let tensor = |(memory, shape): (&Memory, &Shape)| {
            let (client, device) = (self.cube.clone(), self.device.clone());
            let handle = memory.handle.clone();
            CubeTensor::new_contiguous(client, device, shape.clone(), handle, memory.dtype())
        };
        let made: Vec<_> = memory.map(tensor).collect();
        self.counts.add_tensors(made.len());
        made
    }

    /// Does nothing: without fusion no tensor has an [`identity`].
    pub(crate) fn bind(&self, _bindings: &Arc<Vec<Binding>>) -> Result<(), WsamError> {
        Ok(())
    }

    /// The largest size of a tensor in bytes.
    pub(crate) fn largest_allocation(&self) -> u64 {
        largest_allocation(&self.cube)
    }

    /// Drops tensors.
    pub(crate) fn release(&self, tensors: Vec<DeviceTensor>) {
        drop(tensors);
    }
}

/// Result of [`Bridge::resolve`], which is complete at once without fusion.
pub(crate) struct PendingMemory(Result<ResolvedMemory, WsamError>);

impl PendingMemory {
    /// Returns the result.
    pub(crate) fn finish(self) -> Result<ResolvedMemory, WsamError> {
        self.0
    }
}
