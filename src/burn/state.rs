//! A look at the optimizer's state.

use burn::tensor::TensorData;

/// State of one parameter, read back to the host.
#[derive(Clone, Debug, PartialEq)]
pub struct OptimizerState {
    /// Steps this parameter has taken.
    pub step: u64,
    /// Name and values of each state tensor, flat, in the order of
    /// [`Base::state_names`](crate::method::Base::state_names).
    pub tensors: Vec<(&'static str, TensorData)>,
}
