//! The bridge through Burn's fusion server.

use super::memory::{
    AllocSpec, Binding, BridgeCounts, CubeClient, Memory, MemoryRequest, OutputSpec,
    ResolvedMemory, contiguous, largest_allocation, resolve,
};
use crate::optim::error::WsamError;
use burn::backend::fusion::custom::{
    CustomOpIr, HandleContainer, OperationFn, OperationIr, TensorId, TensorIr,
};
use burn::backend::fusion::{
    FusionBackend, FusionHandle, FusionTensor, client::GlobalFusionClient, stream::StreamId,
};
use burn::backend::wgpu::{CubeBackend, CubeTensor};
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
    pub(super) counts: Arc<BridgeCounts>,
}

impl Bridge {
    /// A bridge to the device of `tensor`.
    pub(crate) fn new(tensor: &DeviceTensor) -> Self {
        let fusion = tensor.client.clone();
        let device = fusion.device().clone();
        let cube = device.client();
        Self { fusion, cube, device, counts: Arc::default() }
    }

    /// Starts to look up the memory of `tensors` and to allocate `request`. Returns tensors over its outputs, which
    /// must not be read before [`PendingMemory::finish`] has returned and a kernel has written them.
    ///
    /// One call to the fusion server, which makes one call to the device's server: it computes what the tensors
    /// depend on, submits pending work, and drops `released`. A server call costs far more than the work in it,
    /// so the caller continues in the meantime.
    ///
    /// If the request has bindings, or outputs for existing tensors, call [`drain`](Self::drain) first: Burn may run
    /// an operation that reads one of these tensors after this one, though it was registered before.
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
        let new = request.outputs.iter().filter(|output| output.tensor.is_none());
        let uninit = |output: &OutputSpec| self.uninit(&output.shape, output.spec.dtype());
        let outputs: Vec<_> = new.map(uninit).collect();
        let ir = OperationIr::Custom(CustomOpIr::new("wsam.resolve", &inputs, &outputs));
        let result = Arc::new(Mutex::new(None));
        let (sink, bridge) = (result.clone(), self.clone());
        // Taken out when the operation runs, so that a cached operation does not keep the memory of bindings.
        let once = Mutex::new(Some(request));
        let take = OperationFn(move |handles: &mut FusionHandles| {
            let Some(request) = once.lock().unwrap_or_else(PoisonError::into_inner).take() else {
                return Ok(());
            };
            request.bindings.iter().for_each(|binding| bridge.rebind(handles, binding));
            let (tensors, released) = inputs.split_at(specs.len());
            let take = |ir| contiguous(handles.get_float_tensor::<CubeBackend>(ir));
            let tensors = tensors.iter().map(take).collect();
            for ir in released {
                drop(handles.get_float_tensor::<CubeBackend>(ir));
            }
            let resolved = resolve(&bridge.cube, here, tensors, &specs, &request);
            let failed = resolved.as_ref().err().map(ToString::to_string);
            let memory = resolved.iter().flat_map(|resolved| &resolved.new.outputs);
            let mut new = outputs.iter().map(|output| output.id);
            for (output, memory) in request.outputs.iter().zip(memory) {
                let id = output.tensor.map(TensorId::new).or_else(|| new.next());
                id.into_iter().for_each(|id| bridge.register(handles, id, &output.shape, memory));
            }
            *sink.lock().unwrap_or_else(PoisonError::into_inner) = Some(resolved);
            // An error marks the outputs as failed; without it they would only be missing.
            failed.map_or(Ok(()), |reason| Err(ExecutionError::generic(reason)))
        });
        let made = self.fusion.register(here, ir, take);
        self.fusion.flush_queue();
        self.counts.add_tensors(made.len());
        (made, PendingMemory { bridge: self.clone(), result })
    }

    fn uninit(&self, shape: &Shape, dtype: DType) -> TensorIr {
        TensorIr::uninit(self.fusion.create_empty_handle(), shape.clone(), dtype)
    }

    fn register(&self, handles: &mut FusionHandles, id: TensorId, shape: &Shape, memory: &Memory) {
        let (cube, device, shape) = (self.cube.clone(), self.device.clone(), shape.clone());
        let handle = memory.handle.clone();
        let tensor = CubeTensor::new_contiguous(cube, device, shape, handle, memory.dtype());
        handles.register_float_tensor::<CubeBackend>(&id, tensor);
    }

    fn rebind(&self, handles: &mut FusionHandles, binding: &Binding) {
        let id = TensorId::new(binding.tensor);
        self.register(handles, id, &binding.shape, &binding.memory);
    }

    /// Runs the pending operations of this thread.
    pub(crate) fn drain(&self) -> Result<(), WsamError> {
        let failed = |error| WsamError::Backend { reason: format!("{error:?}") };
        self.counts.add_call();
        self.fusion.try_sync(|| ()).map_err(failed)
    }

    /// Gives tensors other memory. Operations that were registered before read the memory that the tensors had.
    pub(crate) fn bind(&self, bindings: &Arc<Vec<Binding>>) -> Result<(), WsamError> {
        self.drain()?;
        let ir = OperationIr::Custom(CustomOpIr::new("wsam.bind", &[], &[]));
        let (bridge, once) = (self.clone(), Mutex::new(Some(bindings.clone())));
        let bind = OperationFn(move |handles: &mut FusionHandles| {
            let taken = once.lock().unwrap_or_else(PoisonError::into_inner).take();
            for binding in taken.iter().flat_map(|bindings| bindings.iter()) {
                bridge.rebind(handles, binding);
            }
            Ok(())
        });
        self.fusion.register(StreamId::current(), ir, bind);
        self.drain()
    }

    /// Burn tensors of these shapes over memory of an arena.
    pub(crate) fn tensors<'a>(
        &self,
        memory: impl Iterator<Item = (&'a Memory, &'a Shape)>,
    ) -> Vec<DeviceTensor> {
        let made = |(memory, shape): (&Memory, &Shape)| {
            (self.uninit(shape, memory.dtype()), memory.clone())
        };
        let (outputs, memory): (Vec<_>, Vec<_>) = memory.map(made).unzip();
        let ir = OperationIr::Custom(CustomOpIr::new("wsam", &[], &outputs));
        let bridge = self.clone();
        // The operation runs once and takes the memory out, so that a cached operation does not keep it.
        let once = Mutex::new(Some((outputs, memory)));
        let register = OperationFn(move |registry: &mut FusionHandles| {
            let taken = once.lock().unwrap_or_else(PoisonError::into_inner).take();
            let (outputs, memory): (Vec<TensorIr>, Vec<Memory>) = taken.unwrap_or_default();
            for (output, memory) in outputs.iter().zip(&memory) {
                bridge.register(registry, output.id, &output.shape, memory);
            }
            Ok(())
        });
        let made = self.fusion.register(StreamId::current(), ir, register);
        self.counts.add_tensors(made.len());
        made
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
    bridge: Bridge,
    result: Arc<Mutex<Option<Result<ResolvedMemory, WsamError>>>>,
}

impl PendingMemory {
    /// Waits for the servers, and returns the result.
    pub(crate) fn finish(self) -> Result<ResolvedMemory, WsamError> {
        self.bridge.drain()?;
        let result = self.result.lock().unwrap_or_else(PoisonError::into_inner).take();
        result.ok_or_else(|| {
            let reason = "Burn did not run the operation that looks up tensors".to_owned();
            WsamError::Backend { reason }
        })?
    }
}
