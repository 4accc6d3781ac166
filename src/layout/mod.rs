//! The only home of binding numbers, uniform structs and shader sources.
//!
//! Each struct mirrors the WGSL struct of the same name. Sizes and offsets are held twice: by the
//! assertions below at compile time, and by `tests/layout.rs` against naga's reflection of the
//! shaders.

mod specialisations;

pub use specialisations::{Specialisation, Stage, WORKGROUPS, Width};

use bytemuck::{Pod, Zeroable};
use std::mem::{offset_of, size_of};

/// WGSL source of a stage: `common.wgsl`, the accessors, the stage.
pub const fn source(stage: Stage, width: Width) -> &'static str {
    /// The files, for both widths.
    macro_rules! sources {
        ($stage:literal) => {
            match width {
                Width::Wide => concat!(
                    include_str!("../../shaders/common.wgsl"),
                    include_str!("../../shaders/tensors_wide.wgsl"),
                    include_str!(concat!("../../shaders/", $stage)),
                ),
                Width::Narrow => concat!(
                    include_str!("../../shaders/common.wgsl"),
                    include_str!("../../shaders/tensors_narrow.wgsl"),
                    include_str!(concat!("../../shaders/", $stage)),
                ),
            }
        };
    }
    match stage {
        Stage::Norm | Stage::NormFinish => sources!("norm.wgsl"),
        Stage::Ascent => sources!("ascent.wgsl"),
        Stage::Descent => sources!("descent.wgsl"),
    }
}

/// How a binding is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A uniform buffer of this many bytes.
    Uniform(u64),
    /// A storage buffer that the stage only reads.
    Table,
    /// A storage buffer of tensors, bound read_write (see `tensors_wide.wgsl` for why).
    Tensor,
}

/// A binding of group 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Its number.
    pub number: u32,
    /// The WGSL variable's name.
    pub name: &'static str,
    /// How it is used.
    pub access: Access,
}

const fn uniform<T>(number: u32, name: &'static str) -> Binding {
    Binding { number, name, access: Access::Uniform(size_of::<T>() as u64) }
}

const fn table(number: u32, name: &'static str) -> Binding {
    Binding { number, name, access: Access::Table }
}

const fn tensor(number: u32, name: &'static str) -> Binding {
    Binding { number, name, access: Access::Tensor }
}

const CHUNKS: Binding = table(1, "chunks");
const WEIGHT: Binding = tensor(4, "weight");
const GRAD: Binding = tensor(5, "grad");
const PARTNER: Binding = tensor(7, "partner");

const NORM: &[Binding] =
    &[uniform::<NormUniforms>(0, "norm_uniforms"), CHUNKS, WEIGHT, GRAD, tensor(11, "partials")];

const NORM_FINISH: &[Binding] = &[
    tensor(11, "partials"),
    uniform::<NormFinishUniforms>(12, "norm_finish_uniforms"),
    tensor(13, "norms"),
];

const ASCENT: &[Binding] = &[
    uniform::<AscentUniforms>(0, "ascent_uniforms"),
    CHUNKS,
    uniform::<Norms>(2, "ascent_norms"),
    WEIGHT,
    GRAD,
    PARTNER,
];

const DESCENT: &[Binding] = &[
    uniform::<DescentUniforms>(0, "descent_uniforms"),
    CHUNKS,
    uniform::<Norms>(2, "descent_norms"),
    uniform::<BlendUniforms>(3, "descent_blend"),
    WEIGHT,
    GRAD,
    tensor(6, "grad_perturbed"),
    PARTNER,
    tensor(8, "state_0"),
    tensor(9, "state_1"),
    tensor(10, "state_2"),
];

/// Bindings of a stage, in the order the engine fills them.
pub const fn bindings(stage: Stage) -> &'static [Binding] {
    match stage {
        Stage::Norm => NORM,
        Stage::NormFinish => NORM_FINISH,
        Stage::Ascent => ASCENT,
        Stage::Descent => DESCENT,
    }
}

