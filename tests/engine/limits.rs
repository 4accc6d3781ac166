//! Devices that grant little.

use super::*;
use crate::common::gpu::Gpu;
use burn_wsam::engine::EngineError;

/// An engine on a device with limits of the test's choice.
fn limited(
    gpu: &Gpu,
    restrict: impl Fn(&mut wgpu::Limits),
) -> Result<Result<Arc<Engine>, EngineError>, String> {
    let mut required_limits = gpu.adapter.limits();
    restrict(&mut required_limits);
    let descriptor = wgpu::DeviceDescriptor { required_limits, ..Default::default() };
    let (device, queue) = pollster::block_on(gpu.adapter.request_device(&descriptor))
        .map_err(|error| error.to_string())?;
    Ok(Engine::new(&device, &queue).map(Arc::new))
}

fn granted(gpu: &Gpu, restrict: impl Fn(&mut wgpu::Limits)) -> Result<Arc<Engine>, String> {
    limited(gpu, restrict)?.map_err(|error| error.to_string())
}

/// Bindings of 64 KiB: a tensor of 1,000,003 elements is seen through 62 windows.
pub(crate) fn windows(gpu: &Gpu) -> Result<(), String> {
    let engine = granted(gpu, |limits| limits.max_storage_buffer_binding_size = 1 << 16)?;
    for placement in [Placement::OutOfPlace, Placement::InPlace] {
        against_oracle(&engine, adamw(), placement, &[1_000_003, 16_384, 16_385], 2)?;
    }
    Ok(())
}

/// Three workgroups a dimension: anything past 9 chunks of a group needs more and is refused;
/// anything past 3 is two-dimensional.
pub(crate) fn grids(gpu: &Gpu) -> Result<(), String> {
    let engine = granted(gpu, |limits| limits.max_compute_workgroups_per_dimension = 3)?;
    for len in [4096, 3 * 4096, 3 * 4096 + 1, 7 * 4096 + 5, 9 * 4096] {
        against_oracle(&engine, sgd_momentum(), Placement::OutOfPlace, &[len], 2)?;
    }
    match against_oracle(&engine, sgd(), Placement::OutOfPlace, &[9 * 4096 + 1], 1) {
        Err(error) if error.contains("max_compute_workgroups_per_dimension") => Ok(()),
        other => Err(format!("{other:?} for a grid that does not fit")),
    }
}

pub(crate) fn webgpu_defaults(gpu: &Gpu) -> Result<(), String> {
    let engine = granted(gpu, |limits| {
        let alignment = limits.min_storage_buffer_offset_alignment;
        *limits = wgpu::Limits::default();
        limits.min_storage_buffer_offset_alignment = alignment.max(256);
        limits.min_uniform_buffer_offset_alignment = 256;
    })?;
    against_oracle(&engine, amsgrad(), Placement::InPlace, &[65_537, 3], 3)
}

pub(crate) fn too_little(gpu: &Gpu) -> Result<(), String> {
    let made = limited(gpu, |limits| limits.max_storage_buffers_per_shader_stage = 7)?;
    match made {
        Err(EngineError::Limit {
            name: "max_storage_buffers_per_shader_stage",
            granted: 7,
            needed: 8,
        }) => Ok(()),
        other => Err(format!("{other:?} on a device with 7 storage buffers")),
    }
}
