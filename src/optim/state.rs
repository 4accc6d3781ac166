//! Optimizer state read back to the host.

use super::error::WsamError;
use crate::method::Base;
use burn::tensor::{Tensor, TensorData};

/// State of one parameter, read back to the host.
#[derive(Clone, Debug, PartialEq)]
pub struct OptimizerState {
    /// Steps this parameter has taken.
    pub step: u64,
    /// Name and values of each state tensor, flat, in the order of
    /// [`Base::state_names`](crate::method::Base::state_names); after them [`MASTER`], if the parameter has
    /// master weights.
    pub tensors: Vec<(&'static str, TensorData)>,
}

/// The name of [master weights](crate::WsamConfig::master_weights) among the tensors of a state, and in
/// records.
pub const MASTER: &str = "master";

/// Names of all state tensors that a parameter may have.
pub(crate) fn state_names(base: &Base) -> impl Iterator<Item = &'static str> {
    base.state_names().iter().copied().chain([MASTER])
}

/// Reads a tensor from the device.
pub(crate) fn read(tensor: Tensor<1>) -> Result<TensorData, WsamError> {
    let data = tensor.try_into_data();
    let data = data.map_err(|error| WsamError::Backend { reason: format!("{error:?}") })?;
    // CubeCL reads the data lazily, and a later step may write to the memory first. Force the read now.
    let _ = data.as_bytes();
    Ok(data)
}
