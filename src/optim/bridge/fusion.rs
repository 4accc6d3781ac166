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
use burn::backend::ir::TensorStatus;
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
                bridge.register(handles, output.id, &output.shape, memory);
            }
            *sink.lock().unwrap_or_else(PoisonError::into_inner) = Some(resolved);
            // An error marks the outputs as failed; without it they would only be missing.
            failed.map_or(Ok(()), |reason| Err(ExecutionError::generic(reason)))
        });
        let made = self.fusion.register(here, ir, take);
        self.fusion.flush_queue();
        self.counts.add_tensors(made.len());
        (made, PendingMemory { bridge: self.clone(), result, held: Vec::new() })
    }

    /// As [`resolve`](Self::resolve), for a phase in place: existing tensors get the memory of the request's bindings
    /// and then that of its outputs. On an error they keep that of the bindings.
    ///
    /// Waits for pending operations first, because Burn may run an operation that reads one of these tensors after
    /// this one, though it was registered before. So all tensors exist, and the operation need not name them: Burn
    /// takes over a microsecond for each tensor that an operation names. The operation that releases them afterwards
    /// names them, but the host does not wait for it.
    pub(crate) fn resolve_in_place(
        &self,
        tensors: Vec<DeviceTensor>,
        request: MemoryRequest,
    ) -> Result<PendingMemory, WsamError> {
        let here = StreamId::current();
        // A clone of another thread's tensor is this thread's.
        let own =
            |tensor: DeviceTensor| if tensor.stream == here { tensor } else { tensor.clone() };
        let held: Vec<_> = tensors.into_iter().map(own).collect();
        self.drain()?;
        let read = |tensor: &DeviceTensor| TensorIr {
            id: tensor.id,
            shape: tensor.shape.clone(),
            status: TensorStatus::ReadOnly,
            dtype: tensor.dtype,
        };
        let inputs: Vec<_> = held.iter().map(read).collect();
        let result = Arc::new(Mutex::new(None));
        let (sink, bridge) = (result.clone(), self.clone());
        // Taken out when the operation runs, so that a cached operation does not keep the memory of bindings.
        let once = Mutex::new(Some((inputs, request)));
        let resolve = OperationFn(move |handles: &mut FusionHandles| {
            let taken = once.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some((inputs, request)) = taken {
                let resolved = bridge.resolve_materialized(handles, here, &inputs, &request);
                *sink.lock().unwrap_or_else(PoisonError::into_inner) = Some(resolved);
            }
            Ok(())
        });
        let ir = OperationIr::Custom(CustomOpIr::new("wsam.resolve_in_place", &[], &[]));
        self.fusion.register(here, ir, resolve);
        self.fusion.flush_queue();
        Ok(PendingMemory { bridge: self.clone(), result, held })
    }

    fn resolve_materialized(
        &self,
        handles: &mut FusionHandles,
        here: StreamId,
        inputs: &[TensorIr],
        request: &MemoryRequest,
    ) -> Result<ResolvedMemory, WsamError> {
        request.bindings.iter().for_each(|binding| self.rebind(handles, binding));
        let spec = |ir: &TensorIr| AllocSpec::new(ir.shape.num_elements() as u64, ir.dtype);
        let specs: Vec<_> = inputs.iter().map(spec).collect();
        let tensors: Vec<_> =
            inputs.iter().map(|ir| handle_of(handles, ir)).collect::<Result<_, _>>()?;
        let resolved = resolve(&self.cube, here, tensors, &specs, request)?;
        for (output, memory) in request.outputs.iter().zip(&resolved.new.outputs) {
            if let Some(tensor) = output.tensor {
                self.register(handles, TensorId::new(tensor), &output.shape, memory);
            }
        }
        Ok(resolved)
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
    fn drain(&self) -> Result<(), WsamError> {
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

/// Returns the handle of a tensor that was computed, copied if it is not contiguous.
fn handle_of(handles: &mut FusionHandles, ir: &TensorIr) -> Result<Handle, WsamError> {
    let Some(tensor) = handles.get_handle_ref(&ir.id) else {
        return Err(WsamError::Backend { reason: "Burn could not compute a gradient".to_owned() });
    };
    if tensor.tiles.is_none() && is_contiguous(&ir.shape, &tensor.strides) {
        return Ok(tensor.handle.clone());
    }
    Ok(contiguous(handles.get_float_tensor::<CubeBackend>(ir)))
}

/// Whether these are the strides of a contiguous tensor.
fn is_contiguous(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1;
    let mut dims = shape.iter().zip(strides).rev();
    shape.len() == strides.len()
        && dims.all(|(dim, stride)| {
            let right = *dim == 1 || *stride == expected;
            expected *= dim;
            right
        })
}

/// Result of [`Bridge::resolve`] that Burn's servers have not returned yet.
pub(crate) struct PendingMemory {
    bridge: Bridge,
    result: Arc<Mutex<Option<Result<ResolvedMemory, WsamError>>>>,
    /// Tensors that the operation reads without naming them.
    held: Vec<DeviceTensor>,
}

impl PendingMemory {
    /// Waits for the servers, and returns the result.
    pub(crate) fn finish(self) -> Result<ResolvedMemory, WsamError> {
        self.bridge.drain()?;
        if !self.held.is_empty() {
            self.bridge.release(self.held);
        }
        let result = self.result.lock().unwrap_or_else(PoisonError::into_inner).take();
        result.ok_or_else(|| {
            let reason = "Burn did not run the operation that looks up tensors".to_owned();
            WsamError::Backend { reason }
        })?
    }
}
