//! The Burn route from end to end, host and device, synchronised: the optimizer's part of a step on
//! the parameter sets, and whole training steps beside their two passes alone.

#[path = "common/burned.rs"]
mod burned;
#[path = "common/copy.rs"]
mod copy;
#[path = "../examples/digits/data.rs"]
#[allow(dead_code)]
mod data;
#[path = "../examples/digits/model.rs"]
#[allow(dead_code)]
mod model;
#[path = "common/raw.rs"]
#[allow(dead_code)]
mod raw;
#[path = "common/report.rs"]
mod report;
#[path = "common/sets.rs"]
mod sets;

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Distribution, Tensor};
use burn_wsam::RoutePolicy::{Fused, TensorOps};
use burned::{Deep, Flat, bases, wsam};
use criterion::{
    BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime,
};
use report::Report;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const LR: f64 = 1e-3;

/// Name, route, lean mode.
const WAYS: [(&str, burn_wsam::RoutePolicy, bool); 3] = [
    ("fused", Fused, false),
    ("fused, lean", Fused, true),
    ("tensor operations", TensorOps, false),
];

fn sync(device: &Device) {
    device.sync().expect("the device is there");
}

fn timed<T>(device: &Device, run: impl FnOnce() -> T) -> (Duration, T) {
    sync(device);
    let start = Instant::now();
    let value = run();
    sync(device);
    (start.elapsed(), value)
}

fn slow(group: &mut BenchmarkGroup<'_, WallTime>) {
    group.sample_size(10).warm_up_time(Duration::from_millis(200));
    group.measurement_time(Duration::from_secs(2));
}

/// The optimizer's part of a step: both gradients are there, and nothing else is timed.
fn optimizers(criterion: &mut Criterion, report: &Report, device: &Device) {
    let (engine, _) = raw::engine();
    let largest = engine.device().limits().max_storage_buffer_binding_size;
    for set in sets::sets() {
        if set.lens.iter().any(|len| 4 * len > largest) {
            println!("{}: left out, for Burn keeps a tensor in one binding of {largest}", set.name);
            continue;
        }
        let parameters: u64 = set.lens.iter().sum();
        let mut group = criterion.benchmark_group(set.name);
        slow(&mut group);
        let made_up = Flat::new(&set.lens, device).made_up(&device.clone().inner());
        for (base, config, burns) in bases() {
            for (way, route, lean) in WAYS {
                let mut optim = wsam(&config, route, lean, device);
                let mut model = Some(Flat::new(&set.lens, device));
                let mut run = || {
                    let before = model.take().expect("put back after each step");
                    let (first, second) = (before.grads(&made_up), before.grads(&made_up));
                    let (time, after) = if lean {
                        let (up, ascended) = timed(device, || {
                            optim.lean_ascend(LR, before, first).expect("a valid step")
                        });
                        let (down, after) = timed(device, || {
                            optim.lean_descend(ascended, second).expect("a valid step")
                        });
                        (up + down, after)
                    } else {
                        let (up, ascended) =
                            timed(device, || optim.ascend(before, first).expect("a valid step"));
                        let (down, after) = timed(device, || {
                            optim.descend(LR, ascended, second).expect("a valid step")
                        });
                        (up + down, after)
                    };
                    model = Some(after);
                    time
                };
                // Everything has found its place after a few steps.
                for _ in 0..3 {
                    run();
                }
                let name = format!("{base}, {way}");
                report.time(&mut group, (set.name, &name), None, Value::Null, run);
                if let Some(stats) = optim.last_step() {
                    println!(
                        "{name}: {} dispatches, {} buffers, {} bytes a parameter",
                        stats.dispatches,
                        stats.buffers,
                        stats.bytes() as f64 / parameters as f64
                    );
                }
            }
            let mut optim = burns();
            let mut model = Some(Flat::new(&set.lens, device));
            let run = || {
                let before = model.take().expect("put back after each step");
                let grads = before.grads(&made_up);
                let (time, after) = timed(device, || optim.step(LR, before, grads));
                model = Some(after);
                time
            };
            let name = format!("{base}, Burn's own alone");
            report.time(&mut group, (set.name, &name), None, Value::Null, run);
        }
        let model = raw::Model::new(&engine, &set.lens, 2);
        let (bytes, run) = copy::copy(&engine, [&model.buffers[0], &model.buffers[1]]);
        report.time(&mut group, (set.name, "copy"), Some(bytes), Value::Null, run);
        group.finish();
    }
}

/// Whole training steps of a model, beside the two passes they are made of.
fn training<M: Module>(
    criterion: &mut Criterion,
    report: &Report,
    (set, device): (&str, &Device),
    new: impl Fn() -> M,
    loss: impl Fn(&M) -> Tensor<1>,
) {
    let mut group = criterion.benchmark_group(set);
    slow(&mut group);
    let model = new();
    let passes = || {
        let pass = || GradientsParams::from_grads(loss(&model).backward(), &model);
        // Kept, as a step keeps the first one's gradients through the second.
        timed(device, || (pass(), pass())).0
    };
    report.time(&mut group, (set, "two passes alone"), None, Value::Null, passes);
    for (base, config, _) in bases() {
        for (way, route, lean) in WAYS {
            let mut optim = wsam(&config, route, lean, device);
            let mut model = Some(new());
            let mut run = || {
                let before = model.take().expect("put back after each step");
                let (time, after) =
                    timed(device, || optim.step(LR, before, &loss).expect("a valid step").0);
                model = Some(after);
                time
            };
            for _ in 0..3 {
                run();
            }
            let counts = json!({ "whole_step": true });
            report.time(&mut group, (set, &format!("{base}, {way}")), None, counts, run);
        }
    }
    group.finish();
}

fn all(criterion: &mut Criterion) {
    let device = burned::device().autodiff();
    let (_, adapter) = raw::engine();
    let report = Report::new("burn", &adapter);
    optimizers(criterion, &report, &device);

    let x = Tensor::<2>::random([16, 24], Distribution::Default, &device);
    let deep = |model: &Deep| model.loss(&x);
    training(criterion, &report, ("160 tensors", &device), || Deep::new(24, &device), deep);

    let (_, test) = data::Digits::split();
    let batch = test.all(&device);
    let network = |network: &model::Network| network.loss(&batch);
    let new = || model::Network::new(1, &device);
    training(criterion, &report, ("digits network", &device), new, network);
    report.finish().expect("the report can be written");
}

criterion_group!(benches, all);
criterion_main!(benches);