/// One row of the chunk table; offsets count `f32` elements from the start of the binding.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Chunk {
    /// Elements in the chunk.
    pub len: u32,
    /// Offset in the weight binding.
    pub weight: u32,
    /// Offset in the gradient binding.
    pub grad: u32,
    /// Offset in the perturbed gradient binding.
    pub grad_perturbed: u32,
    /// Offset in the second weight binding: `w + e_w`, or the anchor.
    pub partner: u32,
    /// Offset in the first state binding.
    pub state_0: u32,
    /// Offset in the second state binding.
    pub state_1: u32,
    /// Offset in the third state binding.
    pub state_2: u32,
}

/// Global norms of a step.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct Norms {
    /// `||g||`; 0 where the step had no use for it.
    pub gradient: f32,
    /// What `e_w` was divided by: `||g||`, or `|| |w| g ||` if adaptive.
    pub perturbation: f32,
    /// `||g~||`; 0 where the step had no use for it.
    pub perturbed: f32,
    /// Unused.
    pub padding: f32,
}

impl Norms {
    /// Bit of [`NormFinishUniforms::slots`] that writes `gradient`.
    pub const GRADIENT: u32 = 1;
    /// Bit that writes `perturbation`.
    pub const PERTURBATION: u32 = 2;
    /// Bit that writes `perturbed`.
    pub const PERTURBED: u32 = 4;
}

/// Uniforms of `norm`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct NormUniforms {
    /// Rows in the chunk table.
    pub chunk_count: u32,
    /// Workgroups in the x dimension of the dispatch.
    pub grid_width: u32,
    /// Where this dispatch's partial sums start.
    pub first_partial: u32,
    /// Unused.
    pub padding: u32,
}

/// Uniforms of `norm_finish`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct NormFinishUniforms {
    /// Partial sums to add up.
    pub partial_count: u32,
    /// Fields of [`Norms`] to write, as bits.
    pub slots: u32,
    /// Unused.
    pub padding: [u32; 2],
}

/// Uniforms of `ascent`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct AscentUniforms {
    /// Rows in the chunk table.
    pub chunk_count: u32,
    /// Workgroups in the x dimension of the dispatch.
    pub grid_width: u32,
    /// Radius of the perturbation.
    pub rho: f32,
    /// Guard of the division by the norm.
    pub epsilon: f32,
}

/// Uniforms of `descent`; the table in `descent.wgsl` says what each base optimizer puts here.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct DescentUniforms {
    /// Rows in the chunk table.
    pub chunk_count: u32,
    /// Workgroups in the x dimension of the dispatch.
    pub grid_width: u32,
    /// 1 in the first step of these tensors: the state's content is ignored.
    pub first: u32,
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
    /// Largest norm of `g` that passes unchanged.
    pub max_norm: f32,
    /// Largest norm of `g~` that passes unchanged.
    pub max_norm_perturbed: f32,
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
    assert!(size_of::<Chunk>() == 32);
    assert!(offset_of!(Chunk, partner) == 16 && offset_of!(Chunk, state_2) == 28);
    assert!(size_of::<Norms>() == 16 && offset_of!(Norms, perturbed) == 8);
    assert!(size_of::<NormUniforms>() == 16 && offset_of!(NormUniforms, first_partial) == 8);
    assert!(size_of::<NormFinishUniforms>() == 16 && offset_of!(NormFinishUniforms, slots) == 4);
    assert!(size_of::<AscentUniforms>() == 16 && offset_of!(AscentUniforms, epsilon) == 12);
    assert!(size_of::<DescentUniforms>() == 64);
    assert!(offset_of!(DescentUniforms, decay) == 16 && offset_of!(DescentUniforms, keep_1) == 32);
    assert!(offset_of!(DescentUniforms, max_norm_perturbed) == 60);
    assert!(size_of::<BlendUniforms>() == 16 && offset_of!(BlendUniforms, sharpness) == 8);
};
