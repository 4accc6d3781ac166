//! Between Burn's tensors and ranges of wgpu buffers.

use super::error::WsamError;
use crate::engine::Slice;
use burn::backend::fusion::custom::{CustomOpIr, OperationFn, OperationIr, TensorIr};
use burn::backend::fusion::{FusionBackend, client::GlobalFusionClient, stream::StreamId};
use burn::backend::ops::FloatTensorOps;
use burn::backend::wgpu::{AutoCompiler, CubeBackend, CubeTensor, Wgpu, WgpuResource};
use burn::cubecl::server::Handle;
use burn::cubecl::wgpu::WgpuServer;
use burn::tensor::{DType, Shape, Tensor};
use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

type FusionClient = GlobalFusionClient<<CubeBackend as FusionBackend>::FusionRuntime>;
type CubeClient = burn::cubecl::client::Client;

/// Tensors start on multiples of this, which suits every adapter and Burn's own kernels.
const ALIGNMENT: u64 = 256;

/// Work that touches Burn's buffers from outside Burn.
///
/// Keeps every buffer it resolved alive and in place until it is dropped: hold it until the
/// commands that use them are submitted.
pub(crate) struct Bridge {
    fusion: FusionClient,
    cube: CubeClient,
    device: burn::cubecl::Device,
    /// Cubecl's `ManagedResource`s, whose type Burn does not export.
    pins: Vec<Box<dyn Any>>,
    streams: Vec<StreamId>,
}

impl Bridge {
    /// A bridge to the device of `tensor`.
    pub(crate) fn new(tensor: Tensor<1>) -> Result<Self, WsamError> {
        let fusion = primitive(tensor)?.client.clone();
        let device = fusion.device().clone();
        let cube = device.client();
        Ok(Self { fusion, cube, device, pins: Vec::new(), streams: vec![StreamId::current()] })
    }

    /// The memory behind tensors. Makes Burn compute whatever they wait for, in one call to its
    /// fusion server.
    pub(crate) fn resolve(
        &self,
        tensors: impl Iterator<Item = Tensor<1>>,
    ) -> Result<Vec<Handle>, WsamError> {
        let inputs = tensors
            .map(|tensor| Ok(primitive(tensor)?.into_ir()))
            .collect::<Result<Vec<TensorIr>, WsamError>>()?;
        let count = inputs.len();
        let found = Arc::new(Mutex::new(Vec::with_capacity(count)));
        let ir = OperationIr::Custom(CustomOpIr::new("wsam.resolve", &inputs, &[]));
        let sink = found.clone();
        let resolve = OperationFn(move |handles: &mut FusionHandles| {
            let cubes = inputs.iter().map(|input| handles.get_float_tensor::<CubeBackend>(input));
            sink.lock().unwrap_or_else(PoisonError::into_inner).extend(cubes);
            Ok(())
        });
        let stream = StreamId::current();
        self.fusion.register(stream, ir, resolve);
        let drained = self.fusion.try_sync(|| ());
        drained.map_err(|error| WsamError::Backend { reason: format!("{error:?}") })?;
        let cubes: Vec<CubeTensor> =
            std::mem::take(&mut *found.lock().unwrap_or_else(PoisonError::into_inner));
        if cubes.len() != count {
            let reason = format!("{} of {count} tensors could be resolved", cubes.len());
            return Err(WsamError::Backend { reason });
        }
        Ok(cubes.into_iter().map(contiguous).collect())
    }

    /// The buffers behind memory, in one call to the device's server.
    pub(crate) fn slices(
        &mut self,
        memory: impl Iterator<Item = (Handle, u64)>,
    ) -> Result<Vec<Slice>, WsamError> {
        let (handles, lens): (Vec<Handle>, Vec<u64>) = memory.unzip();
        for handle in &handles {
            if !self.streams.contains(&handle.stream) {
                self.streams.push(handle.stream);
            }
        }
        let failed =
            |error: &dyn std::fmt::Display| WsamError::Backend { reason: error.to_string() };
        let cube = &self.cube;
        let resources = cube
            .exclusive(|| {
                let get = |handle| cube.get_resource::<WgpuServer<AutoCompiler>>(handle);
                handles.into_iter().map(get).collect::<Vec<_>>()
            })
            .map_err(|error| failed(&error))?;
        let mut slices = Vec::with_capacity(lens.len());
        for (resource, len) in resources.into_iter().zip(lens) {
            let resource = resource.map_err(|error| failed(&error))?;
            let WgpuResource { buffer, offset, size, .. } = resource.resource().clone();
            if size < 4 * len {
                let reason =
                    format!("a buffer of {size} bytes was handed out for {len} f32 elements");
                return Err(WsamError::Backend { reason });
            }
            self.pins.push(Box::new(resource));
            slices.push(Slice { buffer, offset, len });
        }
        Ok(slices)
    }

