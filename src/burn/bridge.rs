//! Between Burn's tensors and ranges of wgpu buffers.

use super::error::WsamError;
use super::slots::Form;
use crate::engine::Slice;
use burn::backend::fusion::custom::{
    CustomOpIr, HandleContainer, OperationFn, OperationIr, TensorIr,
};
use burn::backend::fusion::{
    FusionBackend, FusionHandle, FusionTensor, client::GlobalFusionClient, stream::StreamId,
};
use burn::backend::ops::FloatTensorOps;
use burn::backend::wgpu::{AutoCompiler, CubeBackend, CubeTensor, Wgpu, WgpuResource};
use burn::cubecl::server::Handle;
use burn::cubecl::wgpu::WgpuServer;
use burn::tensor::{DType, Shape, Tensor};
use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

type Runtime = <CubeBackend as FusionBackend>::FusionRuntime;
type FusionHandles = HandleContainer<FusionHandle<Runtime>>;
type CubeClient = burn::cubecl::client::Client;

/// A tensor of Burn's on a wgpu device, of any rank, off the autodiff graph.
pub(crate) type Resident = FusionTensor<Runtime>;

/// Tensors as [`Resident`]s, which cost Burn nothing to take and give.
#[derive(Debug)]
pub(crate) struct OnDevice;

impl Form for OnDevice {
    type Tensor = Resident;

    fn hold<const D: usize>(tensor: Tensor<D>) -> Result<Resident, WsamError> {
        tensor
            .try_into_primitive::<Wgpu>()
            .map_err(|error| WsamError::Backend { reason: format!("{error:?}") })
    }

    fn give<const D: usize>(tensor: Resident, _shape: Shape) -> Tensor<D> {
        Tensor::from_primitive::<Wgpu>(tensor)
    }
}

/// Memory of one tensor: Burn's handle to it, and where it lies. The pin keeps Burn from moving it.
#[derive(Clone)]
pub(crate) struct Memory {
    pub(crate) handle: Handle,
    pub(crate) slice: Slice,
    /// Cubecl's `ManagedResource`, whose type Burn does not export.
    #[allow(dead_code)]
    pin: Arc<dyn Any + Send + Sync>,
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.slice.fmt(f)
    }
}

/// Tensors start on multiples of this, which suits every adapter and Burn's own kernels.
const ALIGNMENT: u64 = 256;

/// The way to one device's servers.
#[derive(Clone)]
pub(crate) struct Bridge {
    fusion: GlobalFusionClient<Runtime>,
    cube: CubeClient,
    device: burn::cubecl::Device,
}

impl std::fmt::Debug for Bridge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bridge").field("device", &self.device).finish_non_exhaustive()
    }
}

impl Bridge {
    /// A bridge to the device of `tensor`.
    pub(crate) fn new(tensor: &Resident) -> Self {
        let fusion = tensor.client.clone();
        let device = fusion.device().clone();
        let cube = device.client();
        Self { fusion, cube, device }
    }

    /// The memory behind `tensors`, and uninitialised memory for tensors of these lengths: an arena
    /// for each list in `arenas`.
    ///
    /// Makes Burn compute whatever the tensors wait for and submit what it has pending, and gives up
    /// `retired` along the way: in one call to its fusion server and one to the device's, each of
    /// which costs far more than what it does here.
    pub(crate) fn resolve(
        &self,
        tensors: Vec<Resident>,
        arenas: Vec<Vec<u64>>,
        retired: Vec<Resident>,
    ) -> Result<Resolved, WsamError> {
        let here = StreamId::current();
        let lens: Vec<_> = tensors.iter().map(|t| t.shape.num_elements() as u64).collect();
        let retired = retired.into_iter().filter(|tensor| tensor.stream == here);
        let inputs: Vec<TensorIr> =
            tensors.into_iter().chain(retired).map(Resident::into_ir).collect();
        let count = lens.len();
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
        self.cube
            .exclusive(|| resolve(&self.cube, here, handles, &lens, &arenas))
            .map_err(|error| failed(error.to_string()))?
    }

