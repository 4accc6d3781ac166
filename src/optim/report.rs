//! Report of a step.

use super::error::WsamError;
use super::state::read_scalar;
use crate::method::{Outcome, Passes};
use burn::tensor::Tensor;

/// Global norms of a step on the device, which its route reads on request. Methods wait for the device.
pub(crate) trait StepNorms: std::fmt::Debug + Send + Sync {
    /// `||g||`, if the step computed it.
    fn gradient(&self) -> Result<Option<f64>, WsamError>;

    /// `||g~||`, if the step computed it.
    fn perturbed(&self) -> Result<Option<f64>, WsamError>;

    fn outcome(&self) -> Result<Outcome, WsamError>;
}

/// Norms of a step by either route.
pub(crate) type Norms = Box<dyn StepNorms>;

/// Report of one step. Values are read from the device when a method asks for them.
#[derive(Debug)]
pub struct StepReport {
    pub(crate) loss: Tensor<1>,
    /// Of steps with a second pass.
    pub(crate) perturbed_loss: Option<Tensor<1>>,
    pub(crate) norms: Norms,
}

impl StepReport {
    /// How many gradients the step took. The base optimizer's steps, LookSAM's steps between its SAM steps and
    /// Momentum-SAM's steps take one.
    pub fn passes(&self) -> Passes {
        if self.perturbed_loss.is_some() { Passes::Two } else { Passes::One }
    }

    /// `L(w)`, the loss before the step, still on the device. Under Momentum-SAM it is the loss at the perturbed
    /// weights, where the only pass runs.
    pub fn loss(&self) -> Tensor<1> {
        self.loss.clone()
    }

    /// `L(w + e_w)`, still on the device. `None` for a step of one pass.
    pub fn perturbed_loss(&self) -> Option<Tensor<1>> {
        self.perturbed_loss.clone()
    }

    /// The sharpness `L(w + e_w) - L(w)`, still on the device. `None` for a step of one pass.
    pub fn sharpness(&self) -> Option<Tensor<1>> {
        self.perturbed_loss().map(|perturbed| perturbed - self.loss())
    }

    /// [`loss`](Self::loss) as a number. Waits for the device.
    ///
    /// # Errors
    ///
    /// [`WsamError`] if the device was lost.
    pub fn loss_value(&self) -> Result<f64, WsamError> {
        read_scalar(&self.loss)
    }

    /// [`sharpness`](Self::sharpness) as a number. Waits for the device. `None` for a step of one pass.
    ///
    /// # Errors
    ///
    /// [`WsamError`] if the device was lost.
    pub fn sharpness_value(&self) -> Result<Option<f64>, WsamError> {
        self.sharpness().as_ref().map(read_scalar).transpose()
    }

    /// `||g||`, unclipped. Waits for the device.
    ///
    /// `None` if the step did not need it (adaptive or of one pass, unclipped) and
    /// [`track_norms`](crate::WsamConfig::track_norms) is off.
    ///
    /// # Errors
    ///
    /// [`WsamError`] if the device was lost.
    pub fn gradient_norm(&self) -> Result<Option<f64>, WsamError> {
        self.norms.gradient()
    }

    /// `||g~||`, unclipped. Waits for the device.
    ///
    /// `None` for a step of one pass, and if the step does not clip and
    /// [`track_norms`](crate::WsamConfig::track_norms) is off.
    ///
    /// # Errors
    ///
    /// [`WsamError`] if the device was lost.
    pub fn perturbed_gradient_norm(&self) -> Result<Option<f64>, WsamError> {
        self.norms.perturbed()
    }

    /// What the step did under the policy [`non_finite`](crate::WsamConfig::non_finite). Waits for the
    /// device.
    ///
    /// # Errors
    ///
    /// [`WsamError`] if the device was lost.
    pub fn outcome(&self) -> Result<Outcome, WsamError> {
        self.norms.outcome()
    }
}

/// One line: the loss, the sharpness or that the step had one pass, the norms that the step computed, and the outcome
/// if the step was not the method's. Waits for the device, and names the error if it was lost.
impl std::fmt::Display for StepReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let number = |value: Result<f64, WsamError>| match value {
            Ok(value) => format!("{value:.6}"),
            Err(error) => error.to_string(),
        };
        write!(f, "loss {}", number(self.loss_value()))?;
        match self.sharpness_value().transpose() {
            Some(sharpness) => write!(f, ", sharpness {}", number(sharpness))?,
            None => f.write_str(", one pass")?,
        }
        let norms = [("||g||", self.gradient_norm()), ("||g~||", self.perturbed_gradient_norm())];
        for (name, norm) in norms {
            if let Some(norm) = norm.transpose() {
                write!(f, ", {name} {}", number(norm))?;
            }
        }
        match self.outcome() {
            Ok(Outcome::Whole) => Ok(()),
            Ok(Outcome::Base) => f.write_str(", base step"),
            Ok(Outcome::Skipped) => f.write_str(", skipped"),
            Ok(Outcome::Halfway) => f.write_str(", stopped at w + e_w"),
            Err(error) => write!(f, ", {error}"),
        }
    }
}