    /// Uninitialised memory for tensors of these lengths, packed into as few allocations as the
    /// adapter's largest binding allows.
    pub(crate) fn allocate(&self, lens: impl Iterator<Item = u64>) -> Vec<Handle> {
        let largest = self.cube.properties().memory.max_page_size;
        let mut segments: Vec<(u64, Vec<(u64, u64)>)> = Vec::new();
        for len in lens {
            // An empty tensor still has a place.
            let bytes = (4 * len).max(4);
            let room = bytes.next_multiple_of(ALIGNMENT);
            match segments.last_mut() {
                Some((end, places)) if *end + room <= largest => {
                    places.push((*end, bytes));
                    *end += room;
                }
                _ => segments.push((room, vec![(0, bytes)])),
            }
        }
        let mut handles = Vec::new();
        for (size, places) in segments {
            let segment = self.cube.empty(size as usize);
            handles.extend(places.into_iter().map(|(start, bytes)| {
                segment.clone().offset_start(start).offset_end(size - start - bytes)
            }));
        }
        handles
    }

    /// Submits everything Burn has pending on the buffers resolved so far. Call it after the last
    /// [`slices`](Self::slices) and before the submission that uses them.
    pub(crate) fn flush(&self) -> Result<(), WsamError> {
        for stream in &self.streams {
            stream
                .executes(|| self.cube.flush())
                .map_err(|error| WsamError::Backend { reason: error.to_string() })?;
        }
        Ok(())
    }

    /// Burn tensors over memory from [`allocate`](Self::allocate).
    pub(crate) fn tensors(&self, handles: Vec<Handle>, lens: &[u64]) -> Vec<Tensor<1>> {
        let cubes: Vec<_> = handles
            .into_iter()
            .zip(lens)
            .map(|(handle, len)| {
                let shape = Shape::from([*len as usize]);
                let (client, device) = (self.cube.clone(), self.device.clone());
                CubeTensor::new_contiguous(client, device, shape, handle, DType::F32)
            })
            .collect();
        let outputs: Vec<_> = lens
            .iter()
            .map(|len| {
                let shape = Shape::from([*len as usize]);
                TensorIr::uninit(self.fusion.create_empty_handle(), shape, DType::F32)
            })
            .collect();
        let ir = OperationIr::Custom(CustomOpIr::new("wsam", &[], &outputs));
        // Taken by the one execution there is: an operation that is kept must not keep the memory.
        let cubes = Mutex::new(cubes);
        let ids: Vec<_> = outputs.iter().map(|output| output.id).collect();
        let register = OperationFn(move |handles: &mut FusionHandles| {
            let cubes = std::mem::take(&mut *cubes.lock().unwrap_or_else(PoisonError::into_inner));
            for (id, cube) in ids.iter().zip(cubes) {
                handles.register_float_tensor::<CubeBackend>(id, cube);
            }
            Ok(())
        });
        let tensors = self.fusion.register(StreamId::current(), ir, register);
        tensors.into_iter().map(Tensor::from_primitive::<Wgpu>).collect()
    }
}

/// The tensor's memory, laid out afresh if it is not contiguous.
fn contiguous(cube: CubeTensor) -> Handle {
    if cube.is_contiguous() {
        return cube.handle;
    }
    // A broadcast gradient, for one. x - 0 is x for every x.
    CubeBackend::float_sub_scalar(cube, 0.0f32.into()).handle
}

type FusionHandles = burn::backend::fusion::custom::HandleContainer<
    burn::backend::fusion::FusionHandle<<CubeBackend as FusionBackend>::FusionRuntime>,
>;

type FusionTensor =
    burn::backend::fusion::FusionTensor<<CubeBackend as FusionBackend>::FusionRuntime>;

fn primitive(tensor: Tensor<1>) -> Result<FusionTensor, WsamError> {
    tensor
        .try_into_primitive::<Wgpu>()
        .map_err(|error| WsamError::Backend { reason: format!("{error:?}") })
}