    /// Burn tensors of these shapes over memory of an arena.
    pub(crate) fn tensors(&self, memory: &[Memory], shapes: &[Shape]) -> Vec<Resident> {
        let uninit = |shape: &Shape| {
            TensorIr::uninit(self.fusion.create_empty_handle(), shape.clone(), DType::F32)
        };
        let outputs: Vec<_> = shapes.iter().map(uninit).collect();
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

/// What [`Bridge::resolve`] found and made.
pub(crate) struct Resolved {
    pub(crate) tensors: Vec<Memory>,
    pub(crate) arenas: Vec<Vec<Memory>>,
}

/// Runs where Burn's server runs, so that its calls are plain ones.
fn resolve(
    cube: &CubeClient,
    here: StreamId,
    tensors: Vec<Handle>,
    lens: &[u64],
    arenas: &[Vec<u64>],
) -> Result<Resolved, WsamError> {
    // Before anything is allocated: what was given up is free once the work on it is submitted.
    let mut streams = vec![here];
    for handle in &tensors {
        if !streams.contains(&handle.stream) {
            streams.push(handle.stream);
        }
    }
    for stream in streams {
        stream
            .executes(|| cube.flush())
            .map_err(|error| WsamError::Backend { reason: error.to_string() })?;
    }
    let tensors = tensors.into_iter().zip(lens).map(|(handle, len)| locate(cube, handle, *len));
    Ok(Resolved {
        tensors: tensors.collect::<Result<_, _>>()?,
        arenas: arenas.iter().map(|lens| arena(cube, lens)).collect::<Result<_, _>>()?,
    })
}

/// The buffer behind a handle.
fn locate(cube: &CubeClient, handle: Handle, len: u64) -> Result<Memory, WsamError> {
    let resource = cube
        .get_resource::<WgpuServer<AutoCompiler>>(handle.clone())
        .map_err(|error| WsamError::Backend { reason: error.to_string() })?;
    let WgpuResource { buffer, offset, size, .. } = resource.resource().clone();
    if size < 4 * len {
        let reason = format!("a buffer of {size} bytes was handed out for {len} f32 elements");
        return Err(WsamError::Backend { reason });
    }
    Ok(Memory { handle, slice: Slice { buffer, offset, len }, pin: Arc::new(resource) })
}

/// Memory for tensors of these lengths, in as few pieces as the adapter's largest binding allows.
///
/// It is Burn's own memory, so a piece is given out again only when no tensor and no work that Burn
/// has pending refers to it. In a training loop that makes two arenas for weights take turns, unless
/// a clone of the model holds on to one.
fn arena(cube: &CubeClient, lens: &[u64]) -> Result<Vec<Memory>, WsamError> {
    let largest = cube.properties().memory.max_page_size;
    let mut pieces: Vec<(u64, Vec<(u64, u64)>)> = Vec::new();
    for len in lens {
        let room = (4 * len).next_multiple_of(ALIGNMENT);
        match pieces.last_mut() {
            Some((end, places)) if *end + room <= largest => {
                places.push((*end, *len));
                *end += room;
            }
            _ => pieces.push((room, vec![(0, *len)])),
        }
    }
    let mut memory = Vec::with_capacity(lens.len());
    for (size, places) in pieces {
        let piece = locate(cube, cube.empty(size as usize), size / 4)?;
        memory.extend(places.into_iter().map(|(start, len)| Memory {
            handle: piece.handle.clone().offset_start(start).offset_end(size - start - 4 * len),
            slice: Slice { offset: piece.slice.offset + start, len, ..piece.slice.clone() },
            pin: piece.pin.clone(),
        }));
    }
    Ok(memory)
}

/// The tensor's memory, laid out afresh if it is not contiguous.
fn contiguous(cube: CubeTensor) -> Handle {
    if cube.is_contiguous() {
        return cube.handle;
    }
    // Undoes a transposition, for one; element by element it would survive.
    let len = cube.meta.num_elements();
    let flat = CubeBackend::float_reshape(cube, Shape::from([len]));
    if flat.is_contiguous() {
        return flat.handle;
    }
    // A broadcast gradient. x - 0 is x for every x.
    CubeBackend::float_sub_scalar(flat, 0.0f32.into()).handle
}
