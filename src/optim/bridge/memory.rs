//! Memory of Burn's tensors: its place in wgpu buffers, and new memory for a step.

use crate::engine::{Format, Slice};
use crate::optim::error::WsamError;
use burn::backend::StreamId;
use burn::backend::ops::FloatTensorOps;
use burn::backend::wgpu::{AutoCompiler, CubeBackend, CubeTensor, WgpuResource};
use burn::cubecl::server::Handle;
use burn::cubecl::wgpu::WgpuServer;
use burn::tensor::{DType, Shape};
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

pub(super) type CubeClient = burn::cubecl::client::Client;

/// Memory of one tensor.
#[derive(Clone)]
pub(crate) struct Memory(Arc<Place>);

/// Burn's handle and the buffer range. The pin keeps Burn from reusing the memory.
pub(crate) struct Place {
    pub(crate) handle: Handle,
    pub(crate) slice: Slice,
    /// Cubecl's `ManagedResource`, whose type Burn does not export.
    #[allow(dead_code)]
    pin: Arc<dyn Any + Send + Sync>,
}

impl std::ops::Deref for Memory {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.0
    }
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.slice.fmt(f)
    }
}

/// What a step has asked of Burn, counted by its bridge.
#[derive(Debug, Default)]
pub(crate) struct BridgeCounts {
    tensors_made: AtomicU32,
    server_calls: AtomicU32,
}

impl BridgeCounts {
    pub(super) fn add_tensors(&self, made: usize) {
        self.tensors_made.fetch_add(made as u32, Ordering::Relaxed);
    }

    pub(super) fn add_call(&self) {
        self.server_calls.fetch_add(1, Ordering::Relaxed);
    }

    /// Tensors made.
    pub(crate) fn tensors_made(&self) -> u32 {
        self.tensors_made.load(Ordering::Relaxed)
    }

    /// Calls to Burn's servers that the host waited for.
    pub(crate) fn server_calls(&self) -> u32 {
        self.server_calls.load(Ordering::Relaxed)
    }
}

/// Alignment of tensors in bytes, which satisfies every adapter and Burn's own kernels.
const ALIGNMENT: u64 = 256;

/// Length and format of a tensor to allocate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AllocSpec {
    /// Elements.
    pub(crate) len: u64,
    pub(crate) format: Format,
}

impl AllocSpec {
    /// Spec of a tensor of `len` elements of Burn's `dtype`.
    pub(crate) fn new(len: u64, dtype: DType) -> Self {
        let format = match dtype {
            DType::F16 => Format::F16,
            DType::BF16 => Format::Bf16,
            _ => Format::F32,
        };
        Self { len, format }
    }

    pub(crate) fn single(len: u64) -> Self {
        Self { len, format: Format::F32 }
    }

    fn bytes(self) -> u64 {
        self.len * self.format.bytes()
    }

    /// Bytes in an arena, with alignment.
    pub(crate) fn allocated(self) -> u64 {
        self.bytes().next_multiple_of(ALIGNMENT)
    }

    /// Burn's element type.
    pub(super) fn dtype(self) -> DType {
        match self.format {
            Format::F32 => DType::F32,
            Format::F16 => DType::F16,
            Format::Bf16 => DType::BF16,
        }
    }
}

impl Memory {
    pub(crate) fn alloc_spec(&self) -> AllocSpec {
        AllocSpec { len: self.slice.len, format: self.slice.format }
    }

    pub(super) fn dtype(&self) -> DType {
        self.alloc_spec().dtype()
    }
}

/// A tensor to allocate, over which Burn gets a tensor of this shape.
#[derive(Clone, Debug)]
pub(crate) struct OutputSpec {
    pub(crate) spec: AllocSpec,
    pub(crate) shape: Shape,
    /// `identity` of an existing tensor that gets the memory. `None` for a new tensor.
    pub(crate) tensor: Option<u64>,
}

/// An existing tensor, and memory that it is to refer to. Nothing else may refer to the tensor, and no pending
/// operation may read it.
#[derive(Clone, Debug)]
pub(crate) struct Binding {
    /// `identity` of the tensor.
    pub(crate) tensor: u64,
    pub(crate) shape: Shape,
    pub(crate) memory: Memory,
}

/// Memory to allocate, in the order in which it is allocated. Each list becomes one arena, uninitialised.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemoryRequest {
    /// Tensors that get other memory before anything is allocated.
    pub(crate) bindings: Arc<Vec<Binding>>,
    /// New values of weights, perturbed or stepped.
    pub(crate) outputs: Vec<OutputSpec>,
    /// What a lean step keeps in place of the weights between its phases.
    pub(crate) stepped: Vec<AllocSpec>,
    /// States of the base optimizer, one list for each state.
    pub(crate) states: Vec<Vec<AllocSpec>>,
    /// Master weights.
    pub(crate) masters: Vec<AllocSpec>,
}

/// The memory that a [`MemoryRequest`] asked for, in lists of the same lengths.
pub(crate) struct NewMemory {
    pub(crate) outputs: Vec<Memory>,
    pub(crate) stepped: Vec<Memory>,
    pub(crate) states: Vec<Vec<Memory>>,
    pub(crate) masters: Vec<Memory>,
}

