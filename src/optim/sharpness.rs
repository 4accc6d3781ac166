//! Measures of the sharpness of the loss at a model's weights, for reports and experiments.
//!
//! - [`loss_rise`]: `L(w + e_w) - L(w)`, the rise of the loss at distance `rho` along the gradient, which WSAM
//!   minimises in training.
//! - [`top_eigenvalue`]: the largest eigenvalue of the loss's Hessian.
//! - [`surface`]: the loss over a plane through the weights.
//!
//! All work on any Burn backend, through the model's own forward and backward passes: each takes a
//! closure that computes the loss of a model, and runs it on copies with running statistics of their
//! own. The measured model never changes. Layers in training mode stay in it: batch normalisation uses the
//! statistics of the batch, and dropout draws a new mask in every pass, which makes these measures noise.
//! Measure such a model without its dropout.
//!
//! Parameters that are frozen, or that the loss does not depend on, are ignored.
//!
//! ```
//! use burn::nn::{Linear, LinearConfig};
//! use burn::tensor::{Device, Distribution, Tensor};
//! use burn_wsam::sharpness::{self, PowerIteration, SharpnessError};
//!
//! # fn main() -> Result<(), SharpnessError> {
//! let device = Device::flex().autodiff();
//! let model = LinearConfig::new(4, 1).init(&device);
//! let x = Tensor::<2>::random([8, 4], Distribution::Default, &device);
//! let loss = |model: &Linear| model.forward(x.clone()).powi_scalar(2).mean();
//!
//! println!("the loss rises by {}", sharpness::loss_rise(&model, 0.05, false, loss)?);
//! let top = sharpness::top_eigenvalue(&model, &PowerIteration::default(), loss)?;
//! println!("largest eigenvalue {} after {} products", top.value, top.products);
//! # Ok(())
//! # }
//! ```

mod error;
mod hessian;
mod point;
mod random;
mod surface;

pub use error::SharpnessError;
pub use hessian::{PowerIteration, TopEigenvalue, top_eigenvalue};
pub use surface::{Plane, Surface, surface};

use super::config::{SgdBaseConfig, WsamConfig};
use super::error::WsamError;
use super::pass::check_loss;
use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use error::finite;
use point::{Point, scalar};

/// `L(w + e_w) - L(w)`, with `e_w` of radius `rho` along the gradient, or ASAM's if `adaptive`.
///
/// It is half a step of WSAM, and takes two forward passes and one backward pass.
///
/// # Errors
///
/// [`SharpnessError::Refused`] if `rho` is outside its domain, if the loss is not on an autodiff
/// graph or no parameter has a gradient; [`SharpnessError::NotFinite`] if a loss is not finite.
pub fn loss_rise<M, F>(
    model: &M,
    rho: f64,
    adaptive: bool,
    mut loss: F,
) -> Result<f64, SharpnessError>
where
    M: Module,
    F: FnMut(&M) -> Tensor<1>,
{
    let point = Point::of(model)?;
    let config = WsamConfig::new(SgdBaseConfig::new().into());
    let mut probe = config.with_rho(rho).with_adaptive(adaptive).init(&point.device)?;
    // Take an optimizer's ascent on a copy, without the descent.
    let copy = point.copy(model);
    let value = loss(&copy);
    check_loss(&value)?;
    let grads = GradientsParams::from_grads(value.backward(), &copy);
    let before = finite("the loss", scalar(value)?)?;
    let ascended = probe.ascend(copy, grads).map_err(WsamError::from)?;
    let after = finite("the loss at w + e_w", scalar(loss(ascended.model()))?)?;
    Ok(after - before)
}
