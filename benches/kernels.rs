//! Each stage of a step by itself, by timestamps on the device, beside a plain copy.

#[path = "common/copy.rs"]
mod copy;
#[path = "common/raw.rs"]
#[allow(dead_code)]
mod raw;
#[path = "common/report.rs"]
mod report;
#[path = "common/sets.rs"]
mod sets;

use burn_wsam::engine::Engine;
use burn_wsam::layout::Stage;
use burn_wsam::method::Hyperparameters;
use criterion::{Criterion, criterion_group, criterion_main};
use raw::{Model, Steps, bases, wait};
use report::Report;
use serde_json::Value;
use std::time::Duration;

/// Bytes a parameter that a stage moves, with so many states.
fn bytes(stage: Stage, states: u64) -> u64 {
    4 * match stage {
        Stage::Norm => 1,
        Stage::NormFinish => 0,
        Stage::Ascent => 3,
        Stage::Descent => 4 + 2 * states,
        Stage::LeanAscent => 4 + 2 * states,
        Stage::LeanDescent => 3,
    }
}

/// Device time of one stage in one step, all its dispatches together.
fn stage_time(engine: &Engine, hyper: &Hyperparameters, steps: &Steps, wanted: Stage) -> Duration {
    let mut total = Duration::ZERO;
    steps
        .record(engine, hyper, |encoder| {
            engine.queue().submit([encoder.finish()]);
            wait(engine);
            let times = engine.read_times().expect("the device is there");
            let stage = times.iter().filter(|(stage, _)| *stage == wanted);
            // Said, for a crate of the `time` kind adds other sums to Duration.
            total += stage.map(|(_, time)| *time).sum::<Duration>();
        })
        .expect("a valid step");
    total
}

fn kernels(criterion: &mut Criterion) {
    let (engine, adapter) = raw::engine();
    if let Err(error) = engine.time_dispatches() {
        println!("{error}: no times of single stages on {}", adapter.name);
        return;
    }
    let report = Report::new("kernels", raw::machine(&adapter));
    for set in sets::sets() {
        let parameters: u64 = set.lens.iter().sum();
        let mut group = criterion.benchmark_group(set.name);
        group.sample_size(10).warm_up_time(Duration::from_millis(300));
        group.measurement_time(Duration::from_secs(1));
        for (base_name, base) in bases() {
            let (hyper, states) = (Hyperparameters::new(base), base.state_names().len());
            let model = Model::new(&engine, &set.lens, 4 + states);
            let [ordinary, lean] = [false, true].map(|lean| Steps::new(&model, lean));
            let all = [
                (Stage::Norm, &ordinary),
                (Stage::NormFinish, &ordinary),
                (Stage::Ascent, &ordinary),
                (Stage::Descent, &ordinary),
                (Stage::LeanAscent, &lean),
                (Stage::LeanDescent, &lean),
            ];
            for (stage, steps) in all {
                // These do not depend on the base optimizer.
                let shared = !matches!(stage, Stage::Descent | Stage::LeanAscent);
                if shared && states > 0 {
                    continue;
                }
                let name = match shared {
                    true => stage.entry_point().to_owned(),
                    false => format!("{}, {base_name}", stage.entry_point()),
                };
                let moved = parameters * bytes(stage, states as u64);
                let moved = Some(moved).filter(|bytes| *bytes > 0);
                let run = || stage_time(&engine, &hyper, steps, stage);
                report.time(&mut group, (set.name, &name), moved, Value::Null, run);
            }
        }
        let model = Model::new(&engine, &set.lens, 2);
        let (bytes, run) = copy::copy(&engine, [&model.buffers[0], &model.buffers[1]]);
        report.time(&mut group, (set.name, "copy"), Some(bytes), Value::Null, run);
        group.finish();
    }
    report.finish().expect("the report can be written");
}

criterion_group!(benches, kernels);
criterion_main!(benches);
