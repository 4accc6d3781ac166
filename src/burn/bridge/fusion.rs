//! The way through Burn's fusion server.

use super::{CubeClient, Memory, Resolved, Room, contiguous, resolve};
use crate::burn::error::WsamError;
use burn::backend::fusion::custom::{
    CustomOpIr, HandleContainer, OperationFn, OperationIr, TensorIr,
};
use burn::backend::fusion::{
    FusionBackend, FusionHandle, FusionTensor, client::GlobalFusionClient, stream::StreamId,
};
use burn::backend::wgpu::{CubeBackend, CubeTensor};
use burn::cubecl::server::Handle;
use burn::tensor::Shape;
use std::sync::{Arc, Mutex, PoisonError};

type Runtime = <CubeBackend as FusionBackend>::FusionRuntime;
type FusionHandles = HandleContainer<FusionHandle<Runtime>>;

/// A tensor of Burn's on a wgpu device, of any rank, off the autodiff graph.
pub(crate) type Resident = FusionTensor<Runtime>;

/// What tells a tensor's value from every other: fusion never uses an id again.
pub(crate) fn identity(tensor: &Resident) -> Option<u64> {
    Some(tensor.id.value())
}

/// The way to one device's servers.
#[derive(Clone)]
pub(crate) struct Bridge {
    fusion: GlobalFusionClient<Runtime>,
    cube: CubeClient,
    pub(super) device: burn::cubecl::Device,
}

impl Bridge {
    /// A bridge to the device of `tensor`.
    pub(crate) fn new(tensor: &Resident) -> Self {
        let fusion = tensor.client.clone();
        let device = fusion.device().clone();
        let cube = device.client();
        Self { fusion, cube, device }
    }

    /// The memory behind `tensors`, and uninitialised memory for tensors of these sizes: an arena
    /// for each list in `arenas`.
    ///
    /// Makes Burn compute whatever the tensors wait for and submit what it has pending, and gives up
    /// `retired` along the way: in one call to its fusion server and one to the device's, each of
    /// which costs far more than what it does here.
    pub(crate) fn resolve(
        &self,
        tensors: Vec<Resident>,
        arenas: Vec<Vec<Room>>,
        retired: Vec<Resident>,
    ) -> Result<Resolved, WsamError> {
        let here = StreamId::current();
        let room = |t: &Resident| Room::new(t.shape.num_elements() as u64, t.dtype);
        let rooms: Vec<_> = tensors.iter().map(room).collect();
        let retired = retired.into_iter().filter(|tensor| tensor.stream == here);
        let inputs: Vec<TensorIr> =
            tensors.into_iter().chain(retired).map(Resident::into_ir).collect();
        let count = rooms.len();
        let found = Arc::new(Mutex::new(Vec::with_capacity(count)));
        let ir = OperationIr::Custom(CustomOpIr::new("wsam.resolve", &inputs, &[]));
        let sink = found.clone();
        let take = OperationFn(move |handles: &mut FusionHandles| {
            let mut sink = sink.lock().unwrap_or_else(PoisonError::into_inner);
            let (tensors, retired) = inputs.split_at(count);
            for ir in tensors {
                sink.push(contiguous(handles.get_float_tensor::<CubeBackend>(ir)));
            }
            for ir in retired {
                drop(handles.get_float_tensor::<CubeBackend>(ir));
            }
            Ok(())
        });
        self.fusion.register(here, ir, take);
        let failed = |reason: String| WsamError::Backend { reason };
        self.fusion.try_sync(|| ()).map_err(|error| failed(format!("{error:?}")))?;
        let handles: Vec<Handle> =
            std::mem::take(&mut *found.lock().unwrap_or_else(PoisonError::into_inner));
        if handles.len() != count {
            return Err(failed(format!("{} of {count} tensors were resolved", handles.len())));
        }
        resolve(&self.cube, here, handles, &rooms, &arenas)
    }

    /// Burn tensors of these shapes over memory of an arena.
    pub(crate) fn tensors(&self, memory: &[Memory], shapes: &[Shape]) -> Vec<Resident> {
        let uninit = |(shape, memory): (&Shape, &Memory)| {
            TensorIr::uninit(self.fusion.create_empty_handle(), shape.clone(), memory.dtype())
        };
        let outputs: Vec<_> = shapes.iter().zip(memory).map(uninit).collect();
        let ir = OperationIr::Custom(CustomOpIr::new("wsam", &[], &outputs));
        let handles: Vec<_> = memory.iter().map(|memory| memory.handle.clone()).collect();
        let (cube, device) = (self.cube.clone(), self.device.clone());
        // Taken by the one execution there is: an operation that is kept must not keep the memory.
        let once = Mutex::new(Some((outputs, handles)));
        let register = OperationFn(move |registry: &mut FusionHandles| {
            let taken = once.lock().unwrap_or_else(PoisonError::into_inner).take();
            let (outputs, handles) = taken.unwrap_or_default();
            for (output, handle) in outputs.into_iter().zip(handles) {
                let (client, device) = (cube.clone(), device.clone());
                let tensor =
                    CubeTensor::new_contiguous(client, device, output.shape, handle, output.dtype);
                registry.register_float_tensor::<CubeBackend>(&output.id, tensor);
            }
            Ok(())
        });
        self.fusion.register(StreamId::current(), ir, register)
    }

    /// Gives tensors up in one call to Burn's fusion server, where dropping each would take a call
    /// for each. Tensors that others refer to, and those of other threads, are dropped as usual.
    pub(crate) fn retire(&self, tensors: Vec<Resident>) {
        let here = StreamId::current();
        let inputs: Vec<TensorIr> = tensors
            .into_iter()
            .filter(|tensor| tensor.stream == here)
            .map(Resident::into_ir)
            .collect();
        let ir = OperationIr::Custom(CustomOpIr::new("wsam.retire", &inputs, &[]));
        let retire = OperationFn(move |handles: &mut FusionHandles| {
            inputs.iter().for_each(|ir| drop(handles.get_float_tensor::<CubeBackend>(ir)));
            Ok(())
        });
        self.fusion.register(here, ir, retire);
    }
}
