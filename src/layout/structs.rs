//! Structs that the host and the shaders share. The WGSL structs have the same names.

use super::{COLUMNS, nonfinite_flag};
use bytemuck::{Pod, Zeroable};
use std::mem::{offset_of, size_of};

/// One row of the chunk table. Offsets are in elements from the start of the binding.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Chunk {
    /// Elements in the chunk.
    pub len: u32,
    /// Index of the buffer set whose buffers hold it.
    pub buffer_set: u32,
    /// Index among all chunks of the phase, in the order of the tensors.
    pub index: u32,
    /// Offset in the weight binding.
    pub weight: u32,
    /// Offset in the anchor binding, if `w` is read from there.
    pub anchor: u32,
    /// Offset in the gradient binding.
    pub grad: u32,
    /// Offset in the perturbed gradient binding.
    pub grad_perturbed: u32,
    /// Offset in the second weight binding of an ascent.
    pub weight_copy: u32,
    /// Offset in the first state binding.
    pub state_0: u32,
    /// Offset in the second state binding.
    pub state_1: u32,
    /// Offset in the third state binding.
    pub state_2: u32,
    /// Row of its tensor in the table of parameter classes.
    pub param_class: u32,
    /// Index of its first element among all tensors, each rounded up to whole vectors of four. It is the counter
    /// of stochastic rounding's random numbers, and may wrap around.
    pub position: u32,
}

impl Chunk {
    /// Creates a row of buffer set 0 from its offsets, indexed by [`column`](mod@super::column).
    pub fn new(
        len: u32,
        index: u32,
        param_class: u32,
        position: u32,
        offsets: [u32; COLUMNS],
    ) -> Self {
        let [weight, anchor, grad, grad_perturbed, weight_copy, state_0, state_1, state_2] =
            offsets;
        Self {
            len,
            buffer_set: 0,
            index,
            weight,
            anchor,
            grad,
            grad_perturbed,
            weight_copy,
            state_0,
            state_1,
            state_2,
            param_class,
            position,
        }
    }
}

/// The norms of a step's gradients, and whether the gradients are finite.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct Norms {
    /// `||g||`, or 0 if the step did not compute it.
    pub gradient: f32,
    /// The norm that `e_w` was divided by: `||g||`, or `|| |w| g ||` if adaptive. It covers the perturbed
    /// tensors whose group has no norm of its own.
    pub perturbation: f32,
    /// `||g~||`, or 0 if the step did not compute it.
    pub perturbed: f32,
    /// Inverse of the loss scale. The gradients, and with them the norms, were multiplied by it.
    pub inv_scale: f32,
    /// The norms that `e_w` was divided by in the groups with a norm of their own, in the order of the groups.
    pub own: [f32; SCOPES],
    /// 1 if `g` or its norm was not finite, else 0.
    pub nonfinite_gradient: f32,
    /// 1 if `g~` was checked and was not finite, else 0.
    pub nonfinite_perturbed: f32,
    /// Counter of `norm_and_finish`, 0 between dispatches.
    pub chunks_done: u32,
    /// Unused.
    pub padding: f32,
}

impl Norms {
    /// Returns whether `g` and its norm were finite.
    pub fn gradient_is_finite(&self) -> bool {
        self.nonfinite_gradient == 0.0
    }

    /// Returns whether `g~` was finite, or was not checked.
    pub fn perturbed_is_finite(&self) -> bool {
        self.nonfinite_perturbed == 0.0
    }

    /// Bit of [`NormFinishUniforms::slots_plain`] that writes `gradient`.
    pub const GRADIENT: u32 = 1;
    /// Bit of [`NormFinishUniforms::slots_plain`] that writes `perturbation`.
    pub const PERTURBATION: u32 = 2;
    /// Bit of [`NormFinishUniforms::slots_plain`] that writes `perturbed`.
    pub const PERTURBED: u32 = 4;

    /// Returns the index, in 32-bit words of this struct, of the norm of a
    /// [scope](crate::method::InGroup::scope).
    pub const fn place(scope: usize) -> u32 {
        match scope {
            0 => 1,
            own => 3 + own as u32,
        }
    }
}

/// Largest number of norms that perturbations are divided by.
pub const SCOPES: usize = 32;

/// Uniforms of `norm_finish`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct NormFinishUniforms {
    /// Number of partial sums of each norm.
    pub partial_count: u32,
    /// Fields of [`Norms`] that receive the norm of `g`, as bits.
    pub slots_plain: u32,
    /// Index of the flag in [`Norms`] that is set to 1 if a norm is not finite, from [`nonfinite_flag`].
    pub nonfinite_flag: u32,
    /// Number of scopes, for `norm_and_finish`.
    pub scope_count: u32,
    /// End of each scope's partial sums. They begin at the end of the previous scope's.
    pub ends: [u32; SCOPES],
}

/// Uniforms of one dispatch.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct DispatchUniforms {
    /// Rows in the chunk table.
    pub chunk_count: u32,
    /// Workgroups in the x dimension of the dispatch.
    pub grid_width: u32,
    /// Low word of the seed for stochastic rounding.
    pub seed_0: u32,
    /// High word of the seed for stochastic rounding.
    pub seed_1: u32,
}

