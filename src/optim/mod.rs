//! The Burn integration: takes the parameters out of a module, and returns the module with stepped ones.

mod ascended;
mod base_config;
mod config;
mod copies;
mod error;
mod external;
mod forms;
mod groups;
mod halves;
mod loss_scale;
mod masks;
mod missing;
mod optimizer;
mod param_entries;
mod params;
mod pending;
mod rates;
mod record;
mod report;
mod route;
mod run_state;
pub mod sharpness;
mod split_mix;
mod state;
mod statistics;
mod step_backend;
mod sums;
mod tensor_ops;

#[cfg(feature = "train")]
pub mod train;

#[cfg(feature = "fused-wsam")]
mod bridge;
#[cfg(feature = "fused-wsam")]
mod device;
#[cfg(feature = "fused-wsam")]
mod fused;

pub use ascended::{Ascended, LeanAscended};
pub use base_config::{AdamBaseConfig, AdamWBaseConfig, BaseConfig, SgdBaseConfig};
pub use config::{BurnWsamConfig, NonFinitePolicy, RoutePolicy, WsamConfig};
pub use error::{Rejected, WsamError};
pub use groups::GroupConfig;
pub use loss_scale::LossScaleConfig;
pub use missing::MissingGradientPolicy;
pub use optimizer::{Perturbation, Wsam};
pub use report::StepReport;
pub use route::{Route, TensorOpsReason};
pub use state::{MASTER, OptimizerState};
pub use statistics::RunningStatistics;

#[cfg(feature = "fused-wsam")]
pub use device::{device, device_with, share};
