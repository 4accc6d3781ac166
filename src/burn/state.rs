//! A look at the optimizer's state.

use super::error::WsamError;
use burn::tensor::{Bytes, Tensor, TensorData};

/// State of one parameter, read back to the host.
#[derive(Clone, Debug, PartialEq)]
pub struct OptimizerState {
    /// Steps this parameter has taken.
    pub step: u64,
    /// Name and values of each state tensor, flat, in the order of
    /// [`Base::state_names`](crate::method::Base::state_names).
    pub tensors: Vec<(&'static str, TensorData)>,
}

/// The way from the device to the host, taken at once: what CubeCL hands out is a promise that is kept
/// when somebody looks, and by then the memory may have other contents.
pub(crate) fn read(tensor: Tensor<1>) -> Result<TensorData, WsamError> {
    let failed = |error: &dyn std::fmt::Debug| WsamError::Backend { reason: format!("{error:?}") };
    let promised = tensor.try_into_data().map_err(|error| failed(&error))?;
    let (bytes, shape, dtype) = promised.into_parts();
    let bytes = Bytes::from_bytes_vec(bytes.to_vec());
    TensorData::try_from_bytes(bytes, shape, dtype).map_err(|error| failed(&error))
}
