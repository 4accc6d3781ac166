//! Times each stage of a step, interleaved with a plain copy, both by timestamps on the device. Without timestamps it
//! times the two phases and the copy by the host's clock.

use burn_wsam::engine::Engine;
use burn_wsam::layout::Stage;
use burn_wsam::method::{Hyperparameters, NonFinite};
use burn_wsam_support::bench::clock::{Clock, has_timestamps};
use burn_wsam_support::bench::copy::Copy;
use burn_wsam_support::bench::engine_steps::{self, Model, Steps, bases};
use burn_wsam_support::bench::report::{self, Other, Report};
use burn_wsam_support::bench::stages::{most_bytes, phases, stage_time};
use burn_wsam_support::bench::{sets, stages};
use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::Value;
use std::cell::LazyCell;
use std::time::Duration;

/// A row: its name, the bytes it moves, and a run.
type Timed<'a> = (String, u64, Box<dyn Fn() -> Duration + 'a>);

fn kernels(criterion: &mut Criterion) {
    let (engine, adapter) = engine_steps::engine();
    let report = Report::new("kernels", engine_steps::machine(&adapter));
    // A fork, because phases are timed without timestamps.
    let timed = engine.fork().expect("the device is there");
    if !has_timestamps(&engine) || timed.time_dispatches().is_err() {
        println!("no timestamps: phases and the copy are timed by the host's clock");
    }
    let clock = Copy::new(&engine, 0, 0).expect("the device is there").clock();
    for set in sets::sets() {
        if report.skips(set.name) {
            continue;
        }
        let parameters: u64 = set.lens.iter().sum();
        let mut group = criterion.benchmark_group(set.name);
        report::configure(&mut group, Duration::from_millis(300), Duration::from_secs(1));
        // One copy for all rows, of as many bytes as the largest step moves.
        let (most, resident) = most_bytes(parameters);
        let copied =
            LazyCell::new(|| Copy::new(&engine, most, resident).expect("the device is there"));
        let run = || copied.run().expect("the device is there");
        let bytes = Some(Copy::bytes_for(&engine, most, resident));
        let copy = Other { name: "copy", bytes, clock: clock.name(), run: &run };
        for (base_name, base) in bases() {
            let states = base.state_names().len();
            let non_finite = NonFinite::Propagate;
            let hyper = Hyperparameters { non_finite, ..Hyperparameters::new(base) };
            let model = Model::new(&engine, &set.lens, 4 + states);
            let moved = |stage| parameters * stages::bytes(stage, states as u64);
            let modes = [false, true].map(|lean| (lean, Steps::new(&model, lean)));
            let mut rows: Vec<Timed<'_>> = Vec::new();
            for (lean, steps) in &modes {
                if clock == Clock::Host {
                    rows.extend(by_phase(&engine, &hyper, steps, *lean, base_name, &moved));
                    continue;
                }
                // Lean mode has the same norm stages.
                for stage in stages::stages(*lean).into_iter().skip(if *lean { 2 } else { 0 }) {
                    // These do not depend on the base optimizer.
                    let shared = !matches!(stage, Stage::Descent | Stage::LeanAscent);
                    if shared && states > 0 {
                        continue;
                    }
                    let (timed, hyper) = (&timed, &hyper);
                    let run = move || stage_time(timed, hyper, steps, stage).expect("a valid step");
                    rows.push((stages::name(stage, base_name), moved(stage), Box::new(run)));
                }
            }
            for (name, moved, run) in rows {
                let measured = (Some(moved).filter(|bytes| *bytes > 0), clock.name());
                report.time(&mut group, (set.name, &name), measured, Value::Null, Some(&copy), run);
            }
        }
        report.others(set.name);
        group.finish();
    }
    report.finish().expect("the report can be written");
}

/// The two phases, by the host's clock.
fn by_phase<'a>(
    engine: &'a Engine,
    hyper: &'a Hyperparameters,
    steps: &'a Steps,
    lean: bool,
    base: &str,
    moved: &impl Fn(Stage) -> u64,
) -> [Timed<'a>; 2] {
    let mut phase = 0;
    phases(lean, base).map(|(name, stages)| {
        let index = phase;
        phase += 1;
        let run = move || steps.run(engine, hyper).expect("a valid step").0.phases[index];
        (name, stages.into_iter().map(moved).sum(), Box::new(run) as Box<dyn Fn() -> Duration>)
    })
}

criterion_group!(benches, kernels);
criterion_main!(benches);
