//! The tensors of each phase of a step, as a caller passes them.

use super::method_state::MethodState;
use super::slice::Slice;

/// Where an ascent writes the perturbed weights `w + e_w` of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Placement {
    /// The tensor's group is not perturbed: the second pass reads `w`.
    Unperturbed,
    /// In this slice. `w` is not written, so it need not be restored.
    OutOfPlace(Slice),
    /// Over `w`. Both forward passes read the same buffer, and the descent restores `w` bit for bit.
    InPlace {
        /// Slice that `w` is saved to, from which the descent restores it. `None` if, and only if, the tensor
        /// has master weights, which hold `w` anyway.
        anchor: Option<Slice>,
    },
}

/// One tensor of an ascent. All slices have the weight's length.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AscentTensor {
    /// The weights `w`. Read, unless there are master weights; overwritten with `w + e_w` if
    /// [`Placement::InPlace`].
    pub weight: Slice,
    /// The gradient `g`. Read.
    pub grad: Slice,
    /// Where `w + e_w` is written. [`Placement::Unperturbed`] if, and only if, the tensor's group is not
    /// perturbed. All perturbed tensors of an ascent are placed in the same way.
    pub perturbed: Placement,
    /// `f32` master weights of a tensor in half precision. Read.
    pub master: Option<Slice>,
    /// Friendly-SAM's average. Read. [`MethodState::None`] under other methods and for tensors that are not perturbed.
    pub method_state: MethodState,
    /// The parameter group: 0 for no group, `k` for the `k`-th of
    /// [`Hyperparameters::groups`](crate::method::Hyperparameters::groups).
    pub group: usize,
}

impl AscentTensor {
    /// Creates a tensor without master weights and method state, of no group.
    pub fn new(weight: Slice, grad: Slice, perturbed: Placement) -> Self {
        Self { weight, grad, perturbed, master: None, method_state: MethodState::None, group: 0 }
    }
}

/// One tensor of a descent. All slices have the weight's length.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DescentTensor {
    /// Written with the new weights. Read as `w` if there are neither an anchor nor master weights.
    pub weight: Slice,
    /// Slice that `w` is read from: the anchor of an ascent in place, or the old weights if the new weights are
    /// written to a separate buffer. `None` if `weight` still holds `w`, as after an ascent out of place, and
    /// for a tensor that has master weights.
    pub anchor: Option<Slice>,
    /// `f32` master weights of a tensor in half precision. Read as `w`; written with the new weights, of which
    /// `weight` receives a rounded copy.
    pub master: Option<Slice>,
    /// The gradient `g`, unclipped. Read.
    pub grad: Slice,
    /// The perturbed gradient `g~`. Read.
    pub grad_perturbed: Slice,
    /// State tensors, in the order of [`Base::state_names`](crate::method::Base::state_names).
    /// Read and written; the first step ignores their content.
    pub state: Vec<Slice>,
    /// Step count of this tensor, from 1. A [skipped](crate::method::NonFinite::Skip) step does not advance it;
    /// the step's [norms](crate::layout::Norms) show whether it was skipped.
    pub step: u64,
    /// The method's state tensor ([`Method::state_names`](crate::method::Method::state_names)): Friendly-SAM's average,
    /// LookSAM's direction. Read and written. [`MethodState::None`] under other methods and for tensors that are not
    /// perturbed.
    pub method_state: MethodState,
    /// The parameter group: 0 for no group, `k` for the `k`-th of
    /// [`Hyperparameters::groups`](crate::method::Hyperparameters::groups).
    pub group: usize,
}

impl DescentTensor {
    /// Creates a tensor without state, anchor and master weights, of no group, at step 1.
    pub fn new(weight: Slice, grad: Slice, grad_perturbed: Slice) -> Self {
        Self {
            weight,
            anchor: None,
            master: None,
            grad,
            grad_perturbed,
            state: Vec::new(),
            step: 1,
            method_state: MethodState::None,
            group: 0,
        }
    }
}

