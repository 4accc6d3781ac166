//! Times a whole step of the engine on raw buffers, for each base optimizer and mode, interleaved with a
//! plain copy on the same adapter. See README.md in this folder.

use burn_wsam::method::{Hyperparameters, NonFinite};
use burn_wsam_support::bench::engine_steps::{Model, Steps, bases};
use burn_wsam_support::bench::report::{Other, Report};
use burn_wsam_support::bench::{copy, engine_steps, sets};
use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::json;
use std::time::Duration;

fn steps(criterion: &mut Criterion) {
    let (engine, adapter) = engine_steps::engine();
    println!("{:?}", engine.tuning());
    let report = Report::new("step", engine_steps::machine(&adapter));
    for set in sets::sets() {
        let parameters: u64 = set.lens.iter().sum();
        println!("{}: {} tensors, {parameters} parameters", set.name, set.lens.len());
        let mut group = criterion.benchmark_group(set.name);
        group.sample_size(10).warm_up_time(Duration::from_millis(500));
        group.measurement_time(Duration::from_secs(2));
        for (base_name, base) in bases() {
            let model = Model::new(&engine, &set.lens, 4 + base.state_names().len());
            let (bytes, run) = copy::copy(&engine, [&model.buffers[0], &model.buffers[1]]);
            let copy = Other { name: "copy", bytes: Some(bytes), run: &run };
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
                let run = || steps.run(&engine, &hyper).expect("a valid step").0;
                let (what, bytes) = ((set.name, name.as_str()), Some(stats.bytes()));
                report.time(&mut group, what, bytes, counts, Some(&copy), run);
            }
        }
        report.others(set.name);
        group.finish();
    }
    report.finish().expect("the report can be written");
}

criterion_group!(benches, steps);
criterion_main!(benches);
