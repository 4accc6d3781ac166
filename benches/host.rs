//! Host time: recording in the engine, and the calls of a step in Burn, with the device idle and the
//! gradients ready.

use burn::optim::GradientsParams;
use burn::tensor::{Distribution, Tensor};
use burn_wsam::RoutePolicy::{Fused, TensorOps};
use burn_wsam::method::{Hyperparameters, NonFinite};
use burn_wsam_support::bench::burn_models::{Deep, bases, wsam};
use burn_wsam_support::bench::engine_steps::{Model, Steps};
use burn_wsam_support::bench::report::Report;
use burn_wsam_support::bench::{engine_steps, sets};
use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::Value;
use std::time::{Duration, Instant};

/// Times the recording of both phases, with cached and with new plans.
fn recording(criterion: &mut Criterion, report: &Report) {
    let (engine, _) = engine_steps::engine();
    let (_, base) = engine_steps::bases()[1];
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
        report.time(&mut group, (set.name, "recording"), (None, "host"), Value::Null, None, record);
        let with_new_plan = || {
            engine.forget_plans();
            record()
        };
        report.time(
            &mut group,
            (set.name, "recording with a new plan"),
            (None, "host"),
            Value::Null,
            None,
            with_new_plan,
        );
        group.finish();
    }
}

/// Times a step's calls on a model of 160 tensors. The gradients are computed before the clock starts, and
/// the wait for submitted work comes after it stops.
fn calls(criterion: &mut Criterion, report: &Report) {
    let device = engine_steps::shared().autodiff();
    let x = Tensor::<2>::random([5, 24], Distribution::Default, &device);
    let set = "160 tensors in Burn";
    let mut group = criterion.benchmark_group(set);
    group.sample_size(20).measurement_time(Duration::from_secs(2));
    let grads = |model: &Deep| {
        let grads = GradientsParams::from_grads(model.loss(&x).backward(), model);
        device.sync().expect("the device works");
        grads
    };
    for (base, config, burns) in bases() {
        for (name, route) in [("fused", Fused), ("tensor operations", TensorOps)] {
            let mut optim = wsam(&config, route, false, &device);
            let mut model = Some(Deep::new(24, &device));
            let mut run = || {
                let before = model.take().expect("the model is put back after each step");
                let first = grads(&before);
                let start = Instant::now();
                let ascended = optim.ascend(before, first).expect("a valid step");
                let ascent_time = start.elapsed();
                let second = grads(ascended.model());
                let start = Instant::now();
                let after = optim.descend(1e-3, ascended, second).expect("a valid step");
                let descent_time = start.elapsed();
                model = Some(after);
                ascent_time + descent_time
            };
            for _ in 0..5 {
                run();
            }
            report.time(
                &mut group,
                (set, &format!("{base}, {name}")),
                (None, "host"),
                Value::Null,
                None,
                run,
            );
        }
        let mut optim = burns();
        let mut model = Some(Deep::new(24, &device));
        let run = || {
            let before = model.take().expect("the model is put back after each step");
            let grads = grads(&before);
            let start = Instant::now();
            model = Some(optim.step(1e-3, before, grads));
            start.elapsed()
        };
        let name = format!("{base}, Burn's own alone");
        report.time(&mut group, (set, &name), (None, "host"), Value::Null, None, run);
    }
    group.finish();
}

fn host(criterion: &mut Criterion) {
    let (_, adapter) = engine_steps::engine();
    let report = Report::new("host", engine_steps::machine(&adapter));
    recording(criterion, &report);
    calls(criterion, &report);
    report.finish().expect("the report can be written");
}

criterion_group!(benches, host);
criterion_main!(benches);
