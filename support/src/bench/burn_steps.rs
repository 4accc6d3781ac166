//! Timing of steps in Burn on host and device together, with a synchronisation before and after.

use super::burn_models::{Deep, Flat, bases, wsam};
use super::report::{Other, Report};
use crate::digits::{data::Digits, model::Network};
use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use burn_wsam::RoutePolicy;
use criterion::{BenchmarkGroup, Criterion, measurement::WallTime};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const LR: f64 = 1e-3;

/// A route and a mode, with the name of its rows.
#[derive(Clone, Copy)]
pub struct Variant {
    pub name: &'static str,
    pub route: RoutePolicy,
    pub lean: bool,
}

fn timed<T>(device: &Device, run: impl FnOnce() -> T) -> (Duration, T) {
    let sync = || device.sync().expect("the device is there");
    sync();
    let start = Instant::now();
    let value = run();
    sync();
    (start.elapsed(), value)
}

pub fn configure(group: &mut BenchmarkGroup<'_, WallTime>) {
    group.sample_size(10).warm_up_time(Duration::from_millis(200));
    group.measurement_time(Duration::from_secs(2));
}

/// Times the optimizer's part of a step over a parameter set, with both gradients computed before; then one step
/// of Burn's own base optimizers.
pub fn time_optimizers(
    group: &mut BenchmarkGroup<'_, WallTime>,
    report: &Report,
    (set, lens): (&str, &[u64]),
    device: &Device,
    variants: &[Variant],
) {
    let random = Flat::new(lens, device).random_grads(&device.clone().inner());
    for (base, config, burns) in bases() {
        for variant in variants {
            let mut optim = wsam(&config, variant.route, variant.lean, device);
            let mut model = Some(Flat::new(lens, device));
            let mut run = || {
                let before = model.take().expect("put back after each step");
                let (first, second) = (before.grads(&random), before.grads(&random));
                let (times, after) = if variant.lean {
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
                times
            };
            // Everything has found its place after a few steps.
            for _ in 0..3 {
                run();
            }
            let name = format!("{base}, {}", variant.name);
            report.time(group, (set, &name), None, Value::Null, None, run);
        }
        let mut optim = burns();
        let mut model = Some(Flat::new(lens, device));
        let run = || {
            let before = model.take().expect("put back after each step");
            let grads = before.grads(&random);
            let (time, after) = timed(device, || optim.step(LR, before, grads));
            model = Some(after);
            time
        };
        let name = format!("{base}, Burn's own alone");
        report.time(group, (set, &name), None, Value::Null, None, run);
    }
}

/// Times whole training steps of a model, interleaved with their two passes alone.
pub fn time_training<M: Module>(
    criterion: &mut Criterion,
    report: &Report,
    (set, device): (&str, &Device),
    variants: &[Variant],
    new: impl Fn() -> M,
    loss: impl Fn(&M) -> Tensor<1>,
) {
    let mut group = criterion.benchmark_group(set);
    configure(&mut group);
    let model = new();
    let pass = || timed(device, || GradientsParams::from_grads(loss(&model).backward(), &model));
    let passes = || {
        // Kept until the second pass ends, as a step does.
        let (first, _grads) = pass();
        first + pass().0
    };
    passes();
    let passes = Other { name: "two passes alone", bytes: None, run: &passes };
    for (base, config, _) in bases() {
        for variant in variants {
            let mut optim = wsam(&config, variant.route, variant.lean, device);
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
            let name = format!("{base}, {}", variant.name);
            report.time(&mut group, (set, &name), None, counts, Some(&passes), run);
        }
    }
    report.others(set);
    group.finish();
}

/// Times training steps of two models: 160 small tensors, and the network of the digits example.
pub fn time_trainings(
    criterion: &mut Criterion,
    report: &Report,
    device: &Device,
    variants: &[Variant],
) {
    let x = Tensor::<2>::random([16, 24], burn::tensor::Distribution::Default, device);
    let deep = |model: &Deep| model.loss(&x);
    time_training(
        criterion,
        report,
        ("160 tensors", device),
        variants,
        || Deep::new(24, device),
        deep,
    );

    let (_, test) = Digits::split();
    let batch = test.all(device);
    let network = |network: &Network| network.loss(&batch);
    let new = || Network::new(1, device);
    time_training(criterion, report, ("digits network", device), variants, new, network);
}