/// One tensor of a lean ascent. All slices have the weight's length.
///
/// Lean mode does not support master weights.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LeanAscentTensor {
    /// Written with `base_step(w, g) + lr alpha g`, the input of the lean descent. Read as `w` if there is no
    /// anchor.
    pub weight: Slice,
    /// Slice that `w` is read from, if `weight` is a separate buffer.
    pub anchor: Option<Slice>,
    /// The gradient `g`, unclipped. Read; not needed after the ascent.
    pub grad: Slice,
    /// Written with `w + e_w`. `None` if, and only if, the tensor's group is not perturbed; the second pass then
    /// reads `w`.
    pub perturbed: Option<Slice>,
    /// State tensors, as in [`DescentTensor::state`].
    pub state: Vec<Slice>,
    /// Step count of this tensor, as in [`DescentTensor::step`].
    pub step: u64,
    /// The parameter group, as in [`DescentTensor::group`].
    pub group: usize,
}

impl LeanAscentTensor {
    /// Creates a tensor without state and anchor, of no group, at step 1.
    pub fn new(weight: Slice, grad: Slice, perturbed: impl Into<Option<Slice>>) -> Self {
        let (anchor, state) = (None, Vec::new());
        Self { weight, anchor, grad, perturbed: perturbed.into(), state, step: 1, group: 0 }
    }
}

/// One tensor of a lean descent.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LeanDescentTensor {
    /// The lean ascent's `weight`. Read; written with the new weights.
    pub weight: Slice,
    /// The perturbed gradient `g~`. Read.
    pub grad_perturbed: Slice,
    /// The weights of the second pass: the lean ascent's `perturbed`, or the old weights of a tensor that is not
    /// perturbed. If `g~` is not finite, and the method does not
    /// [propagate](crate::method::NonFinite::Propagate) this, they are copied to `weight`. Without this slice
    /// `weight` then keeps the lean ascent's result, which includes the term `lr alpha g`.
    pub second_pass_weight: Option<Slice>,
    /// The parameter group, as in [`DescentTensor::group`].
    pub group: usize,
}

impl LeanDescentTensor {
    /// Creates a tensor of no group, without the weights of the second pass.
    pub fn new(weight: Slice, grad_perturbed: Slice) -> Self {
        Self { weight, grad_perturbed, second_pass_weight: None, group: 0 }
    }
}

/// One tensor of a base optimizer's step alone. All slices have the weight's length.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BaseTensor {
    /// Written with the new weights. Read as `w` if there are neither an anchor nor master weights.
    pub weight: Slice,
    /// Slice that `w` is read from, if the new weights are written to a separate buffer.
    pub anchor: Option<Slice>,
    /// `f32` master weights, as in [`DescentTensor::master`].
    pub master: Option<Slice>,
    /// The gradient `g`, unclipped. Read.
    pub grad: Slice,
    /// State tensors, as in [`DescentTensor::state`].
    pub state: Vec<Slice>,
    /// Step count of this tensor, as in [`DescentTensor::step`].
    pub step: u64,
    /// LookSAM's direction, in a [step of one pass](super::Engine::one_pass_step). Read. [`MethodState::None`] in a base
    /// step, under other methods and for tensors that are not perturbed.
    pub method_state: MethodState,
    /// The parameter group, as in [`DescentTensor::group`].
    pub group: usize,
}

impl BaseTensor {
    /// Creates a tensor without state, anchor and master weights, of no group, at step 1.
    pub fn new(weight: Slice, grad: Slice) -> Self {
        let (anchor, master, method_state) = (None, None, MethodState::None);
        Self { weight, anchor, master, grad, state: Vec::new(), step: 1, method_state, group: 0 }
    }
}

/// One tensor of a [`mix`](super::Engine::mix). All slices have one length.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MixTensor {
    /// The blended gradient. Written.
    pub mixed: Slice,
    /// The gradient `g`, unclipped. Read.
    pub grad: Slice,
    /// The perturbed gradient `g~`. Read.
    pub grad_perturbed: Slice,
    /// The method's state, as in [`DescentTensor::method_state`].
    pub method_state: MethodState,
    /// The parameter group, as in [`DescentTensor::group`].
    pub group: usize,
}

