//! The engine without Burn: WSAM minimises a quadratic whose gradient is computed by a kernel of this example.
//!
//! `L(w) = 1/2 sum_i curvature_i (w_i - center_i)^2`. Weights, gradients and momentum stay on the
//! device; the host records steps and reads the weights every 25 steps.

use burn_wsam::engine::{
    AscentOptions, AscentTensor, BlendSource, DescentTensor, Engine, EngineError, Slice,
};
use burn_wsam::method::{Base, Hyperparameters, Momentum};
use std::process::ExitCode;
use wgpu::util::DeviceExt;

const LEN: usize = 1000;
const STEPS: u64 = 200;
/// Steps that are recorded into one encoder and submitted at once, before the weights are read.
const STRIDE: u64 = 25;
/// Initial learning rate. It falls to zero, because near a minimum `e_w` keeps its length.
const PEAK_LR: f64 = 0.1;
/// Largest final distance to the minimum for success. The initial distance is about 22.
const CLOSE: f32 = 0.05;

const GRADIENT: &str = "
@group(0) @binding(0) var<storage, read> curvature: array<f32>;
@group(0) @binding(1) var<storage, read> center: array<f32>;
@group(0) @binding(2) var<storage, read> w: array<f32>;
@group(0) @binding(3) var<storage, read_write> gradient: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    let i = id.x;
    if i < arrayLength(&w) {
        gradient[i] = curvature[i] * (w[i] - center[i]);
    }
}";

fn main() -> ExitCode {
    let error = match run() {
        Ok(distance) if distance < CLOSE => return ExitCode::SUCCESS,
        Ok(distance) => format!("still {distance} away from the minimum"),
        Err(error) => error.to_string(),
    };
    eprintln!("error: {error}");
    ExitCode::FAILURE
}

fn run() -> Result<f32, EngineError> {
    let (engine, adapter) = Engine::on_any_adapter()?;
    println!("{} ({})", adapter.name, adapter.backend);
    let device = engine.device();

    // Curvatures from 0.1 to 1, centers on a sine wave of amplitude 1. The initial weights are 0.
    let curvature: Vec<f32> = (0..LEN).map(|i| 0.1 + 0.9 * i as f32 / LEN as f32).collect();
    let center: Vec<f32> = (0..LEN).map(|i| (0.1 * i as f32).sin()).collect();
    let buffer = |label, values: &[f32]| {
        device.create_buffer_init(&wgpu::util::BufferInitDescriptor {
            label: Some(label),
            contents: bytemuck::cast_slice(values),
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC,
        })
    };
    let fixed = [buffer("curvature", &curvature), buffer("center", &center)];
    let slice = |label| Slice::new(&buffer(label, &[0.0; LEN]), LEN as u64);
    let [weight, perturbed, grad, grad_perturbed, momentum] =
        ["w", "w + e_w", "g", "g~", "momentum"].map(slice);

    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: Some("gradient"),
        source: wgpu::ShaderSource::Wgsl(GRADIENT.into()),
    });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some("gradient"),
        layout: None,
        module: &module,
        entry_point: None,
        compilation_options: Default::default(),
        cache: None,
    });
    let bind = |at: &Slice, into: &Slice| {
        let buffers = [&fixed[0], &fixed[1], &at.buffer, &into.buffer];
        let entries: Vec<_> = (0..)
            .zip(buffers)
            .map(|(binding, buffer)| wgpu::BindGroupEntry {
                binding,
                resource: buffer.as_entire_binding(),
            })
            .collect();
        device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("gradient"),
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries,
        })
    };
    let at_weight = bind(&weight, &grad);
    let at_perturbed = bind(&perturbed, &grad_perturbed);
    let gradient = |encoder: &mut wgpu::CommandEncoder, group: &wgpu::BindGroup| {
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, group, &[]);
        pass.dispatch_workgroups(LEN.div_ceil(64) as u32, 1, 1);
    };

    let hyper = Hyperparameters::new(Base::Sgd {
        momentum: Some(Momentum { momentum: 0.9, dampening: 0.0, nesterov: false }),
        weight_decay: 0.0,
    });
    let mut distance = report(&engine, &weight, &curvature, &center, 0)?;
    let mut encoder = device.create_command_encoder(&Default::default());
    for step in 1..=STEPS {
        gradient(&mut encoder, &at_weight);
        let tensor = AscentTensor {
            weight: weight.clone(),
            grad: grad.clone(),
            partner: Some(perturbed.clone()),
            group: 0,
        };
        let ascent = engine.ascent(&mut encoder, &hyper, AscentOptions::default(), &[tensor])?;
        gradient(&mut encoder, &at_perturbed);
        let tensor = DescentTensor {
            weight: weight.clone(),
            anchor: None,
            grad: grad.clone(),
            grad_perturbed: grad_perturbed.clone(),
            state: vec![momentum.clone()],
            step,
            group: 0,
        };
        let lr = PEAK_LR * (STEPS - step) as f64 / STEPS as f64;
        engine.descent(&mut encoder, &hyper, lr, BlendSource::Method, &ascent, &[tensor])?;
        if step % STRIDE == 0 {
            let next = device.create_command_encoder(&Default::default());
            engine.queue().submit([std::mem::replace(&mut encoder, next).finish()]);
            distance = report(&engine, &weight, &curvature, &center, step)?;
        }
    }
    println!("distance to the minimum: {distance:.6}");
    Ok(distance)
}

/// Reads the weights and prints their loss. Returns the distance to the minimum.
fn report(
    engine: &Engine,
    weight: &Slice,
    curvature: &[f32],
    center: &[f32],
    step: u64,
) -> Result<f32, EngineError> {
    let bytes = engine.read_buffer(&weight.buffer)?;
    let w: Vec<f32> = bytemuck::pod_collect_to_vec(&bytes);
    let squares: Vec<f32> = w.iter().zip(center).map(|(w, center)| (w - center).powi(2)).collect();
    let loss: f32 = squares.iter().zip(curvature).map(|(square, c)| 0.5 * c * square).sum();
    println!("step {step:>3}  loss {loss:.6}");
    Ok(squares.iter().sum::<f32>().sqrt())
}
