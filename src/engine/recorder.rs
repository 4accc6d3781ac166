//! The engine's state: a device and its queue, compiled pipelines, scratch buffers and cached plans.

use super::chunking::WindowLimits;
use super::error::EngineError;
use super::memory::create_buffer;
use super::pipelines::Pipelines;
use super::plan::{Plan, PlanKey};
use super::timer::Timer;
use super::tuning::{MAX_BUFFER_SETS, Tuning};
use crate::layout::{COLUMNS, PARAM_CLASSES, ParamClassUniforms, column_binding};
use std::sync::{Arc, Mutex};

/// Records WSAM steps into command encoders.
///
/// An engine holds compiled pipelines, a scratch buffer and the plans of recent steps, but no model
/// state: one engine serves any number of models on its device, from any thread. Recording never
/// submits, reads back or blocks.
///
/// A plan holds chunk tables and bind groups. A later step reuses it if its tensors are in the same
/// buffers at the same offsets. A plan keeps these buffers alive until newer plans replace it,
/// [`forget_plans`](Engine::forget_plans) is called or the engine is dropped.
pub struct Engine {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) pipelines: Arc<Pipelines>,
    pub(super) tuning: Tuning,
    pub(super) window_limits: WindowLimits,
    pub(super) max_grid: u32,
    /// Bound at bindings that a specialisation does not access. Each column binds a separate range.
    pub(super) unused: wgpu::Buffer,
    /// Partial sums of the norms. Steps share this buffer: the queue runs them one after another, and
    /// each step writes its sums before it reads them.
    pub(super) partials: Mutex<wgpu::Buffer>,
    /// Ordered from least to most recently used.
    pub(super) plans: Mutex<Vec<(PlanKey, Arc<Plan>)>>,
    pub(super) timer: Mutex<Option<Timer>>,
}

/// Alignment in bytes of bindings within one buffer: the largest that WebGPU allows a device to require.
pub(super) const ALIGNMENT: u64 = 256;

/// Size of a partial sum in bytes.
pub(super) const PARTIAL_SIZE: u64 = 16;

/// Initial size in bytes of the buffer of partial sums, which is bound whole.
const MIN_PARTIALS_SIZE: u64 = 1 << 16;

/// Storage buffers that a stage with one buffer set binds at most.
const STORAGE_BUFFERS: u32 = 8;

/// Uniform buffers that a stage binds at most, all in bind group 1.
pub(super) const UNIFORMS: u32 = 4;

impl Engine {
    /// Creates an engine on a device and its queue, with [`Tuning::for_adapter`].
    ///
    /// # Errors
    ///
    /// [`EngineError::Limit`] if the device was created with less than WebGPU's default limits for
    /// compute, [`EngineError::Pipeline`] if a shader does not compile,
    /// [`EngineError::OutOfMemory`] if the scratch buffers cannot be allocated.
    pub fn new(device: &wgpu::Device, queue: &wgpu::Queue) -> Result<Self, EngineError> {
        Self::with_tuning(device, queue, Tuning::for_adapter(&device.adapter_info()))
    }

    /// Creates an engine with the given tuning.
    ///
    /// # Errors
    ///
    /// Those of [`new`](Self::new), and [`EngineError::Tuning`] for a value outside its domain.
    pub fn with_tuning(
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        tuning: Tuning,
    ) -> Result<Self, EngineError> {
        tuning.check()?;
        check_limits(&device.limits(), tuning.workgroup)?;
        let pipelines = Arc::new(Pipelines::new(device, tuning.workgroup)?);
        Self::from_parts(device, queue, pipelines, tuning)
    }

    /// Creates another engine on the same device. Both share the compiled pipelines; the new engine has
    /// separate plans and scratch buffers, which are freed when it is dropped.
    ///
    /// # Errors
    ///
    /// [`EngineError::OutOfMemory`] if the scratch buffers cannot be allocated.
    pub fn fork(&self) -> Result<Self, EngineError> {
        Self::from_parts(&self.device, &self.queue, self.pipelines.clone(), self.tuning)
    }

