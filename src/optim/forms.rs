//! Tensor layouts of the routes, and the element types that they compute in.

use super::error::WsamError;
use super::halves::rounds_to;
use burn::tensor::{DType, FloatDType, Shape, Tensor};

/// Layout in which a route stores tensors of any rank.
pub(crate) trait TensorLayout {
    /// A tensor without autodiff.
    type Tensor: Clone + Send + 'static;

    fn from_tensor<const D: usize>(tensor: Tensor<D>) -> Result<Self::Tensor, WsamError>;

    /// Converts back. `shape` is the shape of the tensor that the result replaces. The element type is that of
    /// [`computed_in`].
    fn into_tensor<const D: usize>(tensor: Self::Tensor, shape: Shape) -> Tensor<D>;
}

/// Element type in which a step over tensors of `dtype` computes and keeps its state. Half precision is used for
/// weights and gradients only.
pub(crate) fn computed_in(dtype: DType) -> DType {
    match dtype {
        DType::F16 | DType::BF16 => DType::F32,
        other => other,
    }
}

/// Master weights of a parameter in half precision, with `weight` in `f32`: `master` where the weight is its
/// rounded copy, and `weight` elsewhere.
///
/// The comparison accepts Burn's cast as well, for devices that do not round to the nearest. The cast alone is
/// not reliable: see [`halves`](super::halves).
pub(crate) fn reconciled(weight: Tensor<1>, dtype: DType, master: Option<Tensor<1>>) -> Tensor<1> {
    let Some(master) = master else { return weight };
    let copy = of_type(of_type(master.clone(), dtype), weight.dtype());
    let same = rounds_to(&master, &weight, dtype).bool_or(copy.equal(weight.clone()));
    weight.mask_where(same, master)
}

pub(crate) fn of_type<const D: usize>(tensor: Tensor<D>, dtype: DType) -> Tensor<D> {
    if tensor.dtype() == dtype { tensor } else { tensor.cast(FloatDType::from(dtype)) }
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
