//! A whole step of the engine on raw buffers, beside a plain copy on the same adapter in the same
//! run. See README.md beside this file.

#[path = "common/sets.rs"]
mod sets;

use burn_wsam::engine::{
    Ascent, AscentOptions, AscentTensor, BlendSource, DescentTensor, Engine, EngineError, Slice,
    StepStats,
};
use burn_wsam::method::{Base, Hyperparameters, Moments, Momentum};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::time::{Duration, Instant};

/// A vec4 copy, 4,096 elements a workgroup, in the form that was fastest on lavapipe: the memory's
/// own rate, as a kernel can have it.
const COPY: &str = "
@group(0) @binding(0) var<storage, read> source: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> target_: array<vec4<f32>>;
@compute @workgroup_size(256)
fn copy(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let start = (workgroup.y * 65535u + workgroup.x) * 1024u;
    for (var i = 0u; i < 4u; i += 1u) {
        let k = start + i * 256u + lane;
        if k < arrayLength(&source) { target_[k] = source[k]; }
    }
}";

/// A parameter set in one buffer a role.
struct Model {
    tensors: Vec<(u64, u64)>,
    buffers: Vec<wgpu::Buffer>,
}

impl Model {
    fn new(engine: &Engine, lens: &[u64], roles: usize) -> Self {
        let mut size = 0;
        let mut tensors = Vec::new();
        for len in lens {
            tensors.push((size, *len));
            size += (4 * len).next_multiple_of(256);
        }
        let buffer = || {
            engine.device().create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size,
                usage: wgpu::BufferUsages::STORAGE,
                mapped_at_creation: false,
            })
        };
        Self { tensors, buffers: (0..roles).map(|_| buffer()).collect() }
    }

    fn slice(&self, role: usize, tensor: (u64, u64)) -> Slice {
        Slice { buffer: self.buffers[role].clone(), offset: tensor.0, len: tensor.1 }
    }

    fn ascent_tensors(&self) -> Vec<AscentTensor> {
        let at = |role, tensor| self.slice(role, tensor);
        let tensors = self.tensors.iter().copied();
        tensors
            .map(|t| AscentTensor { weight: at(0, t), grad: at(1, t), partner: at(2, t) })
            .collect()
    }

    fn descent_tensors(&self) -> Vec<DescentTensor> {
        let at = |role, tensor| self.slice(role, tensor);
        let tensors = self.tensors.iter().copied();
        tensors
            .map(|t| DescentTensor {
                weight: at(0, t),
                anchor: None,
                grad: at(1, t),
                grad_perturbed: at(3, t),
                state: (4..self.buffers.len()).map(|role| at(role, t)).collect(),
                step: 2,
            })
            .collect()
    }
}

/// Records and runs one step; waits for both halves, as two backward passes would lie between.
fn step(
    engine: &Engine,
    hyper: &Hyperparameters,
    ascents: &[AscentTensor],
    descents: &[DescentTensor],
) -> Result<(Duration, StepStats), EngineError> {
    let run = |encoder: wgpu::CommandEncoder| {
        engine.queue().submit([encoder.finish()]);
        wait(engine);
    };
    let start = Instant::now();
    let mut encoder = engine.device().create_command_encoder(&Default::default());
    let ascent: Ascent = engine.ascent(&mut encoder, hyper, AscentOptions::default(), ascents)?;
    run(encoder);
    let mut encoder = engine.device().create_command_encoder(&Default::default());
    let blend = BlendSource::Method;
    let descent = engine.descent(&mut encoder, hyper, 0.1, blend, &ascent, descents)?;
    run(encoder);
    let time = start.elapsed();
    let mut stats = ascent.stats();
    stats += descent;
    Ok((time, stats))
}

fn wait(engine: &Engine) {
    engine.device().poll(wgpu::PollType::wait_indefinitely()).expect("the device is there");
}

/// The copy kernel over one buffer into another.
fn copy(engine: &Engine, model: &Model) -> impl Fn() -> Duration {
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
        compilation_options: Default::default(),
        cache: None,
    });
    // A binding's worth: the largest buffers do not fit one.
    let largest = device.limits().max_storage_buffer_binding_size / 4096 * 4096;
    let size = model.buffers[0].size().min(largest);
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
        entries: &[entry(0, &model.buffers[0]), entry(1, &model.buffers[1])],
    });
    let (queue, workgroups) = (engine.queue().clone(), size.div_ceil(16 * 1024));
    let (width, height) = (workgroups.min(65_535), workgroups.div_ceil(65_535));
    let scale = model.buffers[0].size() as f64 / size as f64;
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
        // As long as a copy of the whole buffer would take at this rate.
        start.elapsed().mul_f64(scale)
    }
}

fn bases() -> [(&'static str, Base); 3] {
    let momentum = Momentum { momentum: 0.9, dampening: 0.0, nesterov: false };
    let moments =
        Moments { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-8, weight_decay: 0.01, amsgrad: false };
    [
        ("SGD", Base::Sgd { momentum: None, weight_decay: 0.0 }),
        ("SGD + momentum", Base::Sgd { momentum: Some(momentum), weight_decay: 1e-4 }),
        ("AdamW", Base::AdamW(moments)),
    ]
}

fn steps(criterion: &mut Criterion) {
    let (engine, adapter) = match Engine::on_any_adapter() {
        Ok(found) => found,
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(1);
        }
    };
    println!("adapter: {} ({}), {:?}", adapter.name, adapter.backend, engine.tuning());
    for set in sets::sets() {
        let parameters: u64 = set.lens.iter().sum();
        println!("{}: {} tensors, {parameters} parameters", set.name, set.lens.len());
        let mut group = criterion.benchmark_group(set.name);
        group.sample_size(10).warm_up_time(Duration::from_millis(500));
        group.measurement_time(Duration::from_secs(2));
        for (name, base) in bases() {
            let hyper = Hyperparameters::new(base);
            let model = Model::new(&engine, &set.lens, 4 + base.state_names().len());
            let (ascents, descents) = (model.ascent_tensors(), model.descent_tensors());
            let run = || step(&engine, &hyper, &ascents, &descents).expect("a valid step");
            let (_, stats) = run();
            println!(
                "{name}: {} bytes a parameter, {} dispatches, {:.2} ms of recording",
                stats.bytes() as f64 / parameters as f64,
                stats.dispatches,
                1e3 * stats.recording.as_secs_f64(),
            );
            group.throughput(Throughput::Bytes(stats.bytes()));
            group.bench_function(name, |bencher| {
                bencher.iter_custom(|count| (0..count).map(|_| run().0).sum());
            });
        }
        let model = Model::new(&engine, &set.lens, 2);
        group.throughput(Throughput::Bytes(2 * model.buffers[0].size()));
        let copy = copy(&engine, &model);
        group.bench_function("copy", |bencher| {
            bencher.iter_custom(|count| (0..count).map(|_| copy()).sum());
        });
        group.finish();
    }
}

criterion_group!(benches, steps);
criterion_main!(benches);
