//! Devices with low limits.

use super::*;
use burn_wsam::engine::{EngineError, Tuning};
use burn_wsam::method::{Clip, ClipScope, Group, NormScope};
use burn_wsam_support::engine_route::{engine, webgpu_engine};
use burn_wsam_support::gpu::Gpu;

/// A device with the adapter's limits, changed by `restrict`.
fn open_device(
    gpu: &Gpu,
    restrict: impl Fn(&mut wgpu::Limits),
) -> Result<(wgpu::Device, wgpu::Queue), String> {
    let mut required_limits = gpu.adapter.limits();
    restrict(&mut required_limits);
    let descriptor = wgpu::DeviceDescriptor { required_limits, ..Default::default() };
    pollster::block_on(gpu.adapter.request_device(&descriptor)).map_err(|error| error.to_string())
}

fn restricted_engine(
    gpu: &Gpu,
    restrict: impl Fn(&mut wgpu::Limits),
) -> Result<Arc<Engine>, String> {
    let (device, queue) = open_device(gpu, restrict)?;
    Engine::new(&device, &queue).map(Arc::new).map_err(|error| error.to_string())
}

/// Bindings of 64 KiB: a tensor of 1,000,003 elements takes 62 windows.
pub(crate) fn windows(gpu: &Gpu) -> Result<(), String> {
    let engine = restricted_engine(gpu, |limits| limits.max_storage_buffer_binding_size = 1 << 16)?;
    for placement in [Placement::OutOfPlace, Placement::InPlace] {
        against_oracle(&engine, adamw(), placement, &[1_000_003, 16_384, 16_385], 2)?;
    }
    Ok(())
}

/// Three workgroups a dimension: more than 3 chunks need a two-dimensional grid, more than 9 several
/// dispatches.
pub(crate) fn grids(gpu: &Gpu) -> Result<(), String> {
    let engine = restricted_engine(gpu, |limits| limits.max_compute_workgroups_per_dimension = 3)?;
    let chunk = engine.tuning().chunk_len as usize;
    for len in [chunk, 3 * chunk, 3 * chunk + 1, 7 * chunk + 5, 9 * chunk, 24 * chunk + 1699] {
        against_oracle(&engine, sgd_momentum(), Placement::OutOfPlace, &[len], 2)?;
    }
    Ok(())
}

/// Every kind of step, with wide and narrow kernels, on a device with WebGPU's default limits.
pub(crate) fn webgpu_defaults(gpu: &Gpu) -> Result<(), String> {
    let engine = webgpu_engine(gpu)?;
    for hyper in [sgd(), sgd_momentum(), adamw(), amsgrad()] {
        for placement in [Placement::OutOfPlace, Placement::InPlace] {
            against_oracle(&engine, hyper.clone(), placement, &[65_537, 3, 4096, 257, 1], 3)?;
        }
    }
    layouts::one_buffer_on(&engine)
}

