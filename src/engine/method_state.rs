//! The state tensor of a method, and the tensors of Momentum-SAM's ascent.

use super::slice::Slice;
use super::tensors::Placement;

/// The tensor that a method keeps for each perturbed parameter beside the base optimizer's state, in `f32`
/// ([`Method::state_names`](crate::method::Method::state_names)).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MethodState {
    /// The method keeps none for this tensor.
    #[default]
    None,
    /// Memory whose content is ignored: no step has written it yet.
    ///
    /// After a step that was not skipped it is [`Set`](Self::Set). LookSAM also leaves it as it is in a step that the
    /// base optimizer took over because `g~` was not finite.
    Unset(Slice),
    /// The state that the last step wrote.
    Set(Slice),
}

impl MethodState {
    /// Returns the tensor.
    pub fn slice(&self) -> Option<&Slice> {
        match self {
            Self::None => None,
            Self::Unset(slice) | Self::Set(slice) => Some(slice),
        }
    }

    /// Returns whether a step has written the tensor.
    pub fn is_set(&self) -> bool {
        matches!(self, Self::Set(_))
    }
}

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
