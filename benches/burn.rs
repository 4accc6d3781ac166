//! Steps in Burn from end to end: the optimizer's part of a step on the parameter sets, with a wait after each
//! phase and pipelined, and whole training steps compared with their two passes alone. unfused/ has the same without Burn's fusion.

use burn_wsam::RoutePolicy::{Fused, TensorOps};
use burn_wsam_support::bench::burn_steps::{Variant, configure, time_optimizers, time_trainings};
use burn_wsam_support::bench::copy::Copy;
use burn_wsam_support::bench::report::Report;
use burn_wsam_support::bench::{engine_steps, sets, stages};
use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::Value;
use std::cell::LazyCell;

const VARIANTS: [Variant; 3] = [
    Variant { name: "fused", route: Fused, lean: false },
    Variant { name: "fused, lean", route: Fused, lean: true },
    Variant { name: "tensor operations", route: TensorOps, lean: false },
];

fn all(criterion: &mut Criterion) {
    let device = engine_steps::shared().autodiff();
    let (engine, adapter) = engine_steps::engine();
    let report = Report::new("burn", engine_steps::machine(&adapter));
    let largest = engine.device().limits().max_storage_buffer_binding_size;
    let clock = Copy::new(&engine, 0, 0).expect("the device is there").clock();
    for set in sets::sets() {
        if report.skips(set.name) {
            continue;
        }
        if set.lens.iter().any(|len| 4 * len > largest) {
            println!(
                "{}: skipped, because Burn keeps a tensor in one binding of at most {largest} bytes",
                set.name
            );
            continue;
        }
        let mut group = criterion.benchmark_group(set.name);
        configure(&mut group);
        time_optimizers(&mut group, &report, (set.name, &set.lens), &device, &VARIANTS);
        let (most, resident) = stages::most_bytes(set.lens.iter().sum());
        let copy =
            LazyCell::new(|| Copy::new(&engine, most, resident).expect("the device is there"));
        let run = || copy.run().expect("the device is there");
        let measured = (Some(Copy::bytes_for(&engine, most, resident)), clock.name());
        report.time(&mut group, (set.name, "copy"), measured, Value::Null, None, run);
        group.finish();
    }
    time_trainings(criterion, &report, &device, &VARIANTS);
    report.finish().expect("the report can be written");
}

criterion_group!(benches, all);
criterion_main!(benches);