/// A single limit below the engine's needs gives an error with its name and both numbers.
pub(crate) fn too_low(gpu: &Gpu) -> Result<(), String> {
    type Restrict = fn(&mut wgpu::Limits);
    let cases: &[(&str, u64, u64, Restrict)] = &[
        ("max_storage_buffers_per_shader_stage", 7, 8, |limits| {
            limits.max_storage_buffers_per_shader_stage = 7;
        }),
        ("max_uniform_buffers_per_shader_stage", 3, 4, |limits| {
            limits.max_uniform_buffers_per_shader_stage = 3;
        }),
        ("max_buffers_and_acceleration_structures_per_shader_stage", 11, 12, |limits| {
            limits.max_buffers_and_acceleration_structures_per_shader_stage = 11;
        }),
        ("max_dynamic_uniform_buffers_per_pipeline_layout", 1, 2, |limits| {
            limits.max_dynamic_uniform_buffers_per_pipeline_layout = 1;
        }),
        ("max_bindings_per_bind_group", 152, 153, |limits| {
            limits.max_bindings_per_bind_group = 152;
        }),
        ("max_compute_invocations_per_workgroup", 15, 16, |limits| {
            limits.max_compute_invocations_per_workgroup = 15;
        }),
        ("max_compute_workgroup_size_x", 15, 16, |limits| limits.max_compute_workgroup_size_x = 15),
        ("max_compute_workgroup_storage_size", 383, 384, |limits| {
            limits.max_compute_workgroup_storage_size = 383;
        }),
        ("max_storage_buffer_binding_size", 255, 65_536, |limits| {
            limits.max_storage_buffer_binding_size = 255;
        }),
        ("max_storage_buffer_binding_size", 65_532, 65_536, |limits| {
            limits.max_storage_buffer_binding_size = 65_532;
        }),
        ("max_buffer_size", 65_535, 65_536, |limits| {
            limits.max_buffer_size = 65_535;
            limits.max_storage_buffer_binding_size = 65_536;
            limits.max_uniform_buffer_binding_size = 16_384;
        }),
        ("max_bind_groups", 1, 2, |limits| limits.max_bind_groups = 1),
        ("max_compute_workgroups_per_dimension", 0, 1, |limits| {
            limits.max_compute_workgroups_per_dimension = 0;
        }),
    ];
    for (limit, too_low, need, restrict) in cases {
        let tuning = Tuning { workgroup: 16, ..engine(gpu)?.tuning() };
        let (device, queue) = open_device(gpu, restrict)?;
        match Engine::with_tuning(&device, &queue, tuning) {
            Err(EngineError::Limit { name, granted, needed })
                if (name, granted, needed) == (*limit, *too_low, *need) => {}
            other => return Err(format!("{limit} of {too_low}: {other:?}")),
        }
    }
    Ok(())
}

/// With the smallest buffer limits that the engine accepts, partial sums (also one for each invocation) and chunk
/// tables stay within one binding. A model that needs more is refused with the limit named.
pub(crate) fn small_buffers(gpu: &Gpu) -> Result<(), String> {
    let (device, queue) = open_device(gpu, |limits| {
        limits.max_storage_buffer_binding_size = 1 << 16;
        limits.max_compute_workgroups_per_dimension = 31;
    })?;
    for partials_by_lane in [false, true] {
        for chunk_len in [4, 256] {
            let tuning = Tuning {
                workgroup: 8,
                chunk_len,
                max_norm_chunk_len: chunk_len,
                partials_by_lane,
                max_frames: 16,
            };
            let engine = Engine::with_tuning(&device, &queue, tuning);
            let engine = engine.map(Arc::new).map_err(|error| error.to_string())?;
            let clip = Some(Clip { max_norm: 0.5, scope: ClipScope::Both });
            for hyper in [sgd_momentum(), Hyperparameters { clip, ..amsgrad() }] {
                against_oracle(&engine, hyper, Placement::OutOfPlace, &[100_003, 5, 40_000], 2)
                    .map_err(|error| format!("{tuning:?}: {error}"))?;
            }
            // Each tensor needs a partial sum, and a binding holds fewer than 5000.
            let lens = vec![1; 5000];
            match against_oracle(&engine, sgd(), Placement::OutOfPlace, &lens, 1) {
                Err(error)
                    if error.contains("max_storage_buffer_binding_size")
                        && error.contains("65536") => {}
                other => return Err(format!("5000 tensors: {other:?}")),
            }
        }
    }
    // norm_finish takes a workgroup for each of 32 norm scopes, and the device allows 31.
    let engine = Engine::new(&device, &queue).map_err(|error| error.to_string())?;
    let own = Group { norm: NormScope::Own, ..Group::default() };
    let hyper = Hyperparameters { groups: vec![own; 31], ..sgd() };
    let weight = model(1, &[3; 32]);
    let groups: Vec<usize> = (0..32).collect();
    let route = EngineRoute::new(&Arc::new(engine), hyper, Placement::OutOfPlace, &weight);
    match route.with_groups(&groups).ascend(&weight) {
        Err(error) if error.contains("max_compute_workgroups_per_dimension") => Ok(()),
        other => Err(format!("32 scopes: {other:?}")),
    }
}

/// Every valid tuning matches the oracle.
pub(crate) fn tunings(gpu: &Gpu) -> Result<(), String> {
    let default_engine = engine(gpu)?;
    let (device, queue) = (default_engine.device(), default_engine.queue());
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
        ("workgroup", Tuning { workgroup: 4, ..good }),
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
