//! Counted costs: the number of dispatches does not depend on the number of tensors, and the bytes are those of the
//! design.

use super::*;
use burn_wsam::engine::{
    AscentOptions, AscentTensor, BlendSource, DescentTensor, EngineError, Slice, StepStats,
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
    let at = |role: usize, i: usize| Slice {
        offset: (4 * len * i) as u64,
        ..Slice::new(&buffers[role], len as u64)
    };
    let ascents: Vec<_> = (0..tensors)
        .map(|i| AscentTensor {
            weight: at(0, i),
            grad: at(1, i),
            partner: Some(at(2, i)),
            group: 0,
        })
        .collect();
    let descents: Vec<_> = (0..tensors)
        .map(|i| DescentTensor {
            weight: at(0, i),
            anchor: None,
            grad: at(1, i),
            grad_perturbed: at(3, i),
            state: (0..states).map(|s| at(4 + s, i)).collect(),
            step: 1,
            group: 0,
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
