//! Structs that the shaders know by the same names.

use super::{COLUMNS, mark};
use bytemuck::{Pod, Zeroable};
use std::mem::{offset_of, size_of};

/// One row of the chunk table; offsets count elements from the start of the binding.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Chunk {
    /// Elements in the chunk.
    pub len: u32,
    /// The frame whose buffers hold it.
    pub frame: u32,
    /// Its place among all chunks of the step, in the order of the tensors.
    pub index: u32,
    /// Offset in the weight binding.
    pub weight: u32,
    /// Offset in the binding that `w` is read from, if not the weight's.
    pub anchor: u32,
    /// Offset in the gradient binding.
    pub grad: u32,
    /// Offset in the perturbed gradient binding.
    pub grad_perturbed: u32,
    /// Offset in the second weight binding of an ascent.
    pub partner: u32,
    /// Offset in the first state binding.
    pub state_0: u32,
    /// Offset in the second state binding.
    pub state_1: u32,
    /// Offset in the third state binding.
    pub state_2: u32,
    /// Its tensor's place in the table of kinds.
    pub kind: u32,
    /// Its first element's place among those of all tensors, each rounded up to whole vectors of four:
    /// what stochastic rounding counts by. It may wrap around.
    pub position: u32,
}

impl Chunk {
    /// A row of frame 0, from its offsets by [`column`](mod@super::column).
    pub fn new(len: u32, index: u32, kind: u32, position: u32, offsets: [u32; COLUMNS]) -> Self {
        let [weight, anchor, grad, grad_perturbed, partner, state_0, state_1, state_2] = offsets;
        Self {
            len,
            frame: 0,
            index,
            weight,
            anchor,
            grad,
            grad_perturbed,
            partner,
            state_0,
            state_1,
            state_2,
            kind,
            position,
        }
    }
}

/// What a step finds out about its gradients: norms, and whether they are finite.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct Norms {
    /// `||g||`; 0 where the step had no use for it.
    pub gradient: f32,
    /// What `e_w` was divided by: `||g||`, or `|| |w| g ||` if adaptive; over what is perturbed and has
    /// no norm of its own.
    pub perturbation: f32,
    /// `||g~||`; 0 where the step had no use for it.
    pub perturbed: f32,
    /// What the gradients were multiplied by, in the norms too: the inverse of the loss scale.
    pub inv_scale: f32,
    /// What `e_w` was divided by in the groups with a norm of their own, in their order.
    pub own: [f32; SCOPES],
    /// 1 if `g` or its norm was not finite, else 0.
    pub bad_gradient: f32,
    /// 1 if `g~` was looked at and was not finite, else 0.
    pub bad_perturbed: f32,
    /// Unused.
    pub padding_0: f32,
    /// Unused.
    pub padding_1: f32,
}

impl Norms {
    /// Whether `g` was finite, and its norm.
    pub fn gradient_is_finite(&self) -> bool {
        self.bad_gradient == 0.0
    }

    /// Whether `g~` was finite, if it was looked at.
    pub fn perturbed_is_finite(&self) -> bool {
        self.bad_perturbed == 0.0
    }

    /// Bit of [`NormFinishUniforms`]'s slots that writes `gradient`.
    pub const GRADIENT: u32 = 1;
    /// Bit that writes `perturbation`.
    pub const PERTURBATION: u32 = 2;
    /// Bit that writes `perturbed`.
    pub const PERTURBED: u32 = 4;

    /// Place, among all values, of the norm of a [scope](crate::method::InGroup::scope).
    pub const fn place(scope: usize) -> u32 {
        match scope {
            0 => 1,
            own => 3 + own as u32,
        }
    }
}

/// Norms that perturbations are divided by, at most.
pub const SCOPES: usize = 32;

/// Uniforms of `norm_finish`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct NormFinishUniforms {
    /// Partial sums to add up, of each kind.
    pub partial_count: u32,
    /// Fields of [`Norms`] that take the norm of `g`, as bits.
    pub slots_plain: u32,
    /// Which field of [`Norms`] is set to 1 if a norm is not finite: [`mark`].
    pub mark: u32,
    /// Unused.
    pub padding: u32,
    /// Where the partial sums of each scope end; they begin where the last one's end.
    pub ends: [u32; SCOPES],
}

