//! The tensors of Momentum-SAM's ascent, as a caller passes them.

use super::slice::Slice;
use super::tensors::Placement;

/// One tensor of Momentum-SAM's [ascent](super::Engine::momentum_ascent). All slices have the weight's length.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MomentumTensor {
    /// The weights `w`. Read, unless there are master weights; overwritten with `w + e_w` if
    /// [`Placement::InPlace`].
    pub weight: Slice,
    /// The momentum buffer or first moment: the state tensor
    /// [`Base::momentum_state`](crate::method::Base::momentum_state). Read; the first step ignores its content.
    pub momentum: Slice,
    /// Where `w + e_w` is written, as in [`AscentTensor::perturbed`](super::AscentTensor::perturbed). In the first step
    /// `e_w` is zero.
    pub perturbed: Placement,
    /// `f32` master weights of a tensor in half precision. Read.
    pub master: Option<Slice>,
    /// Step count of this tensor, from 1: that of the step that the ascent begins.
    pub step: u64,
    /// The parameter group, as in [`AscentTensor::group`](super::AscentTensor::group).
    pub group: usize,
}

impl MomentumTensor {
    /// Creates a tensor without master weights, of no group.
    pub fn new(weight: Slice, momentum: Slice, perturbed: Placement, step: u64) -> Self {
        Self { weight, momentum, perturbed, master: None, step, group: 0 }
    }

    /// Sets the `f32` master weights.
    pub fn with_master(self, master: impl Into<Option<Slice>>) -> Self {
        Self { master: master.into(), ..self }
    }

    /// Sets the parameter group.
    pub fn in_group(self, group: usize) -> Self {
        Self { group, ..self }
    }
}
