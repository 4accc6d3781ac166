//! Timing of steps in Burn on host and device together, with a synchronisation before and after.

use super::burn_models::{Deep, Flat, bases, wsam};
use super::report::{self, Other, Report};
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
    report::configure(group, Duration::from_millis(200), Duration::from_secs(2));
}

/// One optimizer and its model. `step` runs the function that it gets between the phases, and after the last one.
struct Stepping<'a, S> {
    device: &'a Device,
    random: &'a [Tensor<1>],
    model: Option<Flat>,
    step: S,
    /// Number of steps that are pipelined; 0 before the first steps.
    count: u32,
}

impl<S: FnMut(Flat, [GradientsParams; 2], &dyn Fn()) -> Flat> Stepping<'_, S> {
    fn one(&mut self, between: &dyn Fn()) -> Duration {
        let before = self.model.take().expect("put back after each step");
        let grads = [before.grads(self.random), before.grads(self.random)];
        let start = Instant::now();
        self.model = Some((self.step)(before, grads, between));
        start.elapsed()
    }

    fn sync(&self) {
        self.device.sync().expect("the device is there");
    }

    /// One step, with a wait after each phase.
    fn waited(&mut self) -> Duration {
        self.sync();
        let device = self.device;
        self.one(&|| device.sync().expect("the device is there"))
    }

    /// The first steps: buffers and plans are reused after a few. Rows that are filtered out have none.
    fn warm_up(&mut self) {
        if self.count == 0 {
            (0..3).for_each(|_| _ = self.waited());
            self.count = pipelined_count(self.waited());
        }
    }

    /// Steps one after another and one wait, by the step.
    fn pipelined(&mut self) -> Duration {
        self.sync();
        let start = Instant::now();
        for _ in 0..self.count {
            self.one(&|| ());
        }
        self.sync();
        start.elapsed() / self.count
    }

    fn time(
        mut self,
        group: &mut BenchmarkGroup<'_, WallTime>,
        report: &Report,
        (set, name): (&str, &str),
    ) {
        let measured = (None, "host");
        report.time(group, (set, name), measured, Value::Null, None, || {
            self.warm_up();
            self.waited()
        });
        let name = format!("{name}, pipelined");
        report.time(group, (set, &name), measured, Value::Null, None, || {
            self.warm_up();
            self.pipelined()
        });
        report.add_counts((set, &name), |_| json!({ "pipelined_steps": self.count }));
    }
}

/// Number of steps that are pipelined. Steps in Burn take longer than the engine's, and tensor operations up to half a
/// second.
fn pipelined_count(step: Duration) -> u32 {
    (0.1 / step.as_secs_f64().max(1e-6)).clamp(2.0, 20.0) as u32
}

/// Times the optimizer's part of a step over a parameter set, with both gradients computed before; then one step
/// of Burn's own base optimizers. Each with a wait after each phase, and pipelined.
pub fn time_optimizers(
    group: &mut BenchmarkGroup<'_, WallTime>,
    report: &Report,
    (set, lens): (&str, &[u64]),
    device: &Device,
    variants: &[Variant],
) {
    let random = &Flat::new(lens, device).random_grads(&device.clone().inner());
    let new = || Some(Flat::new(lens, device));
    for (base, config, burns) in bases() {
        for variant in variants {
            let mut optim = wsam(&config, variant.route, variant.lean, device);
            let step = |before: Flat, [first, second]: [GradientsParams; 2], between: &dyn Fn()| {
                let after = if variant.lean {
                    let ascended = optim.lean_ascend(LR, before, first).expect("a valid step");
                    between();
                    optim.lean_descend(ascended, second).expect("a valid step")
                } else {
                    let ascended = optim.ascend(before, first).expect("a valid step");
                    between();
                    optim.descend(LR, ascended, second).expect("a valid step")
                };
                between();
                after
            };
            let name = format!("{base}, {}", variant.name);
            let steps = Stepping { device, random, model: new(), step, count: 0 };
            steps.time(group, report, (set, &name));
        }
        let mut optim = burns();
        let step = |before: Flat, [grads, _]: [GradientsParams; 2], between: &dyn Fn()| {
            let after = optim.step(LR, before, grads);
            between();
            after
        };
        let name = format!("{base}, Burn's own alone");
        let steps = Stepping { device, random, model: new(), step, count: 0 };
        steps.time(group, report, (set, &name));
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
    let passes = Other { name: "two passes alone", bytes: None, clock: "host", run: &passes };
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
            let mut is_warm = false;
            let run = || {
                if !is_warm {
                    (0..3).for_each(|_| _ = run());
                    is_warm = true;
                }
                run()
            };
            let counts = json!({ "whole_step": true });
            let name = format!("{base}, {}", variant.name);
            report.time(&mut group, (set, &name), (None, "host"), counts, Some(&passes), run);
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
