//! A plain copy kernel, which shows the memory rate that a kernel can reach.

use burn_wsam::engine::Engine;
use std::time::{Duration, Instant};

/// Copies vectors of four, 4,096 elements per workgroup.
const COPY: &str = "
override WORKGROUP: u32;
@group(0) @binding(0) var<storage, read> source: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> target_: array<vec4<f32>>;
@compute @workgroup_size(WORKGROUP)
fn copy(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let start = (workgroup.y * 65535u + workgroup.x) * 1024u;
    for (var i = 0u; i < 1024u; i += WORKGROUP) {
        let k = start + i + lane;
        if k < arrayLength(&source) { target_[k] = source[k]; }
    }
}";

/// Workgroup sizes, each the fastest on some adapter.
const WORKGROUPS: [u32; 2] = [8, 256];

/// Copies one buffer into another, both of one size, in the form that is fastest here; the time it
/// takes, and the bytes it moves.
///
/// Of buffers larger than a binding, a binding's worth is copied, and the time scaled.
pub fn copy(engine: &Engine, buffers: [&wgpu::Buffer; 2]) -> (u64, impl Fn() -> Duration + use<>) {
    let runs = WORKGROUPS.map(|workgroup| run_with(engine, buffers, workgroup));
    // The first run compiles and allocates.
    let [narrow, wide] = runs.each_ref().map(|run| {
        run();
        (0..5).map(|_| run()).min()
    });
    let [first, second] = runs;
    (2 * buffers[0].size(), if narrow < wide { first } else { second })
}

fn run_with(
    engine: &Engine,
    [from, to]: [&wgpu::Buffer; 2],
    workgroup: u32,
) -> impl Fn() -> Duration + use<> {
    let device = engine.device().clone();
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: None,
        source: wgpu::ShaderSource::Wgsl(COPY.into()),
    });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some("copy"),
        layout: None,
        module: &module,
        entry_point: None,
        compilation_options: wgpu::PipelineCompilationOptions {
            constants: &[("WORKGROUP", f64::from(workgroup))],
            ..Default::default()
        },
        cache: None,
    });
    let largest = device.limits().max_storage_buffer_binding_size / 4096 * 4096;
    let size = from.size().min(largest);
    let entry = |binding, buffer| wgpu::BindGroupEntry {
        binding,
        resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
            buffer,
            offset: 0,
            size: std::num::NonZeroU64::new(size),
        }),
    };
    let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout: &pipeline.get_bind_group_layout(0),
        entries: &[entry(0, from), entry(1, to)],
    });
    let (queue, workgroups) = (engine.queue().clone(), size.div_ceil(16 * 1024));
    let (width, height) = (workgroups.min(65_535), workgroups.div_ceil(65_535));
    let scale = from.size() as f64 / size as f64;
    move || {
        let start = Instant::now();
        let mut encoder = device.create_command_encoder(&Default::default());
        {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            pass.set_pipeline(&pipeline);
            pass.set_bind_group(0, &group, &[]);
            pass.dispatch_workgroups(width as u32, height as u32, 1);
        }
        queue.submit([encoder.finish()]);
        device.poll(wgpu::PollType::wait_indefinitely()).expect("the device is there");
        start.elapsed().mul_f64(scale)
    }
}
