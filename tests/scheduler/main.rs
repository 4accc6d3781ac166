//! Tests of the scheduler: dispatches, submissions and bytes counted on the benchmarks' parameter sets
//! and on a Burn model, and models whose arenas and plans are reused.

mod counts;
#[cfg(feature = "burn")]
mod models;
#[cfg(feature = "burn")]
mod nets;
#[cfg(feature = "burn")]
mod threads;

use burn_wsam_support::bench::sets;
use burn_wsam_support::gpu::{Test, run, trials};

fn main() {
    let tests: &[(&str, Test)] = &[
        ("ResNet-50", |gpu| counts::set(gpu, "ResNet-50")),
        ("ResNet-18 (CIFAR)", |gpu| counts::set(gpu, "ResNet-18 (CIFAR)")),
        ("ViT-B/16", |gpu| counts::set(gpu, "ViT-B/16")),
        ("GPT-2 124M", |gpu| counts::set(gpu, "GPT-2 124M")),
        ("1000 x 1000", |gpu| counts::set(gpu, "1000 x 1000")),
        ("134M + 3", |gpu| counts::set(gpu, "134M + 3")),
        ("eight storage buffers", counts::eight_buffers),
        ("many buffers", counts::many_buffers),
        ("a limit on buffers of all kinds together", counts::counted_together),
        ("reused and new plans", counts::plans),
    ];
    #[allow(unused_mut)]
    let mut all = trials(tests);
    #[cfg(feature = "burn")]
    all.extend(on_burn());
    run(all);
}

#[cfg(feature = "burn")]
fn on_burn() -> Vec<libtest_mimic::Trial> {
    use libtest_mimic::{Failed, Trial};
    type OnDevice = fn(&burn::tensor::Device) -> Result<(), String>;
    let tests: &[(&str, OnDevice)] = &[
        ("a model of 160 tensors", models::counted),
        ("alternating arenas", models::alternating),
        ("memory during the second pass", models::memory),
        ("a model that grows and shrinks", models::growing),
        ("a parameter that changes its shape", models::reshaped),
        ("two models with one optimizer", models::two_models),
        ("interleaved ascents", models::interleaved),
        ("an optimizer dropped after an ascent", models::dropped),
        ("detached weights", models::detached),
        ("a moving average", models::moving_average),
        ("lean steps", models::lean),
        ("an abandoned lean step", models::lean_abandoned),
        ("validation on another thread", threads::validation),
        ("two optimizers on two threads", threads::side_by_side),
    ];
    let adapters = burn_wsam_support::gpu::adapters();
    let devices: Vec<_> = adapters
        .iter()
        .filter_map(|gpu| {
            Some((gpu.name.clone(), burn_wsam_support::burn_route::device(gpu).ok()?.autodiff()))
        })
        .collect();
    let mut trials = Vec::new();
    if devices.len() != adapters.len() {
        trials.push(Trial::test("a Burn device on every adapter", || Err("one is missing".into())));
    }
    for (name, device) in &devices {
        trials.extend(tests.iter().map(|(title, test)| {
            let (device, test) = (device.clone(), *test);
            let run = move || test(&device).map_err(Failed::from);
            Trial::test(format!("{title} [{name}]"), run)
        }));
    }
    if let [(_, one), (_, other), ..] = devices.as_slice() {
        let (one, other) = (one.clone(), other.clone());
        trials.push(Trial::test("models on two devices", move || {
            models::two_devices(&one, &other).map_err(Failed::from)
        }));
    }
    trials
}
