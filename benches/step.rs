//! Times a whole step of the engine on raw buffers, for each base optimizer and mode, with a wait after each phase and
//! pipelined, each interleaved with a plain copy on the same adapter. See README.md in this folder.

use burn_wsam::method::{Hyperparameters, NonFinite};
use burn_wsam_support::bench::clock::has_timestamps;
use burn_wsam_support::bench::copy::Copy;
use burn_wsam_support::bench::engine_steps::{
    self, Model, Steps, bases, pipelined_count, pipelined_counts,
};
use burn_wsam_support::bench::report::{self, Other, Report};
use burn_wsam_support::bench::sets;
use burn_wsam_support::bench::stages::{device_time, most_bytes};
use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::json;
use std::cell::{LazyCell, RefCell};
use std::time::Duration;

fn steps(criterion: &mut Criterion) {
    let (engine, adapter) = engine_steps::engine();
    println!("{:?}", engine.tuning());
    let timed = engine.fork().expect("the device is there");
    let has_timestamps = has_timestamps(&engine) && timed.time_dispatches().is_ok();
    let report = Report::new("step", engine_steps::machine(&adapter));
    let clock = Copy::new(&engine, 0, 0).expect("the device is there").clock();
    for set in sets::sets() {
        if report.skips(set.name) {
            continue;
        }
        let parameters: u64 = set.lens.iter().sum();
        println!("{}: {} tensors, {parameters} parameters", set.name, set.lens.len());
        let mut group = criterion.benchmark_group(set.name);
        report::configure(&mut group, Duration::from_millis(500), Duration::from_secs(2));
        // One copy for all rows, of as many bytes as the largest step moves.
        let (most, resident) = most_bytes(parameters);
        let copied =
            LazyCell::new(|| Copy::new(&engine, most, resident).expect("the device is there"));
        let run = || copied.run().expect("the device is there");
        let bytes = Some(Copy::bytes_for(&engine, most, resident));
        let copy = Other { name: "copy", bytes, clock: clock.name(), run: &run };
        for (base_name, base) in bases() {
            let model = Model::new(&engine, &set.lens, 4 + base.state_names().len());
            use NonFinite::{Propagate, Skip};
            for (mode, lean, non_finite) in
                [("", false, Propagate), (", lean", true, Propagate), (", checked", false, Skip)]
            {
                let name = format!("{base_name}{mode}");
                let hyper = Hyperparameters { non_finite, ..Hyperparameters::new(base) };
                let steps = Steps::new(&model, lean);
                // Recorded without submission, for the counts.
                let stats = steps.record(&engine, &hyper, drop).expect("a valid step");
                let counts = json!({
                    "dispatches": stats.dispatches,
                    "bytes_a_parameter": stats.bytes() as f64 / parameters as f64,
                });
                let measured = (Some(stats.bytes()), "host");

                let all = RefCell::new(Vec::new());
                let run = || {
                    let (times, _) = steps.run(&engine, &hyper).expect("a valid step");
                    let whole = times.whole;
                    all.borrow_mut().push(times);
                    whole
                };
                let what = (set.name, name.as_str());
                report.time(&mut group, what, measured, counts.clone(), Some(&copy), run);

                let times = all.into_inner();
                // Empty if the row is filtered out or skipped.
                let Some(last) = times.last() else { continue };
                let count = pipelined_count(last.whole);
                let run = || steps.run_pipelined(&engine, &hyper, count).expect("a valid step");
                let name = format!("{name}, pipelined");
                let what = (set.name, name.as_str());
                report.time(&mut group, what, measured, counts, Some(&copy), run);
                report.add_counts(what, |row| {
                    let device = || device_time(&timed, &hyper, &steps).expect("a valid step");
                    let device = has_timestamps.then(device).filter(|seconds| *seconds > 0.0);
                    pipelined_counts(&row.seconds, count, &times, device)
                });
            }
        }
        report.others(set.name);
        group.finish();
    }
    report.finish().expect("the report can be written");
}

criterion_group!(benches, steps);
criterion_main!(benches);
