//! Options of a step that are not hyperparameters, and where its numbers come from.

use super::error::EngineError;
use crate::layout::BlendUniforms;
use crate::method::{Blend, InvalidHyperparameter, validate_lr};

/// Options of an ascent that are not hyperparameters.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct AscentOptions<'a> {
    /// Compute `||g||` and `||g~||` even where the step does not need them. The descent then reads up to 4 more
    /// bytes a parameter.
    pub track_norms: bool,
    /// The factor that unscales both gradients.
    pub inv_scale: InvScale<'a>,
    /// How `w + e_w` is rounded to half precision.
    pub rounding: Rounding,
}

/// How `w + e_w` is rounded to half precision. It has no effect in single precision.
///
/// Rounding to nearest leaves an element unperturbed if its perturbation is less than half a unit in the last
/// place. Stochastic rounding selects one of the two neighbouring values with a probability that falls with
/// its distance, so that each element is perturbed by the right amount on average.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rounding {
    /// Round to nearest, ties to even.
    #[default]
    Nearest,
    /// Stochastic rounding. The result depends only on the value, the seed and the element's position among all
    /// tensors, so each step needs a different seed.
    Stochastic {
        /// Seed of the random bits. The same seed gives the same bits.
        seed: u64,
    },
}

impl Rounding {
    pub(crate) fn is_stochastic(self) -> bool {
        matches!(self, Self::Stochastic { .. })
    }

    pub(crate) fn seed(self) -> u64 {
        match self {
            Self::Nearest => 0,
            Self::Stochastic { seed } => seed,
        }
    }
}

/// Source of a descent's blend.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum BlendSource<'a> {
    /// The hyperparameters: [`Hyperparameters::blend`](crate::method::Hyperparameters::blend), and a group's
    /// `gamma` where it is set.
    Method,
    /// One blend for all tensors, set by the host.
    Host(Blend),
    /// A device buffer with `BufferUsages::UNIFORM` that holds a
    /// [`BlendUniforms`](crate::layout::BlendUniforms), so that a kernel can compute the blend.
    Device(&'a wgpu::Buffer),
}

/// The inverse of the loss scale, by which every gradient of a step is multiplied before any other operation.
/// Unscaling adds no memory traffic: the kernels fold it into factors that they apply anyway.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum InvScale<'a> {
    /// A number, finite and above 0.
    Host(f64),
    /// One `f32` at the start of a device buffer with `BufferUsages::COPY_SRC`, read when the step's first
    /// phase runs. The value is not checked.
    Device(&'a wgpu::Buffer),
}

impl Default for InvScale<'_> {
    fn default() -> Self {
        Self::Host(1.0)
    }
}

impl<'a> InvScale<'a> {
    /// Returns the number, and the device buffer that replaces it.
    pub(crate) fn parts(self) -> (f64, Option<&'a wgpu::Buffer>) {
        match self {
            Self::Host(value) => (value, None),
            Self::Device(buffer) => (1.0, Some(buffer)),
        }
    }

    /// Checks that a number is a normal `f32` above 0, and that a device buffer can be copied from.
    pub(crate) fn check(self) -> Result<(), EngineError> {
        let (value, buffer) = self.parts();
        let normal = f64::from(f32::MIN_POSITIVE)..=f64::from(f32::MAX);
        if !normal.contains(&value) {
            let expected = "finite and above 0";
            return Err(InvalidHyperparameter { name: "inv_scale", value, expected }.into());
        }
        if let Some(buffer) = buffer {
            let (usage, size) = (buffer.usage(), buffer.size());
            if !usage.contains(wgpu::BufferUsages::COPY_SRC) || size < 4 {
                return Err(EngineError::ScaleBuffer { usage, size });
            }
        }
        Ok(())
    }
}

/// Options of a base step, a clip or a lean ascent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct GradientOptions<'a> {
    /// Compute norms even where the step does not need them.
    pub track_norms: bool,
    /// The factor that unscales gradients.
    pub inv_scale: InvScale<'a>,
    /// How `w + e_w` is rounded to half precision. A base step does not use it.
    pub rounding: Rounding,
}

/// Defines the setters that the options of an ascent and of a base step share.
macro_rules! setters {
    ($($ty:ident)*) => {$(
        impl<'a> $ty<'a> {
            /// Computes norms even where the step does not need them.
            pub fn tracking_norms(self) -> Self {
                Self { track_norms: true, ..self }
            }

            /// Sets the factor that unscales gradients.
            pub fn with_inv_scale(self, inv_scale: InvScale<'a>) -> Self {
                Self { inv_scale, ..self }
            }

            /// Sets how `w + e_w` is rounded to half precision.
            pub fn with_rounding(self, rounding: Rounding) -> Self {
                Self { rounding, ..self }
            }
        }
    )*};
}

setters!(AscentOptions GradientOptions);

/// Learning rates of a step: one for all tensors, or one for each tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Rates<'a> {
    /// One rate for all tensors.
    Same(f64),
    /// One rate for each tensor, in the order of the tensors.
    Each(&'a [f64]),
}

impl From<f64> for Rates<'_> {
    fn from(rate: f64) -> Self {
        Self::Same(rate)
    }
}

impl<'a> From<&'a [f64]> for Rates<'a> {
    fn from(rates: &'a [f64]) -> Self {
        Self::Each(rates)
    }
}

impl Rates<'_> {
    /// Checks that every rate is a finite `f32`, and that there is one rate or one for each tensor.
    pub(crate) fn check(&self, tensors: usize) -> Result<(), EngineError> {
        match self {
            Self::Same(rate) => Ok(validate_lr(*rate)?),
            Self::Each(rates) if rates.len() != tensors => {
                Err(EngineError::RateCount { rates: rates.len(), tensors })
            }
            Self::Each(rates) => Ok(rates.iter().try_for_each(|rate| validate_lr(*rate))?),
        }
    }

    /// Returns the rate of a tensor. The rates must have been [checked](Self::check).
    pub(crate) fn of(&self, tensor: usize) -> f64 {
        match self {
            Self::Same(rate) => *rate,
            Self::Each(rates) => rates.get(tensor).copied().unwrap_or(f64::NAN),
        }
    }
}

impl BlendSource<'_> {
    /// Returns the device buffer of the blend, if the blend comes from the device.
    pub(crate) fn device(&self) -> Result<Option<&wgpu::Buffer>, EngineError> {
        let BlendSource::Device(buffer) = self else { return Ok(None) };
        let (usage, size) = (buffer.usage(), buffer.size());
        let need = size_of::<BlendUniforms>() as u64;
        if !usage.contains(wgpu::BufferUsages::UNIFORM) || size < need {
            return Err(EngineError::BlendBuffer { usage, size, need });
        }
        Ok(Some(buffer))
    }
}