/// Number of parameter classes in one page of the table of [`ParamClassUniforms`]. A dispatch accesses one page.
pub const PARAM_CLASSES: usize = 64;

/// Constants of a parameter class: the tensors with the same parameter group, learning rate and step count. The table in
/// `step.wgsl` lists the values for each base optimizer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct ParamClassUniforms {
    /// [`PERTURBED`](Self::PERTURBED) and the other bits below.
    pub flags: u32,
    /// Index of the norm that `e_w` is divided by, from [`Norms::place`].
    pub norm: u32,
    /// Radius of the perturbation.
    pub rho: f32,
    /// Added to the norm before the division: the method's `epsilon`.
    pub norm_epsilon: f32,
    /// Weight of `g` in the base step, or in a method's new state.
    pub a: f32,
    /// Weight of `g~` in the base step. In the kernels of WSAM's relatives, that of the other operand: the method's
    /// state, or the part of a gradient that is orthogonal to the other.
    pub b: f32,
    /// Weight of the sharpness `g~ - g`, which is subtracted after the base step.
    pub sharpness: f32,
    /// Largest norm of `g` that is not clipped.
    pub max_norm: f32,
    /// Largest norm of `g~` that is not clipped.
    pub max_norm_perturbed: f32,
    /// Learning rate.
    pub lr: f32,
    /// Factor on the weight: AdamW's decoupled decay.
    pub decay: f32,
    /// L2 penalty in the gradient.
    pub weight_decay: f32,
    /// Added to the root of the second moment.
    pub base_epsilon: f32,
    /// `1 / (1 - beta_2^t)`.
    pub inverse_bias_2: f32,
    /// Weight of the old first state in the new one.
    pub keep_1: f32,
    /// Weight of the gradient in the new first state.
    pub add_1: f32,
    /// Weight of the old second state in the new one.
    pub keep_2: f32,
    /// Weight of the squared gradient in the new second state.
    pub add_2: f32,
    /// Weight of the first state in the update.
    pub mix_m: f32,
    /// Weight of the gradient in the update.
    pub mix_d: f32,
}

impl ParamClassUniforms {
    /// Bit of [`flags`](Self::flags): the ascent perturbs these tensors.
    pub const PERTURBED: u32 = 1;
    /// Bit: their perturbation is adaptive.
    pub const ADAPTIVE: u32 = 2;
    /// Bit: the blend is read from the device buffer.
    pub const DEVICE_BLEND: u32 = 4;
    /// Bit: the first step of these tensors, which ignores the content of their states.
    pub const FIRST: u32 = 8;
    /// Bit: a step with non-finite gradients is skipped.
    pub const SKIPS: u32 = 16;
    /// Bit: if only `g~` is not finite, the base optimizer steps on `g` instead.
    pub const FALLS_BACK: u32 = 32;
    /// Bit: the base optimizer receives `a g + b (g~ - g)` instead of `a g + b g~`.
    pub const BY_DIFFERENCE: u32 = 64;
}

/// The blend of the gradients, in a separate device buffer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct BlendUniforms {
    /// Weight of `g` in the base step.
    pub a: f32,
    /// Weight of `g~` in the base step.
    pub b: f32,
    /// Weight of the sharpness `g~ - g`, which is subtracted after the base step.
    pub sharpness: f32,
    /// Unused.
    pub padding: f32,
}

/// Factors of the parts of two gradients that are orthogonal to each other, in a device buffer that `coefficients`
/// writes. Each has a row for each scope.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct Coefficients {
    /// Of `g`, orthogonal to `g~`: the two factors whose product is that of `g~`.
    pub of_grad: [[f32; 4]; SCOPES],
    /// Of `g~`, orthogonal to `g`: the two factors, the smallest length that is not taken for rounding error, and the
    /// length, or 0 if it is smaller. Lengths are those of the gradients times the loss scale.
    pub of_grad_perturbed: [[f32; 4]; SCOPES],
}

const _: () = {
    assert!(
        size_of::<Coefficients>() == 1024 && offset_of!(Coefficients, of_grad_perturbed) == 512
    );
    assert!(size_of::<Chunk>() == 52);
    assert!(offset_of!(Chunk, weight_copy) == 28 && offset_of!(Chunk, param_class) == 44);
    assert!(size_of::<Norms>() == 160 && offset_of!(Norms, own) == 16);
    assert!(offset_of!(Norms, nonfinite_gradient) == 4 * nonfinite_flag(false) as usize);
    assert!(offset_of!(Norms, nonfinite_perturbed) == 4 * nonfinite_flag(true) as usize);
    assert!(size_of::<NormFinishUniforms>() == 144 && offset_of!(NormFinishUniforms, ends) == 16);
    assert!(size_of::<DispatchUniforms>() == 16);
    assert!(size_of::<ParamClassUniforms>() == 80);
    assert!(
        offset_of!(ParamClassUniforms, sharpness) == 24 && offset_of!(ParamClassUniforms, lr) == 36
    );
    assert!(
        offset_of!(ParamClassUniforms, keep_1) == 56 && offset_of!(ParamClassUniforms, mix_d) == 76
    );
    assert!(size_of::<BlendUniforms>() == 16 && offset_of!(BlendUniforms, sharpness) == 8);
};