impl MixTensor {
    /// Creates a tensor without method state, of no group.
    pub fn new(mixed: Slice, grad: Slice, grad_perturbed: Slice) -> Self {
        Self { mixed, grad, grad_perturbed, method_state: MethodState::None, group: 0 }
    }
}

/// One tensor of a [`clip`](super::Engine::clip). Both slices have one length.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClipTensor {
    /// The clipped gradient. Written.
    pub clipped: Slice,
    /// The gradient `g`. Read.
    pub grad: Slice,
    /// LookSAM's direction, in a [mix of one pass](super::Engine::one_pass_mix), as in [`BaseTensor::method_state`].
    pub method_state: MethodState,
    /// The parameter group, as in [`DescentTensor::group`].
    pub group: usize,
}

impl ClipTensor {
    /// Creates a tensor without method state, of no group.
    pub fn new(clipped: Slice, grad: Slice) -> Self {
        Self { clipped, grad, method_state: MethodState::None, group: 0 }
    }
}

/// One tensor of a [`sharpen`](super::Engine::sharpen). All slices have the weight's length.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SharpenTensor {
    /// Written with the new weights. Read if there is no anchor.
    pub weight: Slice,
    /// Slice that the base optimizer's weights are read from, if `weight` is a separate buffer.
    pub anchor: Option<Slice>,
    /// The gradient `g`, unclipped. Read.
    pub grad: Slice,
    /// The perturbed gradient `g~`. Read.
    pub grad_perturbed: Slice,
    /// The parameter group, as in [`DescentTensor::group`].
    pub group: usize,
}

impl SharpenTensor {
    /// Creates a tensor without an anchor, of no group.
    pub fn new(weight: Slice, grad: Slice, grad_perturbed: Slice) -> Self {
        Self { weight, anchor: None, grad, grad_perturbed, group: 0 }
    }
}

/// Defines the setters that several kinds of tensors share.
macro_rules! setters {
    ($($ty:ident: $($setter:ident),*;)*) => {$(
        impl $ty { $(setters!(@ $setter);)* }
    )*};
    (@ in_group) => {
        /// Sets the parameter group.
        pub fn in_group(self, group: usize) -> Self {
            Self { group, ..self }
        }
    };
    (@ with_anchor) => {
        /// Sets the slice that `w` is read from.
        pub fn with_anchor(self, anchor: impl Into<Option<Slice>>) -> Self {
            Self { anchor: anchor.into(), ..self }
        }
    };
    (@ with_master) => {
        /// Sets the `f32` master weights.
        pub fn with_master(self, master: impl Into<Option<Slice>>) -> Self {
            Self { master: master.into(), ..self }
        }
    };
    (@ with_state) => {
        /// Sets the state tensors and the step count.
        pub fn with_state(self, state: Vec<Slice>, step: u64) -> Self {
            Self { state, step, ..self }
        }
    };
    (@ with_method_state) => {
        /// Sets the method's state.
        pub fn with_method_state(self, method_state: MethodState) -> Self {
            Self { method_state, ..self }
        }
    };
    (@ with_second_pass_weight) => {
        /// Sets the weights of the second pass.
        pub fn with_second_pass_weight(self, weight: impl Into<Option<Slice>>) -> Self {
            Self { second_pass_weight: weight.into(), ..self }
        }
    };
}

setters! {
    AscentTensor: with_master, with_method_state, in_group;
    DescentTensor: with_anchor, with_master, with_state, with_method_state, in_group;
    LeanAscentTensor: with_anchor, with_state, in_group;
    LeanDescentTensor: with_second_pass_weight, in_group;
    BaseTensor: with_anchor, with_master, with_state, with_method_state, in_group;
    MixTensor: with_method_state, in_group;
    ClipTensor: with_method_state, in_group;
    SharpenTensor: with_anchor, in_group;
}
