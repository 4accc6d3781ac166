//! The Burn integration: takes the parameters out of a module, and returns the module with stepped ones.

mod ascended;
mod backend;
mod burn_base;
mod config;
mod copies;
mod error;
mod forget;
mod groups;
mod half_precision;
mod loss_scale;
mod module_steps;
mod momentum_steps;
mod optimizer;
mod options;
mod param_entries;
mod params;
mod pass;
mod pass_schedule;
mod pending;
mod rates;
mod record;
mod replicas;
mod report;
mod route;
mod run_state;
mod seeds;
mod shared_params;
pub mod sharpness;
mod state;
mod state_store;
mod statistics;
mod step_backend;
mod tensor_ops;
mod walk;

#[cfg(feature = "remote")]
pub mod remote;

#[cfg(feature = "train")]
pub mod train;

#[cfg(feature = "fused-wsam")]
mod bridge;
#[cfg(feature = "fused-wsam")]
mod device;
#[cfg(feature = "fused-wsam")]
mod fused;

pub use ascended::{Ascended, LeanAscended};
pub use config::{
    AdamBaseConfig, AdamWBaseConfig, AeSamConfig, BaseConfig, FriendlySamConfig, GsamConfig,
    IntervalConfig, LookSamConfig, MethodConfig, PassRuleConfig, SgdBaseConfig, WsamConfig,
};
pub use error::{Rejected, WsamError};
pub use groups::GroupConfig;
pub use loss_scale::LossScaleConfig;
pub use optimizer::Wsam;
pub use options::{MissingGradientPolicy, NonFinitePolicy, Perturbation};
pub use pass_schedule::NextStep;
pub use replicas::{
    DataParallelReport, ReplicaError, ReplicaFault, ReplicaPass, ReplicaReport, Replicas, Shard,
    Span,
};
pub use report::StepReport;
pub use route::{Route, RoutePolicy, TensorOpsReason};
pub use state::{MASTER_WEIGHTS, OptimizerState};
pub use statistics::RunningStatistics;

#[cfg(feature = "fused-wsam")]
pub use device::{device, device_with, share};
