//! Error of a measure.

use crate::optim::error::WsamError;

/// Error of a measure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SharpnessError {
    /// The model, its gradients or an option were rejected, as a step would reject them.
    #[error(transparent)]
    Refused(#[from] WsamError),
    /// A loss or a gradient is not finite.
    #[error("{what} is {value}")]
    NotFinite {
        /// What was computed.
        what: &'static str,
        /// Its value.
        value: f64,
    },
    /// The model has no parameter that a plane can vary.
    #[error("the model has no trainable parameter of two dimensions or more")]
    NoDirections,
}

/// Returns an error for a value that is not finite.
pub(super) fn finite(what: &'static str, value: f64) -> Result<f64, SharpnessError> {
    if value.is_finite() { Ok(value) } else { Err(SharpnessError::NotFinite { what, value }) }
}
