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
    tensor.try_into_data().map_err(|error| WsamError::Backend { reason: format!("{error:?}") })
}