/// Result of `Bridge::resolve`: memory of the tensors, and new memory.
pub(crate) struct ResolvedMemory {
    pub(crate) tensors: Vec<Memory>,
    pub(crate) new: NewMemory,
}

/// Runs on the thread of Burn's server, so that each server call is a plain function call.
pub(super) fn resolve(
    cube: &CubeClient,
    here: StreamId,
    tensors: Vec<Handle>,
    specs: &[AllocSpec],
    request: &MemoryRequest,
) -> Result<ResolvedMemory, WsamError> {
    cube.exclusive(|| resolve_on_server(cube, here, tensors, specs, request))
        .map_err(|error| WsamError::Backend { reason: error.to_string() })?
}

fn resolve_on_server(
    cube: &CubeClient,
    here: StreamId,
    tensors: Vec<Handle>,
    specs: &[AllocSpec],
    request: &MemoryRequest,
) -> Result<ResolvedMemory, WsamError> {
    // Flush before allocating: Burn reuses released memory once the work on it is submitted.
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
    let tensors = tensors.into_iter().zip(specs).map(|(handle, spec)| locate(cube, handle, *spec));
    let tensors = tensors.collect::<Result<_, _>>()?;
    Ok(ResolvedMemory { tensors, new: allocate(cube, request)? })
}

/// Looks up the buffer of a handle.
fn locate(cube: &CubeClient, handle: Handle, spec: AllocSpec) -> Result<Memory, WsamError> {
    let resource = cube
        .get_resource::<WgpuServer<AutoCompiler>>(handle.clone())
        .map_err(|error| WsamError::Backend { reason: error.to_string() })?;
    let WgpuResource { buffer, offset, size, .. } = resource.resource().clone();
    let AllocSpec { len, format } = spec;
    if size < spec.bytes() {
        let reason =
            format!("Burn returned a buffer of {size} bytes for {len} elements of {format:?}");
        return Err(WsamError::Backend { reason });
    }
    let slice = Slice { buffer, offset, len, format };
    Ok(Memory(Arc::new(Place { handle, slice, pin: Arc::new(resource) })))
}

/// The largest single allocation of Burn in bytes, at most the adapter's largest binding.
pub(super) fn largest_allocation(cube: &CubeClient) -> u64 {
    cube.properties().memory.max_page_size
}

/// Allocates the arenas of a request, in its order.
fn allocate(cube: &CubeClient, request: &MemoryRequest) -> Result<NewMemory, WsamError> {
    let MemoryRequest { outputs, stepped, states, masters, .. } = request;
    let arena_of = |specs: &Vec<AllocSpec>| arena(cube, specs.iter().copied());
    Ok(NewMemory {
        outputs: arena(cube, outputs.iter().map(|output| output.spec))?,
        stepped: arena_of(stepped)?,
        states: states.iter().map(arena_of).collect::<Result<_, _>>()?,
        masters: arena_of(masters)?,
    })
}

/// Allocates memory for these tensors, in as few pieces as the adapter's largest binding allows.
///
/// Burn owns the memory and reuses a piece only when no tensor and no pending work refers to it. A training
/// loop therefore alternates between two arenas for weights, unless a clone of the model keeps one alive.
fn arena(
    cube: &CubeClient,
    specs: impl Iterator<Item = AllocSpec>,
) -> Result<Vec<Memory>, WsamError> {
    let largest = largest_allocation(cube);
    let mut pieces: Vec<(u64, Vec<(u64, AllocSpec)>)> = Vec::new();
    for spec in specs {
        let size = spec.allocated();
        match pieces.last_mut() {
            Some((end, places)) if *end + size <= largest => {
                places.push((*end, spec));
                *end += size;
            }
            _ => pieces.push((size, vec![(0, spec)])),
        }
    }
    let mut memory = Vec::new();
    for (size, places) in pieces {
        let piece = locate(cube, cube.empty(size as usize), AllocSpec::single(size / 4))?;
        memory.extend(places.into_iter().map(|(start, spec)| {
            let after = size - start - spec.bytes();
            let (offset, AllocSpec { len, format }) = (piece.slice.offset + start, spec);
            Memory(Arc::new(Place {
                handle: piece.handle.clone().offset_start(start).offset_end(after),
                slice: Slice { offset, len, format, ..piece.slice.clone() },
                pin: piece.pin.clone(),
            }))
        }));
    }
    Ok(memory)
}

/// Returns the tensor's memory, copied if it is not contiguous.
pub(super) fn contiguous(cube: CubeTensor) -> Handle {
    if cube.is_contiguous() {
        return cube.handle;
    }
    // The reshape copies a transposed tensor, where an elementwise kernel would keep its strides.
    let len = cube.meta.num_elements();
    let flat = CubeBackend::float_reshape(cube, Shape::from([len]));
    if flat.is_contiguous() {
        return flat.handle;
    }
    // A broadcast gradient. x - 0 is x for every x.
    CubeBackend::float_sub_scalar(flat, 0.0f32.into()).handle
}
