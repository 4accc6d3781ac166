//! How a route holds tensors, and the types that it computes in.

use super::error::WsamError;
use super::halves::rounds_to;
use burn::tensor::{DType, FloatDType, Shape, Tensor};

/// How a route holds tensors, whatever their rank.
pub(crate) trait TensorLayout {
    /// A tensor off the autodiff graph.
    type Tensor: Clone + Send + 'static;

    fn from_tensor<const D: usize>(tensor: Tensor<D>) -> Result<Self::Tensor, WsamError>;

    /// `shape` is that of the tensor whose place it takes. The result is of the type that was
    /// [computed in](computed_in).
    fn into_tensor<const D: usize>(tensor: Self::Tensor, shape: Shape) -> Tensor<D>;
}

/// What a step over tensors of this type computes with, and keeps its state in: half precision is for
/// weights and gradients alone.
pub(crate) fn computed_in(dtype: DType) -> DType {
    match dtype {
        DType::F16 | DType::BF16 => DType::F32,
        other => other,
    }
}

/// Master weights of a parameter in half precision, `weight` in `f32`: those there are, where the weight is
/// their rounded copy, and the weight where it is something else.
///
/// Burn's cast is asked as well, for devices that do not round to the nearest. It cannot be asked alone: see
/// [`halves`](super::halves).
pub(crate) fn reconciled(weight: Tensor<1>, dtype: DType, master: Option<Tensor<1>>) -> Tensor<1> {
    let Some(master) = master else { return weight };
    let copy = of_type(of_type(master.clone(), dtype), weight.dtype());
    let same = rounds_to(&master, &weight, dtype).bool_or(copy.equal(weight.clone()));
    weight.mask_where(same, master)
}

pub(crate) fn of_type<const D: usize>(tensor: Tensor<D>, dtype: DType) -> Tensor<D> {
    if tensor.dtype() == dtype { tensor } else { tensor.cast(FloatDType::from(dtype)) }
}

/// Tensors of one dimension, to compute with.
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
