//! WSAM under burn-train's `SupervisedTraining`: on the CPU in tensor operations, and on every adapter
//! by both routes.

mod common;

#[path = "learner/bench.rs"]
mod bench;
#[path = "learner/limits.rs"]
mod limits;
#[path = "learner/loops.rs"]
mod loops;
#[path = "learner/misuse.rs"]
mod misuse;
#[path = "learner/nets.rs"]
mod nets;
#[path = "learner/reports.rs"]
mod reports;
#[path = "learner/resume.rs"]
mod resume;
#[path = "learner/stops.rs"]
mod stops;
#[path = "optimizer/nets.rs"]
#[allow(dead_code)]
mod tools;

use burn::tensor::Device;
use burn_wsam::RoutePolicy;
use libtest_mimic::{Failed, Trial};

/// Where a test runs, and by which route.
#[derive(Clone, Debug)]
struct Target {
    /// With autodiff.
    device: Device,
    policy: RoutePolicy,
}

type Test = fn(&Target) -> Result<(), String>;

const TESTS: &[(&str, Test)] = &[
    ("gamma 0 is Burn's own strategy", limits::gamma_zero),
    ("gamma 0 is Burn's own strategy, accumulated", limits::gamma_zero_accumulated),
    ("Burn's events in Burn's order", limits::events),
    ("a training is the loop written out", loops::whole),
    ("accumulated gradients, perturbed once", loops::accumulated),
    ("accumulated gradients, each perturbed", loops::each),
    ("lean steps", loops::lean),
    ("a schedule for rho and for gamma", loops::schedules),
    ("WSAM for a part of the training", loops::partly),
    ("TrainStep::optimize keeps its last word", loops::overridden),
    ("a training resumes bit for bit", resume::whole),
    ("a training resumes in the middle of its schedules", resume::schedules),
    ("a checkpoint of Burn's own is taken over", resume::takeover),
    ("a checkpoint of another optimizer is refused", resume::refused),
    ("early stopping", stops::early),
    ("interruption", stops::interrupted),
    ("a value out of its domain ends the training", stops::out_of_domain),
    ("a learning rate that is not finite ends it", stops::learning_rate),
    ("a batch without gradients ends it", stops::no_gradients),
    ("a learner of another optimizer", misuse::foreign_learner),
    ("a learner under another strategy", misuse::foreign_strategy),
    ("around a Burn optimizer", misuse::around_burn),
    ("learning rates by parameter", limits::rates_by_parameter),
    ("metrics and checkpoints in files", reports::files),
    ("sharpness as a metric", reports::sharpness),
    ("the last step", reports::last),
];

fn main() {
    let flex = Target { device: Device::flex().autodiff(), policy: RoutePolicy::TensorOps };
    let mut trials = on(TESTS, &flex, "flex");
    trials.extend(on_adapters());
    common::gpu::run(trials);
}

fn on(tests: &[(&str, Test)], target: &Target, label: &str) -> Vec<Trial> {
    let trial = |(name, test): &(&str, Test)| {
        let (target, test) = (target.clone(), *test);
        Trial::test(format!("{name} [{label}]"), move || test(&target).map_err(Failed::from))
    };
    tests.iter().map(trial).collect()
}

#[cfg(not(feature = "fused-wsam"))]
fn on_adapters() -> Vec<Trial> {
    Vec::new()
}

#[cfg(feature = "fused-wsam")]
fn on_adapters() -> Vec<Trial> {
    use common::{burned, gpu};
    let adapters = gpu::adapters();
    if adapters.is_empty() {
        return gpu::trials(&[("SupervisedTraining on the GPU", |_| unreachable!())]);
    }
    let mut trials = Vec::new();
    for gpu in &adapters {
        let device = match burned::device(gpu) {
            Ok(device) => device.autodiff(),
            Err(error) => {
                trials.push(Trial::test(format!("device [{}]", gpu.name), || Err(error.into())));
                continue;
            }
        };
        for (policy, label) in
            [(RoutePolicy::Fused, "fused"), (RoutePolicy::TensorOps, "tensor operations")]
        {
            let target = Target { device: device.clone(), policy };
            trials.extend(on(TESTS, &target, &format!("{label}, {}", gpu.name)));
        }
    }
    trials
}
