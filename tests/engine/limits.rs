//! Devices that grant little.

use super::*;
use crate::common::gpu::Gpu;
use crate::common::raw::engine;
use burn_wsam::engine::{EngineError, Tuning};

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

/// Three workgroups a dimension: anything past 3 chunks is two-dimensional, anything past 9 takes
/// several dispatches.
pub(crate) fn grids(gpu: &Gpu) -> Result<(), String> {
    let engine = granted(gpu, |limits| limits.max_compute_workgroups_per_dimension = 3)?;
    for len in [4096, 3 * 4096, 3 * 4096 + 1, 7 * 4096 + 5, 9 * 4096, 100_003] {
        against_oracle(&engine, sgd_momentum(), Placement::OutOfPlace, &[len], 2)?;
    }
    Ok(())
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

/// Every tuning is right; only its speed differs.
pub(crate) fn tunings(gpu: &Gpu) -> Result<(), String> {
    let opened = engine(gpu)?;
    let (device, queue) = (opened.device(), opened.queue());
    for workgroup in burn_wsam::layout::WORKGROUPS {
        for (chunk_len, max_norm_chunk_len) in [(4, 8), (1024, 1024), (16_384, 65_536)] {
            let (partials_by_lane, max_frames) = (chunk_len == 1024, 16);
            let tuning =
                Tuning { workgroup, chunk_len, max_norm_chunk_len, partials_by_lane, max_frames };
            let engine = Engine::with_tuning(device, queue, tuning)
                .map_err(|error| format!("{tuning:?}: {error}"))?;
            let lens = [65_537, 1, 1023];
            against_oracle(&Arc::new(engine), adamw(), Placement::OutOfPlace, &lens, 2)
                .map_err(|error| format!("{tuning:?}: {error}"))?;
        }
    }
    let good = Tuning {
        workgroup: 64,
        chunk_len: 4096,
        max_norm_chunk_len: 4096,
        partials_by_lane: false,
        max_frames: 1,
    };
    for (name, tuning) in [
        ("workgroup", Tuning { workgroup: 48, ..good }),
        ("workgroup", Tuning { workgroup: 8, ..good }),
        ("chunk_len", Tuning { chunk_len: 0, ..good }),
        ("chunk_len", Tuning { chunk_len: 6, ..good }),
        ("max_norm_chunk_len", Tuning { max_norm_chunk_len: 5000, ..good }),
        ("max_frames", Tuning { max_frames: 0, ..good }),
        ("max_frames", Tuning { max_frames: 17, ..good }),
    ] {
        match Engine::with_tuning(device, queue, tuning) {
            Err(EngineError::Tuning { name: found, .. }) if found == name => {}
            other => return Err(format!("{tuning:?}: {other:?}")),
        }
    }
    Ok(())
}
