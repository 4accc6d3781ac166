//! Failures below the engine: lost devices, exhausted memory, buffers of other devices.

use super::*;
use burn_wsam::engine::{
    AscentOptions, AscentTensor, BlendSource, DescentTensor, EngineError, Role, Slice,
};
use burn_wsam_support::engine_route::{engine, slice};
use burn_wsam_support::gpu::Gpu;

fn ascents(engine: &Engine) -> Vec<AscentTensor> {
    let new = || slice(engine, &[1.0; 8]);
    let tensor = || AscentTensor { weight: new(), grad: new(), partner: Some(new()), group: 0 };
    vec![tensor(), tensor()]
}

fn descent_of(ascent: &AscentTensor, grad_perturbed: Slice) -> DescentTensor {
    DescentTensor {
        weight: ascent.weight.clone(),
        anchor: None,
        grad: ascent.grad.clone(),
        grad_perturbed,
        state: Vec::new(),
        step: 1,
        group: 0,
    }
}

/// Every call on a lost device returns an error.
pub(crate) fn lost(gpu: &Gpu) -> Result<(), String> {
    let engine = engine(gpu)?;
    let tensors = ascents(&engine);
    let descents: Vec<_> =
        tensors.iter().map(|tensor| descent_of(tensor, tensor.grad.clone())).collect();
    let mut encoder = engine.device().create_command_encoder(&Default::default());
    let options = AscentOptions::default();
    let ascent = engine.ascent(&mut encoder, &sgd(), options, &tensors);
    let ascent = ascent.map_err(|error| error.to_string())?;
    engine.queue().submit([encoder.finish()]);
    engine.device().destroy();
    // With a cached plan, and with a new one.
    for tensors in [&tensors[..], &tensors[..1]] {
        let mut encoder = engine.device().create_command_encoder(&Default::default());
        match engine.ascent(&mut encoder, &sgd(), options, tensors) {
            Err(EngineError::Lost { .. }) => {}
            other => return Err(format!("an ascent on a lost device: {other:?}")),
        }
    }
    let mut encoder = engine.device().create_command_encoder(&Default::default());
    let blend = BlendSource::Method;
    match engine.descent(&mut encoder, &sgd(), 0.1, blend, &ascent, &descents) {
        Err(EngineError::Lost { .. }) => {}
        other => return Err(format!("a descent on a lost device: {other:?}")),
    }
    match engine.read_norms(ascent.norms()) {
        Err(EngineError::Lost { .. } | EngineError::Readback { .. }) => Ok(()),
        other => Err(format!("norms of a lost device: {other:?}")),
    }
}

/// Buffers of another device are refused, with tensor and role named.
pub(crate) fn foreign(gpu: &Gpu) -> Result<(), String> {
    let (here, elsewhere) = (engine(gpu)?, engine(gpu)?);
    let theirs = slice(&elsewhere, &[1.0; 8]);
    let good = ascents(&here);
    let mut encoder = here.device().create_command_encoder(&Default::default());
    let mut expect = |tensors: &[AscentTensor], want: Option<Role>| {
        let found = here.ascent(&mut encoder, &sgd(), AscentOptions::default(), tensors);
        match (found, want) {
            (Ok(_), None) => Ok(()),
            (Err(EngineError::Foreign { tensor: 1, role }), Some(want)) if role == want => Ok(()),
            (found, want) => Err(format!("{found:?}, expected {want:?}")),
        }
    };
    let with = |change: fn(&mut AscentTensor, Slice)| {
        let mut tensors = good.clone();
        change(&mut tensors[1], theirs.clone());
        tensors
    };
    expect(&with(|tensor, theirs| tensor.weight = theirs), Some(Role::Weight))?;
    expect(&with(|tensor, theirs| tensor.grad = theirs), Some(Role::Grad))?;
    expect(&with(|tensor, theirs| tensor.partner = Some(theirs)), Some(Role::Partner))?;
    expect(&good, None)?;
    let ascent = here.ascent(&mut encoder, &sgd(), AscentOptions::default(), &good);
    let ascent = ascent.map_err(|error| error.to_string())?;
    let descents = [descent_of(&good[0], slice(&here, &[1.0; 8])), descent_of(&good[1], theirs)];
    match here.descent(&mut encoder, &sgd(), 0.1, BlendSource::Method, &ascent, &descents) {
        Err(EngineError::Foreign { tensor: 1, role: Role::GradPerturbed }) => {}
        other => return Err(format!("a foreign g~: {other:?}")),
    }
    // The refused calls left the encoder valid.
    here.queue().submit([encoder.finish()]);
    Ok(())
}

