//! The route steps take, the reason it was chosen, and the policy that limits the choice.

use burn::config::Config;
use std::fmt;

/// The routes that steps may take.
#[derive(Config, Debug, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RoutePolicy {
    /// Fused where the device allows it, tensor operations elsewhere. [`Wsam::route`](crate::Wsam::route)
    /// returns the choice and its reason.
    Auto,
    /// Fused, or an error from [`WsamConfig::init`](crate::WsamConfig::init).
    Fused,
    /// Tensor operations.
    TensorOps,
}

/// The route an optimizer's steps take. It is chosen when the optimizer is made and never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Route {
    /// Through the WGSL kernels.
    Fused {
        /// Name of the adapter.
        adapter: String,
        /// Graphics API it is reached through.
        backend: String,
    },
    /// In Burn's tensor operations.
    TensorOps(TensorOpsReason),
}

impl Route {
    /// Whether steps run through the WGSL kernels.
    pub fn is_fused(&self) -> bool {
        matches!(self, Route::Fused { .. })
    }
}

/// Why steps run in tensor operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TensorOpsReason {
    /// The configuration asks for it.
    Requested,
    /// The crate was built without the feature `fused-wsam`.
    FeatureOff,
    /// The device does not run on wgpu.
    NotWgpu,
    /// The device runs on wgpu, but its handles were not shared with this crate.
    NotShared,
}

impl fmt::Display for TensorOpsReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TensorOpsReason::Requested => "the configuration asks for it",
            TensorOpsReason::FeatureOff => "built without the feature fused-wsam",
            TensorOpsReason::NotWgpu => "the device does not run on wgpu",
            TensorOpsReason::NotShared => {
                "the wgpu device is not shared with the kernels; \
                 make it with burn_wsam::device(), or call burn_wsam::share(&device, &setup)"
            }
        })
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Route::Fused { adapter, backend } => write!(f, "fused on {adapter} ({backend})"),
            Route::TensorOps(reason) => write!(f, "tensor operations ({reason})"),
        }
    }
}
