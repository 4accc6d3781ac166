//! Tests of WSAM under burn-train's `SupervisedTraining`: tensor operations on the CPU, and both routes on every
//! adapter.

mod bench;
mod devices;
mod faults;
mod limits;
mod loops;
mod methods;
mod misuse;
mod nets;
mod reports;
mod resume;
mod stops;

use burn_wsam_support::nets as tools;
use burn_wsam_support::target::{self, Target, Test};

const TESTS: &[(&str, Test)] = &[
    ("gamma 0 matches Burn's own strategy", limits::gamma_zero),
    ("gamma 0 matches Burn's own strategy, accumulated", limits::gamma_zero_accumulated),
    ("events match Burn's", limits::events),
    ("training matches a loop of steps", loops::plain),
    ("accumulated gradients with one perturbation", loops::accumulated),
    ("accumulated gradients with a perturbation each", loops::each_perturbed),
    ("lean steps", loops::lean),
    ("training on two devices", devices::two),
    ("refused execution strategies", devices::refused),
    ("a device that fails", devices::fails),
    ("schedules of rho and gamma", loops::schedules),
    ("WSAM in some epochs only", loops::partly_active),
    ("methods and pass rules match a loop of steps", methods::by_hand),
    ("methods and pass rules resume bit-exactly", methods::resumed),
    ("passes in reports", methods::reports),
    ("refused perturbations and schedules of a method", methods::refused),
    ("an overridden TrainStep::optimize", loops::overridden),
    ("resume is bit-exact", resume::whole),
    ("resume in the middle of schedules", resume::schedules),
    ("a checkpoint deleted during training", resume::deleted),
    ("resume continues the dropout masks", resume::masks),
    ("a checkpoint of version 0.1", resume::version_0_1),
    ("a quantised layer", resume::quantised),
    ("a checkpoint of Burn's own strategy", resume::takeover),
    ("a refused checkpoint of another base optimizer", resume::refused),
    ("early stopping", stops::early),
    ("an interrupted training", stops::interrupted),
    ("an error from a scheduled value out of its domain", stops::out_of_domain),
    ("an error from a non-finite learning rate", stops::learning_rate),
    ("an error from a batch without gradients", stops::no_gradients),
    ("running statistics after skipped and refused steps", faults::statistics),
    ("an error from an unreduced loss", faults::losses),
    ("frozen copies of the trained network", faults::copies),
    ("a learner of another optimizer", misuse::foreign_learner),
    ("a learner under another strategy", misuse::foreign_strategy),
    ("resume with a Burn optimizer as the base is bit-exact", resume::burn_base),
    ("a refused checkpoint without a Burn optimizer's record", misuse::burn_base),
    ("learning rates by parameter", limits::rates_by_parameter),
    ("metrics and checkpoints in files", reports::files),
    ("sharpness as a metric", reports::sharpness),
    ("reports of the last step", reports::last),
];

fn main() {
    let mut trials = target::on(TESTS, &target::flex(), "flex");
    #[cfg(feature = "fused-wsam")]
    trials.extend(target::on_adapters(TESTS, "SupervisedTraining on the GPU", |_, _| Vec::new()));
    burn_wsam_support::gpu::run(trials);
}
