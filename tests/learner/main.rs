//! WSAM under burn-train's `SupervisedTraining`: on the CPU in tensor operations, and on every adapter
//! by both routes.

mod bench;
mod faults;
mod limits;
mod loops;
mod misuse;
mod nets;
mod reports;
mod resume;
mod stops;

use burn_wsam_support as common;
use burn_wsam_support::nets as tools;
use common::target::{self, Target, Test};

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
    ("a checkpoint that is deleted under way", resume::deleted),
    ("masks of a training go on", resume::masks),
    ("a checkpoint of version 0.1", resume::version_0_1),
    ("a quantised layer in a training", resume::quantised),
    ("a checkpoint of Burn's own is taken over", resume::takeover),
    ("a checkpoint of another optimizer is refused", resume::refused),
    ("early stopping", stops::early),
    ("interruption", stops::interrupted),
    ("a value out of its domain ends the training", stops::out_of_domain),
    ("a learning rate that is not finite ends it", stops::learning_rate),
    ("a batch without gradients ends it", stops::no_gradients),
    ("running statistics after steps that are not taken", faults::statistics),
    ("a loss of several numbers ends it", faults::losses),
    ("frozen copies of the trained network", faults::copies),
    ("a learner of another optimizer", misuse::foreign_learner),
    ("a learner under another strategy", misuse::foreign_strategy),
    ("a training around a Burn optimizer resumes bit for bit", resume::around_burn),
    ("a checkpoint without a Burn optimizer is refused", misuse::around_burn),
    ("learning rates by parameter", limits::rates_by_parameter),
    ("metrics and checkpoints in files", reports::files),
    ("sharpness as a metric", reports::sharpness),
    ("the last step", reports::last),
];

fn main() {
    let mut trials = target::on(TESTS, &target::flex(), "flex");
    #[cfg(feature = "fused-wsam")]
    trials.extend(target::on_adapters(TESTS, "SupervisedTraining on the GPU", |_, _| Vec::new()));
    common::gpu::run(trials);
}
