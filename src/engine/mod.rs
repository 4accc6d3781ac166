//! The WGSL engine: one WSAM step on raw `wgpu` buffers, independent of Burn.
//!
//! ```no_run
//! use burn_wsam::engine::{
//!     AscentOptions, AscentTensor, BlendSource, DescentTensor, Engine, Placement, Slice,
//! };
//! use burn_wsam::method::{Base, Hyperparameters};
//!
//! # fn gradient(_: &mut wgpu::CommandEncoder) {}
//! # fn main() -> Result<(), burn_wsam::engine::EngineError> {
//! let (engine, adapter) = Engine::on_any_adapter()?;
//! println!("running on {}", adapter.name);
//! let buffer = |_: &str| engine.device().create_buffer(&wgpu::BufferDescriptor {
//!     label: None,
//!     size: 4 * 1000,
//!     usage: wgpu::BufferUsages::STORAGE,
//!     mapped_at_creation: false,
//! });
//! let [weight, grad, perturbed, grad_perturbed] =
//!     ["w", "g", "w + e_w", "g~"].map(|name| Slice::new(&buffer(name), 1000));
//! let hyper = Hyperparameters::new(Base::Sgd { momentum: None, weight_decay: 0.0 });
//!
//! let mut encoder = engine.device().create_command_encoder(&Default::default());
//! gradient(&mut encoder); // the caller's own work: grad at weight
//! let tensors = [AscentTensor::new(weight.clone(), grad.clone(), Placement::OutOfPlace(perturbed))];
//! let ascent = engine.ascent(&mut encoder, &hyper, AscentOptions::default(), &tensors)?;
//! gradient(&mut encoder); // grad_perturbed at perturbed
//! let tensors = [DescentTensor::new(weight, grad, grad_perturbed)];
//! engine.descent(&mut encoder, &hyper, 0.1, BlendSource::Method, &ascent, &tensors)?;
//! engine.queue().submit([encoder.finish()]);
//! # Ok(())
//! # }
//! ```

mod adapter;
mod base;
mod buffers;
mod checks;
mod chunking;
mod columns;
mod constants;
mod dispatch;
mod encode;
mod error;
mod external;
mod lean;
mod memory;
mod norm;
mod options;
mod param_classes;
mod phase;
mod pipelines;
mod plan;
mod prepared;
mod readback;
mod record;
mod rows;
mod schedule;
mod slice;
mod stats;
mod step;
mod tensors;
mod timing;
mod traffic;
mod tuning;

pub use crate::layout::{BlendUniforms, Norms, Stage};
pub use base::BaseStep;
pub use error::EngineError;
pub use external::Mix;
pub use lean::LeanAscent;
pub use options::{AscentOptions, BlendSource, GradientOptions, InvScale, Rates, Rounding};
pub use prepared::{PreparedStep, StepValues};
#[cfg(feature = "burn")]
pub(crate) use readback::norms_of;
pub use slice::{Format, Role, Slice};
pub use stats::StepStats;
pub use step::Ascent;
pub use tensors::{
    AscentTensor, BaseTensor, ClipTensor, DescentTensor, LeanAscentTensor, LeanDescentTensor,
    MixTensor, Placement, SharpenTensor,
};
pub use tuning::Tuning;
pub use wgpu;

use crate::layout::{COLUMNS, PARAM_CLASSES, ParamClassUniforms, column_binding};
use chunking::WindowLimits;
use pipelines::Pipelines;
use plan::{Plan, PlanKey};
use std::sync::{Arc, Mutex};
use timing::Timer;

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
    device: wgpu::Device,
    queue: wgpu::Queue,
    pipelines: Arc<Pipelines>,
    tuning: Tuning,
    window_limits: WindowLimits,
    max_grid: u32,
    /// Bound at bindings that a specialisation does not access. Each column binds a separate range.
    unused: wgpu::Buffer,
    /// Partial sums of the norms. Steps share this buffer: the queue runs them one after another, and
    /// each step writes its sums before it reads them.
    partials: Mutex<wgpu::Buffer>,
    /// Ordered from least to most recently used.
    plans: Mutex<Vec<(PlanKey, Arc<Plan>)>>,
    timer: Mutex<Option<Timer>>,
}

/// Alignment in bytes of bindings within one buffer: the largest that WebGPU allows a device to require.
const ALIGNMENT: u64 = 256;

/// Size of a partial sum in bytes.
const PARTIAL_SIZE: u64 = 16;

/// Initial size in bytes of the buffer of partial sums, which is bound whole.
const MIN_PARTIALS_SIZE: u64 = 1 << 16;

/// Storage buffers that a stage with one buffer set binds at most.
const STORAGE_BUFFERS: u32 = 8;

/// Uniform buffers that a stage binds at most, all in bind group 1.
const UNIFORMS: u32 = 4;

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
        let buffer =
            |label, size| memory::create_buffer(device, label, size, wgpu::BufferUsages::STORAGE);
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
            u64::from(column_binding(COLUMNS, tuning::MAX_BUFFER_SETS)),
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
