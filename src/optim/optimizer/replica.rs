//! The ascent of a replica, which is perturbed along its own gradient on its own device.

use super::Wsam;
use crate::method::{Hyperparameters, PassRule};
use crate::optim::error::WsamError;
use crate::optim::options::{MissingGradientPolicy, Options};
use crate::optim::pass_schedule::PassSchedule;
use crate::optim::route::{Route, RoutePolicy, TensorOpsReason};
use burn::module::{Module, ParamGroup};
use burn::optim::GradientsParams;
use burn::tensor::Device;

/// What a replica needs from the optimizer to perturb its copy.
#[derive(Debug)]
pub(crate) struct ReplicaAscent {
    hyper: Hyperparameters,
    groups: Vec<ParamGroup>,
    missing_gradient: MissingGradientPolicy,
    master_weights: bool,
    policy: RoutePolicy,
    loss_scale: f64,
    /// Identity of the optimizer.
    pub(crate) identity: u64,
}

impl Wsam {
    pub(in crate::optim) fn replica_ascent(&self) -> ReplicaAscent {
        ReplicaAscent {
            hyper: self.hyper.clone(),
            groups: self.groups.clone(),
            missing_gradient: self.options.missing_gradient,
            master_weights: self.options.master_weights,
            policy: match self.route {
                Route::TensorOps(TensorOpsReason::Requested) => RoutePolicy::TensorOps,
                _ => RoutePolicy::Auto,
            },
            loss_scale: self.loss_scale(),
            identity: self.identity,
        }
    }

    /// The perturbed copy of `model`, as [`Wsam::ascend`] of the optimizer that `ascent` is from would make it.
    pub(crate) fn perturb<M: Module>(
        &mut self,
        ascent: &ReplicaAscent,
        model: &M,
        grads: GradientsParams,
    ) -> Result<M, WsamError> {
        // Schedules change rho and gamma between steps.
        self.hyper.clone_from(&ascent.hyper);
        let (backend, _, context) = self.parts(ascent.loss_scale);
        match backend.ascend(context, model.clone(), grads, false) {
            Ok(((perturbed, anchor), _)) => Ok(perturbed.unwrap_or(anchor)),
            Err((_, error)) => Err(error),
        }
    }
}

impl ReplicaAscent {
    /// The optimizer that perturbs a replica's copy on `device`.
    pub(crate) fn optimizer(&self, device: &Device) -> Result<Wsam, WsamError> {
        let options = Options {
            track_norms: false,
            lean: false,
            mask_seed: None,
            stochastic_rounding: None,
            master_weights: self.master_weights,
            missing_gradient: self.missing_gradient,
            error_on_skip: false,
            loss_scale: None,
            schedule: PassSchedule::new(PassRule::EveryStep, 0),
        };
        Wsam::new(self.hyper.clone(), self.groups.clone(), None, self.policy, options, device)
    }
}
