//! Counted costs: the number of dispatches does not depend on the number of tensors, and the bytes are those of the
//! design.

use super::*;
use burn_wsam::engine::{
    AscentOptions, AscentTensor, BlendSource, DescentTensor, EngineError, Slice, StepStats, Tuning,
};
use burn_wsam::method::{Clip, ClipScope};
use burn_wsam_support::engine_route::{buffer, engine};
use burn_wsam_support::gpu::Gpu;

pub(crate) fn counts(gpu: &Gpu) -> Result<(), String> {
    let engine = engine(gpu)?;
    let clip = Some(Clip { max_norm: 1.0, scope: ClipScope::Both });
    let cases = [
        ("SGD", propagating(sgd()), 4, 32),
        ("SGD + momentum", propagating(sgd_momentum()), 4, 40),
        ("AdamW", propagating(adamw()), 4, 48),
        // By default a step checks g~ before it writes.
        ("SGD, checked", sgd(), 5, 36),
        ("SGD + momentum, checked", sgd_momentum(), 5, 44),
        ("AdamW, checked", adamw(), 5, 52),
        ("SGD, clipped", Hyperparameters { clip, ..sgd() }, 6, 36),
        ("AdamW, adaptive", propagating(Hyperparameters { adaptive: true, ..adamw() }), 4, 52),
        ("AdamW, adaptive, clipped", Hyperparameters { adaptive: true, clip, ..adamw() }, 6, 56),
    ];
    for (name, hyper, dispatches, bytes) in cases {
        for tensors in [1, 3, 200] {
            let len = 4096;
            let stats =
                step(&engine, hyper.clone(), tensors, len).map_err(|error| error.to_string())?;
            let parameters = (tensors * len) as u64;
            if stats.dispatches != dispatches {
                return Err(format!("{name}, {tensors} tensors: {} dispatches", stats.dispatches));
            }
            if stats.bytes() != bytes * parameters {
                let each = stats.bytes() as f64 / parameters as f64;
                return Err(format!("{name}: {each} bytes a parameter, not {bytes}"));
            }
            if tensors == 200 && stats.overhead_bytes * 100 > stats.bytes() {
                return Err(format!("{name}: {} bytes of overhead", stats.overhead_bytes));
            }
        }
    }
    Ok(())
}

/// Takes a step with one buffer for each role, which holds all tensors.
fn step(
    engine: &Engine,
    hyper: Hyperparameters,
    tensors: usize,
    len: usize,
) -> Result<StepStats, EngineError> {
    let states = hyper.base.state_names().len();
    let buffers: Vec<_> =
        (0..4 + states).map(|_| buffer(engine, &vec![1.0; tensors * len])).collect();
    let at =
        |role: usize, i: usize| Slice::new(&buffers[role], len as u64).at((4 * len * i) as u64);
    let ascents: Vec<_> = (0..tensors)
        .map(|i| AscentTensor::new(at(0, i), at(1, i), Placement::OutOfPlace(at(2, i))))
        .collect();
    let descents: Vec<_> = (0..tensors)
        .map(|i| {
            DescentTensor::new(at(0, i), at(1, i), at(3, i))
                .with_state((0..states).map(|s| at(4 + s, i)).collect(), 1)
        })
        .collect();
    let mut encoder = engine.device().create_command_encoder(&Default::default());
    let ascent = engine.ascent(&mut encoder, &hyper, AscentOptions::default(), &ascents)?;
    let mut stats = ascent.stats();
    let blend = BlendSource::Method;
    stats += engine.descent(&mut encoder, &hyper, 0.1, blend, &ascent, &descents)?;
    engine.queue().submit([encoder.finish()]);
    Ok(stats)
}

/// On Vulkan the last workgroup of a norm finishes it: one dispatch fewer for each norm, and the same bits.
pub(crate) fn norms_in_one_dispatch(gpu: &Gpu) -> Result<(), String> {
    let engine = engine(gpu)?;
    let tuned = |finish_in_norm| {
        let tuning = changed(Tuning::default(), |it| {
            it.finish_in_norm = finish_in_norm;
            it.max_buffer_sets = 2;
        });
        let engine = Engine::with_tuning(engine.device(), engine.queue(), tuning);
        engine.map(Arc::new).map_err(|error| error.to_string())
    };
    let (separate, joined) = (tuned(false)?, tuned(true)?);
    let clip = Some(Clip { max_norm: 1.0, scope: ClipScope::Both });
    let adaptive = Hyperparameters { adaptive: true, ..adamw() };
    let in_groups = Hyperparameters { groups: groups::all_overrides(), clip, ..sgd_momentum() };
    let cases = [
        (propagating(sgd_momentum()), 3, 1),
        (adamw(), 4, 1),
        (Hyperparameters { clip, ..sgd() }, 4, 2),
        (propagating(adaptive.clone()), 3, 1),
        (Hyperparameters { clip, ..adaptive }, 4, 2),
        (in_groups, 4, 2),
    ];
    let is_vulkan = gpu.adapter.get_info().backend == wgpu::Backend::Vulkan;
    for (hyper, dispatches, norms) in cases {
        let name = format!("{hyper:?}");
        let saved = if is_vulkan { norms } else { 0 };
        for tensors in [1, 3, 200] {
            let count = |engine: &Engine| {
                let stats = step(engine, hyper.clone(), tensors, 4096);
                stats.map(|stats| stats.dispatches).map_err(|error| error.to_string())
            };
            let (apart, together) = (count(&separate)?, count(&joined)?);
            if (apart, together) != (dispatches + norms, dispatches + norms - saved) {
                return Err(format!(
                    "{name}, {tensors} tensors: {apart} and {together} dispatches"
                ));
            }
        }
        let lens = [5000, 17, 30_000, 5, 0, 64, 1000, 3, 259];
        let of = if hyper.groups.is_empty() { [0; 9] } else { [1, 2, 3, 4, 4, 5, 6, 0, 5] };
        let bits = |engine: &Arc<Engine>| {
            let route =
                EngineRoute::new(engine, hyper.clone(), Placed::OutOfPlace, &model(3, &lens));
            let mut route = route.with_groups(&of);
            let mut found = Vec::new();
            for step in 0..3 {
                found.extend(route.ascend(&model(50 + step, &lens))?);
                found.extend(route.descend(0.02, &model(60 + step, &lens))?);
            }
            Ok::<_, String>(found)
        };
        if bits(&separate)? != bits(&joined)? {
            return Err(format!("{name}: other bits"));
        }
    }
    Ok(())
}
