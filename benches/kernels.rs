//! Times each stage of a step by timestamps on the device, interleaved with a plain copy.

use burn_wsam::layout::Stage;
use burn_wsam::method::{Hyperparameters, NonFinite};
use burn_wsam_support::bench::engine_steps::{Model, Steps, bases};
use burn_wsam_support::bench::report::{Other, Report};
use burn_wsam_support::bench::stages::{bytes, stage_time};
use burn_wsam_support::bench::{copy, engine_steps, sets, stages};
use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::Value;
use std::time::Duration;

fn kernels(criterion: &mut Criterion) {
    let (engine, adapter) = engine_steps::engine();
    if let Err(error) = engine.time_dispatches() {
        println!("{error}: no times of single stages on {}", adapter.name);
        return;
    }
    let report = Report::new("kernels", engine_steps::machine(&adapter));
    for set in sets::sets() {
        let parameters: u64 = set.lens.iter().sum();
        let mut group = criterion.benchmark_group(set.name);
        group.sample_size(10).warm_up_time(Duration::from_millis(300));
        group.measurement_time(Duration::from_secs(1));
        for (base_name, base) in bases() {
            let states = base.state_names().len();
            let non_finite = NonFinite::Propagate;
            let hyper = Hyperparameters { non_finite, ..Hyperparameters::new(base) };
            let model = Model::new(&engine, &set.lens, 4 + states);
            let (copied, run) = copy::copy(&engine, [&model.buffers[0], &model.buffers[1]]);
            let copy = Other { name: "copy", bytes: Some(copied), run: &run };
            let [ordinary, lean] = [false, true].map(|lean| Steps::new(&model, lean));
            let all = stages::stages(false).map(|stage| (stage, &ordinary));
            let lean = stages::stages(true).map(|stage| (stage, &lean));
            // Lean mode has the same norm stages.
            for (stage, steps) in all.into_iter().chain(lean.into_iter().skip(2)) {
                // These do not depend on the base optimizer.
                let shared = !matches!(stage, Stage::Descent | Stage::LeanAscent);
                if shared && states > 0 {
                    continue;
                }
                let name = stages::name(stage, base_name);
                let moved = parameters * bytes(stage, states as u64);
                let moved = Some(moved).filter(|bytes| *bytes > 0);
                let run = || stage_time(&engine, &hyper, steps, stage).expect("a valid step");
                let what = (set.name, name.as_str());
                report.time(&mut group, what, moved, Value::Null, Some(&copy), run);
            }
        }
        report.others(set.name);
        group.finish();
    }
    report.finish().expect("the report can be written");
}

criterion_group!(benches, kernels);
criterion_main!(benches);