    fn from_parts(
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        pipelines: Arc<Pipelines>,
        tuning: Tuning,
    ) -> Result<Self, EngineError> {
        let limits = device.limits();
        let buffer = |label, size| create_buffer(device, label, size, wgpu::BufferUsages::STORAGE);
        Ok(Self {
            device: device.clone(),
            queue: queue.clone(),
            pipelines,
            tuning,
            window_limits: WindowLimits {
                max_binding: limits.max_storage_buffer_binding_size,
                alignment: ALIGNMENT,
            },
            max_grid: limits.max_compute_workgroups_per_dimension,
            unused: buffer("wsam.unused", COLUMNS as u64 * ALIGNMENT)?,
            partials: Mutex::new(buffer("wsam.partials", MIN_PARTIALS_SIZE)?),
            plans: Mutex::default(),
            timer: Mutex::default(),
        })
    }

    /// Returns the device that this engine records for.
    pub fn device(&self) -> &wgpu::Device {
        &self.device
    }

    /// Returns the sizes of workgroups, chunks and dispatches.
    pub fn tuning(&self) -> Tuning {
        self.tuning
    }

    /// Returns the device's queue.
    pub fn queue(&self) -> &wgpu::Queue {
        &self.queue
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("device", &self.device).finish_non_exhaustive()
    }
}

fn check_limits(limits: &wgpu::Limits, workgroup: u32) -> Result<(), EngineError> {
    let needs = [
        (
            "max_storage_buffers_per_shader_stage",
            u64::from(limits.max_storage_buffers_per_shader_stage),
            u64::from(STORAGE_BUFFERS),
        ),
        (
            "max_uniform_buffers_per_shader_stage",
            u64::from(limits.max_uniform_buffers_per_shader_stage),
            u64::from(UNIFORMS),
        ),
        (
            "max_buffers_and_acceleration_structures_per_shader_stage",
            u64::from(limits.max_buffers_and_acceleration_structures_per_shader_stage),
            u64::from(STORAGE_BUFFERS + UNIFORMS),
        ),
        (
            "max_dynamic_uniform_buffers_per_pipeline_layout",
            u64::from(limits.max_dynamic_uniform_buffers_per_pipeline_layout),
            2,
        ),
        (
            "max_bindings_per_bind_group",
            u64::from(limits.max_bindings_per_bind_group),
            u64::from(column_binding(COLUMNS, MAX_BUFFER_SETS)),
        ),
        (
            "max_compute_invocations_per_workgroup",
            u64::from(limits.max_compute_invocations_per_workgroup),
            u64::from(workgroup),
        ),
        (
            "max_compute_workgroup_size_x",
            u64::from(limits.max_compute_workgroup_size_x),
            u64::from(workgroup),
        ),
        (
            "max_compute_workgroup_storage_size",
            u64::from(limits.max_compute_workgroup_storage_size),
            // `lane_sums` and `level_sums` in `squares.wgsl`.
            16 * (u64::from(workgroup) + 8),
        ),
        (
            "max_storage_buffer_binding_size",
            limits.max_storage_buffer_binding_size,
            MIN_PARTIALS_SIZE,
        ),
        ("max_buffer_size", limits.max_buffer_size, MIN_PARTIALS_SIZE),
        ("max_bind_groups", u64::from(limits.max_bind_groups), 2),
        (
            "max_uniform_buffer_binding_size",
            limits.max_uniform_buffer_binding_size,
            // One page of the table of parameter classes.
            (PARAM_CLASSES * size_of::<ParamClassUniforms>()) as u64,
        ),
        (
            "max_compute_workgroups_per_dimension",
            u64::from(limits.max_compute_workgroups_per_dimension),
            1,
        ),
    ];
    match needs.into_iter().find(|(_, granted, needed)| granted < needed) {
        Some((name, granted, needed)) => Err(EngineError::Limit { name, granted, needed }),
        None => Ok(()),
    }
}
