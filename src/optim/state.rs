//! Optimizer state on the host: read back from the device, or loaded from a record.

use super::error::WsamError;
use burn::module::ParamId;
use burn::tensor::{Tensor, TensorData};
use burn_pack::Scalar;

/// State of one parameter, read back to the host.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct OptimizerState {
    /// Steps this parameter has taken.
    pub step: u64,
    /// Name and values of each state tensor, flat, in the order of
    /// [`Base::state_names`](crate::method::Base::state_names); after them those of
    /// [`Method::state_names`](crate::method::Method::state_names), if the parameter has them, and [`MASTER_WEIGHTS`],
    /// if it has master weights.
    pub tensors: Vec<(&'static str, TensorData)>,
}

/// One line: the step count, and the name and number of elements of each tensor.
impl std::fmt::Debug for OptimizerState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OptimizerState {{ step: {}", self.step)?;
        for (name, data) in &self.tensors {
            write!(f, ", {name}: {:?} x {}", data.dtype(), data.num_elements())?;
        }
        f.write_str(" }")
    }
}

/// The name of [master weights](crate::WsamConfig::master_weights) among the tensors of a state, and in
/// records.
pub const MASTER_WEIGHTS: &str = "master";

/// State of one parameter from a record, checked and ready for a route.
#[derive(Debug)]
pub(crate) struct LoadedState {
    pub(crate) id: ParamId,
    pub(crate) step: u64,
    /// One-dimensional, in the type that the parameter's steps compute in, in the order of
    /// [`Base::state_names`].
    pub(crate) tensors: Vec<TensorData>,
    /// In the order of [`Method::state_names`](crate::method::Method::state_names). Empty if the method's state is not
    /// set yet.
    pub(crate) method: Vec<TensorData>,
    pub(crate) master: Option<TensorData>,
    pub(crate) len: u64,
}

/// State of one parameter with the names of a record, in the parameter's shape.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recorded {
    pub(crate) tensors: Vec<(&'static str, TensorData)>,
    pub(crate) scalars: Vec<(&'static str, Scalar)>,
}

/// Reads a tensor from the device.
pub(crate) fn read(tensor: Tensor<1>) -> Result<TensorData, WsamError> {
    let data = tensor.try_into_data();
    let data = data.map_err(|error| WsamError::Backend { reason: format!("{error:?}") })?;
    // CubeCL reads the data lazily, and a later step may write to the memory first. Force the read now.
    let _ = data.as_bytes();
    Ok(data)
}

/// Reads a tensor of one element, of any type, from the device.
pub(crate) fn read_scalar(tensor: &Tensor<1>) -> Result<f64, WsamError> {
    let data = read(tensor.clone())?;
    Ok(data.iter::<f64>().next().unwrap_or(f64::NAN))
}
