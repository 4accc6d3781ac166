//! The scheduler: dispatches, submissions and bytes counted on the benchmarks' parameter sets and on
//! a Burn model; what arenas and kept plans must never do to a model.

mod counts;
#[cfg(feature = "burn")]
mod models;
#[cfg(feature = "burn")]
mod nets;
#[cfg(feature = "burn")]
mod threads;

use burn_wsam_support as common;
use burn_wsam_support::bench::sets;
use common::gpu::{Test, run, trials};

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
        ("buffers of all kinds counted together", counts::counted_together),
        ("plans are kept, and made anew", counts::plans),
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
        ("arenas take turns", models::turns),
        ("memory through the second pass", models::memory),
        ("a model that grows and shrinks", models::growing),
        ("a parameter that changes its shape", models::reshaped),
        ("two models, one optimizer", models::two_models),
        ("ascents interleaved", models::interleaved),
        ("an optimizer dropped half way", models::dropped),
        ("detached weights", models::detached),
        ("a moving average", models::moving_average),
        ("lean steps", models::lean),
        ("a lean step given up", models::lean_abandoned),
        ("validation on another thread", threads::validation),
        ("two optimizers on two threads", threads::side_by_side),
    ];
    let adapters = common::gpu::adapters();
    let devices: Vec<_> = adapters
        .iter()
        .filter_map(|gpu| Some((gpu.name.clone(), common::burned::device(gpu).ok()?.autodiff())))
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