/// A chunk table above the device's largest buffer size is an error.
pub(crate) fn no_memory(gpu: &Gpu) -> Result<(), String> {
    let required_limits = wgpu::Limits { max_buffer_size: 1 << 16, ..gpu.adapter.limits() };
    let required_limits =
        wgpu::Limits { max_storage_buffer_binding_size: 1 << 16, ..required_limits };
    let descriptor = wgpu::DeviceDescriptor { required_limits, ..Default::default() };
    let (device, queue) = pollster::block_on(gpu.adapter.request_device(&descriptor))
        .map_err(|error| error.to_string())?;
    let engine = Engine::new(&device, &queue).map_err(|error| error.to_string())?;
    let mut encoder = engine.device().create_command_encoder(&Default::default());
    let _ = engine
        .ascent(&mut encoder, &sgd(), AscentOptions::default(), &ascents(&engine))
        .map_err(|error| format!("a small model: {error}"))?;
    // 4,096 tensors of 4 elements: with a row of 48 bytes for each, the table outgrows 64 KiB.
    let shared = slice(&engine, &vec![1.0; 1 << 14]);
    let places = slice(&engine, &vec![0.0; 1 << 14]);
    let at = |slice: &Slice, i: u64| Slice { offset: 16 * i, len: 4, ..slice.clone() };
    let many: Vec<_> = (0..4096)
        .map(|i| AscentTensor {
            weight: at(&shared, i),
            grad: at(&shared, i),
            partner: Some(at(&places, i)),
            group: 0,
        })
        .collect();
    let mut encoder = engine.device().create_command_encoder(&Default::default());
    match engine.ascent(&mut encoder, &sgd(), AscentOptions::default(), &many) {
        Err(EngineError::Pipeline { kernel, .. }) if kernel == "wsam.chunks" => {}
        other => return Err(format!("a table beyond the largest buffer: {other:?}")),
    }
    engine.queue().submit([encoder.finish()]);
    Ok(())
}

/// The same adapter on an instance that grants no memory. `None` if the driver reports no memory budget, because
/// wgpu then ignores the threshold.
fn without_memory(gpu: &Gpu) -> Option<wgpu::Adapter> {
    let info = gpu.adapter.get_info();
    let budget =
        wgpu::MemoryBudgetThresholds { for_resource_creation: Some(0), ..Default::default() };
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: wgpu::Backends::from(info.backend),
        memory_budget_thresholds: budget,
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let adapters = pollster::block_on(instance.enumerate_adapters(info.backend.into()));
    let same = |adapter: &wgpu::Adapter| adapter.get_info().name == info.name;
    let adapter = adapters.into_iter().find(same)?;
    let opened = pollster::block_on(adapter.request_device(&Default::default()));
    let (device, _) = opened.ok()?;
    let scope = device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
    let usage = wgpu::BufferUsages::STORAGE;
    let descriptor =
        wgpu::BufferDescriptor { label: None, size: 1 << 20, usage, mapped_at_creation: false };
    drop(device.create_buffer(&descriptor));
    pollster::block_on(scope.pop()).map(|_| adapter)
}

/// A trial for the adapter, ignored if the driver reports no memory budget.
pub(crate) fn no_memory_at_all(gpu: &Gpu) -> libtest_mimic::Trial {
    let adapter = without_memory(gpu);
    let ignored = adapter.is_none();
    let trial = move || match adapter.map(|adapter| Engine::on_adapter(&adapter)) {
        Some(Err(EngineError::OutOfMemory { .. })) => Ok(()),
        other => Err(format!("without memory: {other:?}").into()),
    };
    let name = format!("out of memory [{}]", gpu.name);
    libtest_mimic::Trial::test(name, trial).with_ignored_flag(ignored)
}
