//! The bridge through Burn's fusion server.

use super::memory::{
    AllocSpec, CubeClient, Memory, MemoryRequest, OutputSpec, ResolvedMemory, contiguous,
    largest_allocation, resolve,
};
use crate::optim::error::WsamError;
use burn::backend::fusion::custom::{
    CustomOpIr, HandleContainer, OperationFn, OperationIr, TensorIr,
};
use burn::backend::fusion::{
    FusionBackend, FusionHandle, FusionTensor, client::GlobalFusionClient, stream::StreamId,
};
use burn::backend::wgpu::{CubeBackend, CubeTensor};
use burn::cubecl::server::Handle;
use burn::tensor::{DType, ExecutionError, Shape};
use std::sync::{Arc, Mutex, PoisonError};

type Runtime = <CubeBackend as FusionBackend>::FusionRuntime;
type FusionHandles = HandleContainer<FusionHandle<Runtime>>;

/// A Burn tensor on a wgpu device, of any rank, without autodiff.
pub(crate) type DeviceTensor = FusionTensor<Runtime>;

/// Id of the tensor's value. Fusion never reuses an id.
pub(crate) fn identity(tensor: &DeviceTensor) -> Option<u64> {
    Some(tensor.id.value())
}

/// Connection to one device's servers.
#[derive(Clone)]
pub(crate) struct Bridge {
    fusion: GlobalFusionClient<Runtime>,
    cube: CubeClient,
    pub(super) device: burn::cubecl::Device,
}

impl Bridge {
    /// A bridge to the device of `tensor`.
    pub(crate) fn new(tensor: &DeviceTensor) -> Self {
        let fusion = tensor.client.clone();
        let device = fusion.device().clone();
        let cube = device.client();
        Self { fusion, cube, device }
    }

    /// Starts to look up the memory of `tensors` and to allocate `request`. Returns tensors over its outputs, which
    /// must not be read before [`PendingMemory::finish`] has returned and a kernel has written them.
    ///
    /// One call to the fusion server, which makes one call to the device's server: it computes what the tensors
    /// depend on, submits pending work, and drops `released`. A server call costs far more than the work in it,
    /// so the caller continues in the meantime.
    pub(crate) fn resolve(
        &self,
        tensors: Vec<DeviceTensor>,
        request: MemoryRequest,
        released: Vec<DeviceTensor>,
    ) -> (Vec<DeviceTensor>, PendingMemory) {
        let here = StreamId::current();
        let spec = |t: &DeviceTensor| AllocSpec::new(t.shape.num_elements() as u64, t.dtype);
        let specs: Vec<_> = tensors.iter().map(spec).collect();
        let released = released.into_iter().filter(|tensor| tensor.stream == here);
        let inputs: Vec<TensorIr> =
            tensors.into_iter().chain(released).map(DeviceTensor::into_ir).collect();
        let uninit = |output: &OutputSpec| self.uninit(&output.shape, output.spec.dtype());
        let outputs: Vec<_> = request.outputs.iter().map(uninit).collect();
        let ir = OperationIr::Custom(CustomOpIr::new("wsam.resolve", &inputs, &outputs));
        let result = Arc::new(Mutex::new(None));
        let (sink, bridge) = (result.clone(), self.clone());
        let take = OperationFn(move |handles: &mut FusionHandles| {
            let (tensors, released) = inputs.split_at(specs.len());
            let take = |ir| contiguous(handles.get_float_tensor::<CubeBackend>(ir));
            let tensors = tensors.iter().map(take).collect();
            for ir in released {
                drop(handles.get_float_tensor::<CubeBackend>(ir));
            }
            let resolved = resolve(&bridge.cube, here, tensors, &specs, &request);
            let failed = resolved.as_ref().err().map(ToString::to_string);
            let memory = resolved.iter().flat_map(|resolved| &resolved.new.outputs);
            for (output, memory) in outputs.iter().zip(memory) {
                bridge.register(handles, output, memory.handle.clone());
            }
            *sink.lock().unwrap_or_else(PoisonError::into_inner) = Some(resolved);
            // An error marks the outputs as failed; without it they would only be missing.
            failed.map_or(Ok(()), |reason| Err(ExecutionError::generic(reason)))
        });
        let made = self.fusion.register(here, ir, take);
        self.fusion.flush_queue();
        (made, PendingMemory { fusion: self.fusion.clone(), result })
    }

