//! Without Burn's fusion: a tensor is its memory.

use super::{AllocSpec, CubeClient, Memory, ResolvedMemory, contiguous, resolve};
use crate::burn::error::WsamError;
use burn::backend::StreamId;
use burn::backend::wgpu::CubeTensor;
use burn::tensor::Shape;

/// A tensor of Burn's on a wgpu device, of any rank, off the autodiff graph.
pub(crate) type DeviceTensor = CubeTensor;

/// Nothing that can be read tells one tensor's value from another's: its memory is looked up anew.
pub(crate) fn identity(_tensor: &DeviceTensor) -> Option<u64> {
    None
}

/// The way to one device's server.
#[derive(Clone)]
pub(crate) struct Bridge {
    cube: CubeClient,
    pub(super) device: burn::cubecl::Device,
}

impl Bridge {
    /// A bridge to the device of `tensor`.
    pub(crate) fn new(tensor: &DeviceTensor) -> Self {
        Self { cube: tensor.client.clone(), device: tensor.device.clone() }
    }

    /// Finds the memory behind `tensors`, and makes an arena of uninitialised memory for each list in
    /// `arenas`; gives back tensors of these `shapes` over the first of them.
    ///
    /// Makes Burn submit what it has pending, and gives up `released` before anything is allocated.
    pub(crate) fn resolve(
        &self,
        tensors: Vec<DeviceTensor>,
        arenas: Vec<Vec<AllocSpec>>,
        released: Vec<DeviceTensor>,
        shapes: &[Shape],
    ) -> (Vec<DeviceTensor>, PendingMemory) {
        drop(released);
        let spec = |t: &DeviceTensor| AllocSpec::new(t.meta.num_elements() as u64, t.dtype);
        let specs: Vec<_> = tensors.iter().map(spec).collect();
        let handles = tensors.into_iter().map(contiguous).collect();
        let resolved = resolve(&self.cube, StreamId::current(), handles, &specs, &arenas);
        let first = resolved.iter().flat_map(|resolved| resolved.arenas.first());
        let made = first.flat_map(|memory| self.tensors(memory, shapes)).collect();
        (made, PendingMemory(resolved))
    }

    /// Burn tensors of these shapes over memory of an arena.
    pub(crate) fn tensors(&self, memory: &[Memory], shapes: &[Shape]) -> Vec<DeviceTensor> {
        let tensor = |(memory, shape): (&Memory, &Shape)| {
            let (client, device) = (self.cube.clone(), self.device.clone());
            let handle = memory.handle.clone();
            CubeTensor::new_contiguous(client, device, shape.clone(), handle, memory.dtype())
        };
        memory.iter().zip(shapes).map(tensor).collect()
    }

    /// The most bytes that a tensor may have.
    pub(crate) fn largest_allocation(&self) -> u64 {
        super::largest_allocation(&self.cube)
    }

    /// Gives tensors up.
    pub(crate) fn release(&self, tensors: Vec<DeviceTensor>) {
        drop(tensors);
    }
}

/// Found, or not.
pub(crate) struct PendingMemory(Result<ResolvedMemory, WsamError>);

impl PendingMemory {
    /// What was found and made.
    pub(crate) fn finish(self) -> Result<ResolvedMemory, WsamError> {
        self.0
    }
}
