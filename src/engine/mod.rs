//! The WGSL engine: one WSAM step on raw `wgpu` buffers, independent of Burn.
//!
//! ```no_run
//! use burn_wsam::engine::{
//!     AscentOptions, AscentTensor, BlendSource, DescentTensor, Engine, Placement, Slice,
//! };
//! use burn_wsam::method::{Base, Hyperparameters};
//!
//! # fn gradient(_: &mut wgpu::CommandEncoder) {}
//! # fn main() -> Result<(), burn_wsam::engine::EngineError> {
//! let (engine, adapter) = Engine::on_any_adapter()?;
//! println!("running on {}", adapter.name);
//! let buffer = |_: &str| engine.device().create_buffer(&wgpu::BufferDescriptor {
//!     label: None,
//!     size: 4 * 1000,
//!     usage: wgpu::BufferUsages::STORAGE,
//!     mapped_at_creation: false,
//! });
//! let [weight, grad, perturbed, grad_perturbed] =
//!     ["w", "g", "w + e_w", "g~"].map(|name| Slice::new(&buffer(name), 1000));
//! let hyper = Hyperparameters::new(Base::Sgd { momentum: None, weight_decay: 0.0 });
//!
//! let mut encoder = engine.device().create_command_encoder(&Default::default());
//! gradient(&mut encoder); // the caller's own work: grad at weight
//! let tensors = [AscentTensor::new(weight.clone(), grad.clone(), Placement::OutOfPlace(perturbed))];
//! let ascent = engine.ascent(&mut encoder, &hyper, AscentOptions::default(), &tensors)?;
//! gradient(&mut encoder); // grad_perturbed at perturbed
//! let tensors = [DescentTensor::new(weight, grad, grad_perturbed)];
//! engine.descent(&mut encoder, &hyper, 0.1, BlendSource::Method, &ascent, &tensors)?;
//! engine.queue().submit([encoder.finish()]);
//! # Ok(())
//! # }
//! ```

mod adapter;
mod base;
mod buffers;
mod checks;
mod chunking;
mod columns;
mod columns_external;
mod constants;
mod dispatch;
mod encode;
mod error;
mod external;
mod lean;
mod memory;
mod method_constants;
mod method_state;
mod momentum_tensor;
mod norm;
mod options;
mod param_classes;
mod phase;
mod pipelines;
mod plan;
mod planning;
mod prepared;
mod readback;
mod record;
mod recorder;
mod relative_specs;
mod relatives;
mod rows;
mod schedule;
mod slice;
mod stats;
mod step;
mod sums;
mod tensors;
mod timer;
mod timing;
mod traffic;
mod tuning;

pub use crate::layout::{BlendUniforms, Norms, Stage};
pub use base::BaseStep;
pub use error::EngineError;
pub use external::Mix;
pub use lean::LeanAscent;
pub use method_state::MethodState;
pub use momentum_tensor::MomentumTensor;
pub use options::{AscentOptions, BlendSource, GradientOptions, InvScale, Rates, Rounding};
pub use prepared::{PreparedStep, StepValues};
#[cfg(feature = "burn")]
pub(crate) use readback::norms_of;
pub use recorder::Engine;
pub use slice::{Format, Role, Slice};
pub use stats::StepStats;
pub use step::Ascent;
pub use tensors::{
    AscentTensor, BaseTensor, ClipTensor, DescentTensor, LeanAscentTensor, LeanDescentTensor,
    MixTensor, Placement, SharpenTensor,
};
pub use tuning::Tuning;
pub use wgpu;
