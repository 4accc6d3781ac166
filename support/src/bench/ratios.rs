//! Steps in tensor operations, interleaved with steps of Burn's own base optimizer.

use super::burn_models::{Flat, bases};
use super::sets::sets;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use burn_wsam::{BaseConfig, NonFinitePolicy, RoutePolicy, WsamConfig};
use std::time::Instant;

const LR: f64 = 1e-3;

/// 80 linear layers: a matrix and a bias each.
fn small_160() -> Vec<u64> {
    [24 * 24, 24].repeat(80)
}

/// Seconds that the threads of this process have run for, where Linux says so.
fn processor_time() -> f64 {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let nanoseconds = threads.filter_map(|thread| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    });
    1e-9 * nanoseconds.sum::<f64>()
}

/// Median and quartiles of times, in ms.
struct Quartiles([f64; 3]);

impl Quartiles {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
        Self([at(0.5), at(0.25), at(0.75)])
    }
}

impl std::fmt::Display for Quartiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [median, low, high] = self.0;
        write!(f, "{median:9.2} [{low:.2}, {high:.2}]")
    }
}

/// One model under one optimizer. `run` takes a step and waits for the device.
struct Stepper<'a> {
    name: &'static str,
    run: Box<dyn FnMut() + 'a>,
}

/// Steps of `model` with gradients that are the same at each step.
fn stepper<'a>(
    name: &'static str,
    (lens, device): (&[u64], &'a Device),
    grads: &'a [Tensor<1>],
    mut step: impl FnMut(Flat, GradientsParams, GradientsParams) -> Flat + 'a,
) -> Stepper<'a> {
    let mut model = Some(Flat::new(lens, device));
    let run = move || {
        let before = model.take().expect("put back after each step");
        let (first, second) = (before.grads(grads), before.grads(grads));
        model = Some(step(before, first, second));
        device.sync().expect("the device is there");
    };
    Stepper { name, run: Box::new(run) }
}

fn wsam<'a>(
    name: &'static str,
    model: (&[u64], &'a Device),
    grads: &'a [Tensor<1>],
    (config, policy): (&BaseConfig, NonFinitePolicy),
) -> Stepper<'a> {
    let device = model.1;
    let mut optim = WsamConfig::new(config.clone())
        .with_route(RoutePolicy::TensorOps)
        .with_non_finite(policy)
        .init(device)
        .expect("a valid configuration");
    stepper(name, model, grads, move |model, first, second| {
        let ascended = optim.ascend(model, first).expect("a valid step");
        // In training a pass over the data comes here, which ends what is pending.
        device.sync().expect("the device is there");
        optim.descend(LR, ascended, second).expect("a valid step")
    })
}

/// Times `rounds` steps of each optimizer over parameters of these lengths, interleaved. `count` runs a
/// step and may print what it counted.
fn ratios(
    (set, lens): (&str, &[u64]),
    device: &Device,
    rounds: usize,
    count: &mut impl FnMut(&str, &mut dyn FnMut()),
) {
    let grads = Flat::new(lens, device).random_grads(&device.clone().inner());
    for (base, config, burns) in bases() {
        let model = (lens, device);
        let mut optim = burns();
        let mut all = [
            stepper("Burn's own alone", model, &grads, move |model, first, _| {
                optim.step(LR, model, first)
            }),
            wsam("propagate", model, &grads, (&config, NonFinitePolicy::Propagate)),
            wsam("skip", model, &grads, (&config, NonFinitePolicy::Skip)),
        ];
        println!("{set}, {base}");
        for stepper in &mut all {
            let start = Instant::now();
            (stepper.run)();
            let first = start.elapsed().as_secs_f64();
            (stepper.run)();
            (stepper.run)();
            println!("  {:18} first step {:.0} ms", stepper.name, 1e3 * first);
            count(stepper.name, &mut *stepper.run);
        }
        let mut times = [const { Vec::new() }; 3];
        let mut cpu = [const { Vec::new() }; 3];
        for _ in 0..rounds {
            for ((stepper, times), cpu) in all.iter_mut().zip(&mut times).zip(&mut cpu) {
                let (start, before) = (Instant::now(), processor_time());
                (stepper.run)();
                times.push(1e3 * start.elapsed().as_secs_f64());
                cpu.push(1e3 * (processor_time() - before));
            }
        }
        let (own, own_cpu) = (times[0].clone(), cpu[0].clone());
        for ((stepper, times), cpu) in all.iter().zip(times).zip(cpu) {
            let over = |all: &[f64], own: &[f64]| {
                Quartiles::of(all.iter().zip(own).map(|(time, own)| time / own).collect())
            };
            let (ratio, cpu_ratio) = (over(&times, &own), over(&cpu, &own_cpu));
            let (times, cpu) = (Quartiles::of(times), Quartiles::of(cpu));
            println!(
                "  {:18} {times} ms, ratio {ratio}; processor {cpu} ms, ratio {cpu_ratio}",
                stepper.name
            );
        }
    }
}

/// Compares over all sets on all devices. On the command line: the number of rounds, and words of which one
/// must occur in `device, set`.
pub fn all(devices: &[(&str, Device)], mut count: impl FnMut(&str, &mut dyn FnMut())) {
    let mut words: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let rounds = words.iter().position(|word| word.parse::<usize>().is_ok());
    let rounds = rounds.and_then(|place| words.remove(place).parse().ok()).unwrap_or(10);
    let resnet = sets().into_iter().find(|set| set.name == "ResNet-50");
    let sets = [("160 tensors", small_160()), ("1000 x 1000", vec![1000; 1000])];
    let sets = sets.into_iter().chain(resnet.map(|set| (set.name, set.lens)));
    let sets: Vec<_> = sets.collect();
    for (name, device) in devices {
        let device = device.clone().autodiff();
        for (set, lens) in &sets {
            let name = format!("{name}, {set}");
            if words.is_empty() || words.iter().any(|word| name.contains(word.as_str())) {
                ratios((&name, lens), &device, rounds, &mut count);
            }
        }
    }
}
