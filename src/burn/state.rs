//! A look at the optimizer's state.

use super::error::WsamError;
use burn::tensor::{Tensor, TensorData};

/// State of one parameter, read back to the host.
#[derive(Clone, Debug, PartialEq)]
pub struct OptimizerState {
    /// Steps this parameter has taken.
    pub step: u64,
    /// Name and values of each state tensor, flat, in the order of
    /// [`Base::state_names`](crate::method::Base::state_names).
    pub tensors: Vec<(&'static str, TensorData)>,
}

/// The way from the device to the host.
pub(crate) fn read(tensor: Tensor<1>) -> Result<TensorData, WsamError> {
    let data = tensor.try_into_data();
    let data = data.map_err(|error| WsamError::Backend { reason: format!("{error:?}") })?;
    // CubeCL hands out a promise that is kept when somebody looks, and by then a step may have written
    // to the memory. So look.
    let _ = data.as_bytes();
    Ok(data)
}