    fn uninit(&self, shape: &Shape, dtype: DType) -> TensorIr {
        TensorIr::uninit(self.fusion.create_empty_handle(), shape.clone(), dtype)
    }

    fn register(&self, handles: &mut FusionHandles, output: &TensorIr, memory: Handle) {
        let (cube, device, shape) = (self.cube.clone(), self.device.clone(), output.shape.clone());
        let tensor = CubeTensor::new_contiguous(cube, device, shape, memory, output.dtype);
        handles.register_float_tensor::<CubeBackend>(&output.id, tensor);
    }

    /// Burn tensors of these shapes over memory of an arena.
    pub(crate) fn tensors<'a>(
        &self,
        memory: impl Iterator<Item = (&'a Memory, &'a Shape)>,
    ) -> Vec<DeviceTensor> {
        let made = |(memory, shape): (&Memory, &Shape)| {
            (self.uninit(shape, memory.dtype()), memory.handle.clone())
        };
        let (outputs, handles): (Vec<_>, Vec<_>) = memory.map(made).unzip();
        let ir = OperationIr::Custom(CustomOpIr::new("wsam", &[], &outputs));
        let bridge = self.clone();
        // The operation runs once and takes the handles out, so that a cached operation does not keep the memory.
        let once = Mutex::new(Some((outputs, handles)));
        let register = OperationFn(move |registry: &mut FusionHandles| {
            let taken = once.lock().unwrap_or_else(PoisonError::into_inner).take();
            let (outputs, handles) = taken.unwrap_or_default();
            for (output, handle) in outputs.iter().zip(handles) {
                bridge.register(registry, output, handle);
            }
            Ok(())
        });
        self.fusion.register(StreamId::current(), ir, register)
    }

    /// The largest size of a tensor in bytes.
    pub(crate) fn largest_allocation(&self) -> u64 {
        largest_allocation(&self.cube)
    }

    /// Drops tensors in one call to Burn's fusion server instead of one call a tensor. Tensors with other
    /// references, and those of other threads, are dropped as usual.
    pub(crate) fn release(&self, tensors: Vec<DeviceTensor>) {
        let here = StreamId::current();
        let inputs: Vec<TensorIr> = tensors
            .into_iter()
            .filter(|tensor| tensor.stream == here)
            .map(DeviceTensor::into_ir)
            .collect();
        let ir = OperationIr::Custom(CustomOpIr::new("wsam.release", &inputs, &[]));
        let release = OperationFn(move |handles: &mut FusionHandles| {
            inputs.iter().for_each(|ir| drop(handles.get_float_tensor::<CubeBackend>(ir)));
            Ok(())
        });
        self.fusion.register(here, ir, release);
    }
}

/// Result of [`Bridge::resolve`] that Burn's servers have not returned yet.
pub(crate) struct PendingMemory {
    fusion: GlobalFusionClient<Runtime>,
    result: Arc<Mutex<Option<Result<ResolvedMemory, WsamError>>>>,
}

impl PendingMemory {
    /// Waits for the servers, and returns the result.
    pub(crate) fn finish(self) -> Result<ResolvedMemory, WsamError> {
        let failed = |reason: String| WsamError::Backend { reason };
        self.fusion.try_sync(|| ()).map_err(|error| failed(format!("{error:?}")))?;
        let result = self.result.lock().unwrap_or_else(PoisonError::into_inner).take();
        result.ok_or_else(|| {
            failed("Burn did not run the operation that looks up tensors".to_owned())
        })?
    }
}
