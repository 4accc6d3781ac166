//! The Burn benchmarks in tensor operations, without Burn's fusion. Run `cargo run --release -- --bench` in
//! this folder; the report is named `unfused`.

use burn::tensor::Device;
use burn_wsam::RoutePolicy::TensorOps;
use burn_wsam_support::bench::report::Report;
use burn_wsam_support::bench::sets;
use burn_wsam_support::bench::burn_steps::{Variant, configure, time_optimizers, time_trainings};
use criterion::Criterion;

/// Largest binding of lavapipe in bytes. Burn keeps a tensor in one binding.
const LARGEST: u64 = 128 << 20;

fn main() {
    let device = Device::default().autodiff();
    let machine = serde_json::json!({ "device": format!("{device:?}") });
    let report = Report::new("unfused", machine);
    let mut criterion = Criterion::default().configure_from_args();
    let variants = [Variant { name: "tensor operations", route: TensorOps, lean: false }];
    for set in sets::sets() {
        if set.lens.iter().any(|len| 4 * len > LARGEST) {
            continue;
        }
        let mut group = criterion.benchmark_group(set.name);
        configure(&mut group);
        time_optimizers(&mut group, &report, (set.name, &set.lens), &device, &variants);
        group.finish();
    }
    time_trainings(&mut criterion, &report, &device, &variants);
    report.finish().expect("the report can be written");
}
