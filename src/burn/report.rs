//! Report of a step.

use super::error::WsamError;
#[cfg(feature = "fused-wsam")]
use super::fused::DeviceNorms;
use super::state::read;
use super::tensor_ops::TensorNorms;
use crate::method::Outcome;
use burn::tensor::Tensor;

/// Global norms of a step, still on the device.
#[derive(Debug)]
pub(crate) enum Norms {
    TensorOps(Box<TensorNorms>),
    #[cfg(feature = "fused-wsam")]
    Fused(Box<DeviceNorms>),
}

/// Report of one step. Values are read from the device when a method asks for them.
#[derive(Debug)]
pub struct StepReport {
    pub(crate) loss: Tensor<1>,
    pub(crate) perturbed_loss: Tensor<1>,
    pub(crate) norms: Norms,
}

impl StepReport {
    /// `L(w)`, the loss before the step, still on the device.
    pub fn loss(&self) -> Tensor<1> {
        self.loss.clone()
    }

    /// `L(w + e_w)`, still on the device.
    pub fn perturbed_loss(&self) -> Tensor<1> {
        self.perturbed_loss.clone()
    }

    /// The sharpness `L(w + e_w) - L(w)`, still on the device.
    pub fn sharpness(&self) -> Tensor<1> {
        self.perturbed_loss() - self.loss()
    }

    /// `||g||`, unclipped. Waits for the device.
    ///
    /// `None` if the step did not need it (adaptive, unclipped) and
    /// [`track_norms`](crate::WsamConfig::track_norms) is off.
    ///
    /// # Errors
    ///
    /// [`WsamError`] if the device was lost.
    pub fn gradient_norm(&self) -> Result<Option<f64>, WsamError> {
        match &self.norms {
            Norms::TensorOps(norms) => norms.gradient.as_ref().map(scalar).transpose(),
            #[cfg(feature = "fused-wsam")]
            Norms::Fused(norms) => norms.gradient(),
        }
    }

    /// `||g~||`, unclipped. Waits for the device.
    ///
    /// `None` if the step does not clip and [`track_norms`](crate::WsamConfig::track_norms) is
    /// off.
    ///
    /// # Errors
    ///
    /// [`WsamError`] if the device was lost.
    pub fn perturbed_gradient_norm(&self) -> Result<Option<f64>, WsamError> {
        match &self.norms {
            Norms::TensorOps(norms) => norms.perturbed.as_ref().map(scalar).transpose(),
            #[cfg(feature = "fused-wsam")]
            Norms::Fused(norms) => norms.perturbed(),
        }
    }

    /// What the step did under the policy [`non_finite`](crate::WsamConfig::non_finite). Waits for the
    /// device.
    ///
    /// # Errors
    ///
    /// [`WsamError`] if the device was lost.
    pub fn outcome(&self) -> Result<Outcome, WsamError> {
        match &self.norms {
            Norms::TensorOps(norms) => norms.outcome(),
            #[cfg(feature = "fused-wsam")]
            Norms::Fused(norms) => norms.outcome(),
        }
    }
}

fn scalar(tensor: &Tensor<1>) -> Result<f64, WsamError> {
    let data = read(tensor.clone())?;
    // One element, whatever its type.
    Ok(data.iter::<f64>().next().unwrap_or(f64::NAN))
}
