//! The backends of the two routes, and the choice between them.

use crate::optim::config::RoutePolicy;
use crate::optim::error::WsamError;
#[cfg(feature = "fused-wsam")]
use crate::optim::fused::Fused;
use crate::optim::route::{Route, TensorOpsReason};
use crate::optim::step_backend::{PendingStep, StepBackend};
use crate::optim::tensor_ops::TensorOps;
use burn::tensor::Device;

/// The backend of the chosen route, with its state.
#[derive(Debug)]
pub(super) enum RouteBackend {
    TensorOps(TensorOps),
    #[cfg(feature = "fused-wsam")]
    Fused(Fused),
}

/// State between an ascent and its descent, by route.
#[derive(Debug)]
pub(crate) enum AscentHandle {
    TensorOps(Box<PendingStep<<TensorOps as StepBackend>::AscentState>>),
    #[cfg(feature = "fused-wsam")]
    Fused(Box<PendingStep<<Fused as StepBackend>::AscentState>>),
}

/// State between a lean ascent and its descent, by route.
#[derive(Debug)]
pub(crate) enum LeanAscentHandle {
    TensorOps(Box<PendingStep<<TensorOps as StepBackend>::LeanAscentState>>),
    #[cfg(feature = "fused-wsam")]
    Fused(Box<PendingStep<<Fused as StepBackend>::LeanAscentState>>),
}

#[cfg(feature = "fused-wsam")]
pub(super) fn choose(
    policy: RoutePolicy,
    device: &Device,
) -> Result<(RouteBackend, Route), WsamError> {
    let reason = match policy {
        RoutePolicy::TensorOps => TensorOpsReason::Requested,
        RoutePolicy::Auto | RoutePolicy::Fused => match crate::optim::device::shared(device) {
            Ok(shared) => {
                let route = shared.route();
                return Ok((RouteBackend::Fused(Fused::new(&shared)?), route));
            }
            Err(reason) => reason,
        },
    };
    fall_back(policy, reason)
}

#[cfg(not(feature = "fused-wsam"))]
pub(super) fn choose(
    policy: RoutePolicy,
    _device: &Device,
) -> Result<(RouteBackend, Route), WsamError> {
    let reason = match policy {
        RoutePolicy::TensorOps => TensorOpsReason::Requested,
        RoutePolicy::Auto | RoutePolicy::Fused => TensorOpsReason::FeatureOff,
    };
    fall_back(policy, reason)
}

fn fall_back(
    policy: RoutePolicy,
    reason: TensorOpsReason,
) -> Result<(RouteBackend, Route), WsamError> {
    if policy == RoutePolicy::Fused {
        return Err(WsamError::NotFused { reason: reason.to_string() });
    }
    Ok((RouteBackend::TensorOps(TensorOps::default()), Route::TensorOps(reason)))
}
