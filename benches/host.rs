//! What the host pays: recording in the engine, and the calls of the Burn route with the device idle
//! and the gradients ready.

#[path = "common/burned.rs"]
#[allow(dead_code)]
mod burned;
#[path = "common/raw.rs"]
#[allow(dead_code)]
mod raw;
#[path = "common/report.rs"]
#[allow(dead_code)]
mod report;
#[path = "common/sets.rs"]
mod sets;

use burn::optim::GradientsParams;
use burn::tensor::{Distribution, Tensor};
use burn_wsam::RoutePolicy::{Fused, TensorOps};
use burn_wsam::method::{Hyperparameters, NonFinite};
use burned::{Deep, bases, wsam};
use criterion::{Criterion, criterion_group, criterion_main};
use raw::{Model, Steps};
use report::Report;
use serde_json::Value;
use std::time::{Duration, Instant};

/// Recording both halves, without and with a plan that fits.
fn recording(criterion: &mut Criterion, report: &Report) {
    let (engine, _) = raw::engine();
    let (_, base) = raw::bases()[1];
    let non_finite = NonFinite::Propagate;
    let hyper = Hyperparameters { non_finite, ..Hyperparameters::new(base) };
    for set in sets::sets() {
        let mut group = criterion.benchmark_group(format!("recording, {}", set.name));
        group.sample_size(20).measurement_time(Duration::from_secs(1));
        let model = Model::new(&engine, &set.lens, 4 + base.state_names().len());
        let steps = Steps::new(&model, false);
        let record = || {
            let start = Instant::now();
            steps.record(&engine, &hyper, drop).expect("a valid step");
            start.elapsed()
        };
        report.time(&mut group, (set.name, "recording"), None, Value::Null, None, record);
        let anew = || {
            engine.forget_plans();
            record()
        };
        report.time(
            &mut group,
            (set.name, "recording with a new plan"),
            None,
            Value::Null,
            None,
            anew,
        );
        group.finish();
    }
}

/// A step's calls on a model of 160 tensors. The gradients are computed before each call, and what a
/// call has submitted is waited for after it.
fn calls(criterion: &mut Criterion, report: &Report) {
    let device = raw::shared().autodiff();
    let x = Tensor::<2>::random([5, 24], Distribution::Default, &device);
    let set = "160 tensors in Burn";
    let mut group = criterion.benchmark_group(set);
    group.sample_size(20).measurement_time(Duration::from_secs(2));
    let grads = |model: &Deep| {
        let grads = GradientsParams::from_grads(model.loss(&x).backward(), model);
        device.sync().expect("the device is there");
        grads
    };
    for (base, config, burns) in bases() {
        for (way, route) in [("fused", Fused), ("tensor operations", TensorOps)] {
            let mut optim = wsam(&config, route, false, &device);
            let mut model = Some(Deep::new(24, &device));
            let mut run = || {
                let before = model.take().expect("put back after each step");
                let first = grads(&before);
                let start = Instant::now();
                let ascended = optim.ascend(before, first).expect("a valid step");
                let up = start.elapsed();
                let second = grads(ascended.model());
                let start = Instant::now();
                let after = optim.descend(1e-3, ascended, second).expect("a valid step");
                let down = start.elapsed();
                model = Some(after);
                up + down
            };
            for _ in 0..5 {
                run();
            }
            report.time(&mut group, (set, &format!("{base}, {way}")), None, Value::Null, None, run);
        }
        let mut optim = burns();
        let mut model = Some(Deep::new(24, &device));
        let run = || {
            let before = model.take().expect("put back after each step");
            let grads = grads(&before);
            let start = Instant::now();
            model = Some(optim.step(1e-3, before, grads));
            start.elapsed()
        };
        let name = format!("{base}, Burn's own alone");
        report.time(&mut group, (set, &name), None, Value::Null, None, run);
    }
    group.finish();
}

fn host(criterion: &mut Criterion) {
    let (_, adapter) = raw::engine();
    let report = Report::new("host", raw::machine(&adapter));
    recording(criterion, &report);
    calls(criterion, &report);
    report.finish().expect("the report can be written");
}

criterion_group!(benches, host);
criterion_main!(benches);
