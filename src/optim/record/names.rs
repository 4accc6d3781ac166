//! Names of values in a record: those of Burn's optimizers, and our own.

use crate::method::{Base, Hyperparameters};
use crate::optim::error::WsamError;
use crate::optim::state::MASTER_WEIGHTS;

/// Names of all tensors in [`Recorded`](crate::optim::state::Recorded), for any base optimizer.
#[cfg(feature = "train")]
pub(in crate::optim) const TENSOR_FIELDS: [&str; 7] = [
    "momentum.velocity",
    "momentum.moment_1",
    "momentum.moment_2",
    "momentum.max_moment_2",
    "average",
    "direction",
    MASTER_WEIGHTS,
];
#[cfg(feature = "train")]
pub(in crate::optim) const STEP_FIELDS: [&str; 2] = ["step", "momentum.time"];

/// Burn's key of a parameter's rank.
pub(super) const RANK: &str = "__rank";
/// Prefix of names of values that belong to no parameter.
pub(super) const RUN_PREFIX: &str = "wsam.";

/// Name of the Burn optimizer's record, as bytes, in a learner's checkpoint. One of the parameters has it.
#[cfg(feature = "train")]
pub(in crate::optim) const OPTIMIZER: &str = "wsam.optimizer";

/// Burn's names of the states, in the order of [`Base::state_names`].
pub(super) fn fields(base: &Base) -> impl Iterator<Item = &'static str> {
    base.state_names().iter().map(|name| field(name))
}

/// Burn's name of a state, or the name itself if Burn has none.
pub(super) fn field(name: &'static str) -> &'static str {
    match name {
        "momentum_buffer" => "momentum.velocity",
        "exp_avg" => "momentum.moment_1",
        "exp_avg_sq" => "momentum.moment_2",
        "max_exp_avg_sq" => "momentum.max_moment_2",
        other => other,
    }
}

/// Burn's name of the step count. Burn's SGD has no step count, so `step` is our name.
pub(super) fn step_field(base: &Base) -> &'static str {
    match base {
        Base::Sgd { .. } => "step",
        Base::Adam(_) | Base::AdamW(_) => "momentum.time",
    }
}

/// Names of the method's states and of master weights, which Burn's optimizers do not have.
pub(super) fn own_fields(hyper: &Hyperparameters) -> impl Iterator<Item = &'static str> {
    hyper.method.state_names().iter().copied().chain([MASTER_WEIGHTS])
}

pub(super) fn failed(error: impl std::fmt::Display) -> WsamError {
    WsamError::Record { reason: error.to_string() }
}
