//! The parameters of a module that take part in a step, values for them, and the layout in which a route holds
//! these values.

use super::error::WsamError;
use super::half_precision::{computed_in, of_type};
use burn::module::ParamId;
use burn::tensor::{Shape, Tensor};
use std::collections::HashMap;

/// The parameters of a step in module order.
///
/// Several parameters of a module may have the same id: a tied weight, or a target network cloned from the online
/// one. The first that requires a gradient takes part, or the first one if none requires a gradient.
#[derive(Clone, Debug, Default)]
pub(crate) struct StepParams {
    /// Id and path.
    pub(crate) names: Vec<(ParamId, String)>,
    /// For each id, the number of parameters with that id before the one that takes part. Ids for which it is 0
    /// are omitted.
    pub(crate) before: HashMap<ParamId, usize>,
}

impl StepParams {
    /// One value for each parameter, in their order.
    pub(crate) fn values<T>(&self, values: Vec<T>) -> ParamValues<T> {
        let values = self.names.iter().map(|(id, _)| *id).zip(values).collect();
        ParamValues { values, before: self.before.clone() }
    }

    /// Removes the parameters at `places`, which must be sorted.
    #[must_use]
    pub(crate) fn without(mut self, places: &[usize]) -> Self {
        self.names = without(self.names, places);
        self
    }
}

/// Removes the items at `places`, which must be sorted.
pub(crate) fn without<T>(items: Vec<T>, places: &[usize]) -> Vec<T> {
    let kept = items.into_iter().enumerate().filter(|(i, _)| places.binary_search(i).is_err());
    kept.map(|(_, item)| item).collect()
}

/// Values for the parameters of a step, to be taken while visiting the module.
pub(crate) struct ParamValues<T> {
    values: HashMap<ParamId, T>,
    before: HashMap<ParamId, usize>,
}

impl<T> ParamValues<T> {
    /// Returns the value for the next parameter with this id, if it is the one that takes part. Call it for each
    /// parameter of the module, in module order.
    pub(crate) fn take(&mut self, id: ParamId) -> Option<T> {
        match self.before.get_mut(&id) {
            Some(before) if *before > 0 => {
                *before -= 1;
                None
            }
            _ => self.values.remove(&id),
        }
    }
}

/// Layout in which a route stores tensors of any rank.
pub(crate) trait TensorLayout {
    /// A tensor without autodiff.
    type Tensor: Clone + Send + 'static;

    /// Whether a step may give a tensor of the model other memory, instead of replacing the tensor.
    const MAY_MOVE: bool = false;

    /// Returns whether the tensor's value has another reference, and the tensor.
    fn is_shared<const D: usize>(tensor: Tensor<D>) -> (bool, Tensor<D>) {
        (true, tensor)
    }

    fn from_tensor<const D: usize>(tensor: Tensor<D>) -> Result<Self::Tensor, WsamError>;

    /// Converts back. `shape` is the shape of the tensor that the result replaces. The element type is that of
    /// [`computed_in`].
    fn into_tensor<const D: usize>(tensor: Self::Tensor, shape: Shape) -> Tensor<D>;
}

/// One-dimensional tensors, for tensor operations.
#[derive(Debug)]
pub(crate) struct Flat;

impl TensorLayout for Flat {
    type Tensor = Tensor<1>;

    fn from_tensor<const D: usize>(tensor: Tensor<D>) -> Result<Tensor<1>, WsamError> {
        let len = tensor.shape().num_elements();
        let flat = tensor.reshape([len]);
        let dtype = computed_in(flat.dtype());
        Ok(of_type(flat, dtype))
    }

    fn into_tensor<const D: usize>(tensor: Tensor<1>, shape: Shape) -> Tensor<D> {
        tensor.reshape(shape)
    }
}
