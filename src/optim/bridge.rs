//! Maps Burn's tensors to ranges of wgpu buffers.
//!
//! With Burn's feature `fusion` a tensor is a lazy handle that a server evaluates; without it a tensor holds
//! its buffer. Each case has its own [`Bridge`].

#[cfg(not(feature = "fusion"))]
mod direct;
#[cfg(feature = "fusion")]
mod fusion;
mod memory;

#[cfg(not(feature = "fusion"))]
pub(crate) use direct::{Bridge, DeviceTensor, PendingMemory, identity};
#[cfg(feature = "fusion")]
pub(crate) use fusion::{Bridge, DeviceTensor, PendingMemory, identity};
pub(crate) use memory::{
    AllocSpec, Binding, BridgeCounts, Memory, MemoryRequest, NewMemory, OutputSpec,
};

use super::error::WsamError;
use super::params::TensorLayout;
use burn::backend::TensorMetadata;
use burn::backend::wgpu::Wgpu;
use burn::tensor::{Shape, Tensor};

/// Tensors as [`DeviceTensor`]s, which convert to and from Burn tensors without a copy.
#[derive(Debug)]
pub(crate) struct OnDevice;

impl TensorLayout for OnDevice {
    type Tensor = DeviceTensor;

    // Without fusion a tensor holds its memory, and clones of it cannot be told from others.
    const MAY_MOVE: bool = cfg!(feature = "fusion");

    fn is_shared<const D: usize>(tensor: Tensor<D>) -> (bool, Tensor<D>) {
        let tensor = tensor.into_dispatch();
        (!tensor.can_mut(), Tensor::from_dispatch(tensor))
    }

    fn from_tensor<const D: usize>(tensor: Tensor<D>) -> Result<DeviceTensor, WsamError> {
        tensor
            .try_into_primitive::<Wgpu>()
            .map_err(|error| WsamError::Backend { reason: format!("{error:?}") })
    }

    fn into_tensor<const D: usize>(tensor: DeviceTensor, _shape: Shape) -> Tensor<D> {
        Tensor::from_primitive::<Wgpu>(tensor)
    }
}

impl Bridge {
    /// Counts of all that was asked of this bridge and its clones.
    pub(crate) fn counts(&self) -> &BridgeCounts {
        &self.counts
    }
}

impl std::fmt::Debug for Bridge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bridge").field("device", &self.device).finish_non_exhaustive()
    }
}