/// A dispatch's own uniforms.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct DispatchUniforms {
    /// Rows in the chunk table.
    pub chunk_count: u32,
    /// Workgroups in the x dimension of the dispatch.
    pub grid_width: u32,
    /// Of stochastic rounding.
    pub seed_0: u32,
    /// Of stochastic rounding.
    pub seed_1: u32,
}

/// Kinds that one dispatch tells apart: rows of the table of [`KindUniforms`].
pub const KINDS: usize = 64;

/// What the tensors of a kind share: parameter group, learning rate, count of steps. The table in
/// `step.wgsl` says what each base optimizer puts here.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct KindUniforms {
    /// [`PERTURBED`](Self::PERTURBED) and the other bits.
    pub flags: u32,
    /// Place of the norm that `e_w` is divided by.
    pub norm: u32,
    /// Radius of the perturbation.
    pub rho: f32,
    /// Guard of the division by the norm.
    pub guard: f32,
    /// Weight of `g` in the base step.
    pub a: f32,
    /// Weight of `g~` in the base step.
    pub b: f32,
    /// Weight of `g~ - g` beside the base step.
    pub sharpness: f32,
    /// Largest norm of `g` that passes unchanged.
    pub max_norm: f32,
    /// Largest norm of `g~` that passes unchanged.
    pub max_norm_perturbed: f32,
    /// Learning rate.
    pub lr: f32,
    /// Factor on the weight: AdamW's decoupled decay.
    pub decay: f32,
    /// L2 penalty in the gradient.
    pub weight_decay: f32,
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// `1 / (1 - beta_2^t)`.
    pub inverse_bias_2: f32,
    /// Share of the old first state that stays.
    pub keep_1: f32,
    /// Share of the new gradient in the first state.
    pub add_1: f32,
    /// Share of the old second state that stays.
    pub keep_2: f32,
    /// Share of the new squared gradient in the second state.
    pub add_2: f32,
    /// Weight of the first state in the update.
    pub mix_m: f32,
    /// Weight of the gradient in the update.
    pub mix_d: f32,
}

impl KindUniforms {
    /// Bit of [`flags`](Self::flags): the ascent moves these tensors.
    pub const PERTURBED: u32 = 1;
    /// Bit: their perturbation is adaptive.
    pub const ADAPTIVE: u32 = 2;
    /// Bit: the blend is the one in the device's buffer.
    pub const DEVICE_BLEND: u32 = 4;
    /// Bit: the first step of these tensors; their states' content is ignored.
    pub const FIRST: u32 = 8;
    /// Bit: a step over gradients that are not finite is skipped.
    pub const SKIPS: u32 = 16;
    /// Bit: but it is the base optimizer's where only `g~` is not finite.
    pub const FALLS_BACK: u32 = 32;
    /// Bit: the base optimizer receives `a g + b (g~ - g)`, in place of `a g + b g~`.
    pub const BY_DIFFERENCE: u32 = 64;
}

/// The blend of the gradients, in a device buffer of its own.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct BlendUniforms {
    /// Weight of `g` in the base step.
    pub a: f32,
    /// Weight of `g~` in the base step.
    pub b: f32,
    /// Weight of `g~ - g` beside the base step.
    pub sharpness: f32,
    /// Unused.
    pub padding: f32,
}

const _: () = {
    assert!(size_of::<Chunk>() == 52);
    assert!(offset_of!(Chunk, partner) == 28 && offset_of!(Chunk, kind) == 44);
    assert!(size_of::<Norms>() == 160 && offset_of!(Norms, own) == 16);
    assert!(offset_of!(Norms, bad_gradient) == 4 * mark(false) as usize);
    assert!(offset_of!(Norms, bad_perturbed) == 4 * mark(true) as usize);
    assert!(size_of::<NormFinishUniforms>() == 144 && offset_of!(NormFinishUniforms, ends) == 16);
    assert!(size_of::<DispatchUniforms>() == 16);
    assert!(size_of::<KindUniforms>() == 80);
    assert!(offset_of!(KindUniforms, sharpness) == 24 && offset_of!(KindUniforms, lr) == 36);
    assert!(offset_of!(KindUniforms, keep_1) == 56 && offset_of!(KindUniforms, mix_d) == 76);
    assert!(size_of::<BlendUniforms>() == 16 && offset_of!(BlendUniforms, sharpness) == 8);
};
