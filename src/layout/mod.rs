//! The only home of binding numbers, uniform structs and shader sources.
//!
//! Each struct mirrors the WGSL struct of the same name. Sizes and offsets are held twice: by the
//! assertions below at compile time, and by `tests/layout.rs` against naga's reflection of the
//! shaders.

mod frames;
mod specialisations;

pub use frames::{COLUMN_NAMES, column_binding, framed};
pub use specialisations::{
    COLUMNS, Frames, Kernel, NormOf, Scaling, Specialisation, Stage, WORKGROUPS, Width, column,
    mark,
};

use bytemuck::{Pod, Zeroable};
use std::mem::{offset_of, size_of};

/// WGSL source of a stage with one frame: the stage's [files](Stage::files), one after another.
/// [`framed`] makes the source of more frames from it.
pub const fn source(stage: Stage, width: Width) -> &'static str {
    macro_rules! sources {
        ($($file:literal),+) => {
            match width {
                Width::Wide => concat!(
                    include_str!("../../shaders/common.wgsl"),
                    include_str!("../../shaders/tensors_wide.wgsl"),
                    $(include_str!(concat!("../../shaders/", $file))),+
                ),
                Width::Narrow => concat!(
                    include_str!("../../shaders/common.wgsl"),
                    include_str!("../../shaders/tensors_narrow.wgsl"),
                    $(include_str!(concat!("../../shaders/", $file))),+
                ),
            }
        };
    }
    match stage {
        Stage::Norm | Stage::NormFinish => sources!("scaling.wgsl", "norm.wgsl"),
        Stage::Ascent => sources!("scaling.wgsl", "ascent.wgsl"),
        Stage::Descent => sources!("step.wgsl", "descent.wgsl"),
        Stage::LeanAscent => sources!("scaling.wgsl", "step.wgsl", "lean_ascent.wgsl"),
        Stage::LeanDescent => sources!("step.wgsl", "lean_descent.wgsl"),
        Stage::Check => sources!("check.wgsl"),
    }
}

/// How a binding is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A uniform buffer of this many bytes.
    Uniform(u64),
    /// A storage buffer that the stage only reads.
    Table,
    /// A storage buffer that the stage writes, or might: tensors are bound read_write throughout
    /// (see `tensors_wide.wgsl` for why).
    Storage,
}

/// A binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Its group: 0 stays while tensors stay where they are, 1 is made for each half of a step.
    pub group: u32,
    /// Its number.
    pub number: u32,
    /// The WGSL variable's name.
    pub name: &'static str,
    /// How it is used.
    pub access: Access,
}

const fn uniform<T>(number: u32, name: &'static str) -> Binding {
    Binding { group: 1, number, name, access: Access::Uniform(size_of::<T>() as u64) }
}

const fn tensor(column: usize) -> Binding {
    let number = column_binding(column, 0);
    Binding { group: 0, number, name: COLUMN_NAMES[column], access: Access::Storage }
}

const CHUNKS: Binding = Binding { group: 0, number: 0, name: "chunks", access: Access::Table };
/// Partial sums of the norm.
pub const PARTIALS: Binding =
    Binding { group: 0, number: 9, name: "partials", access: Access::Storage };
/// Where `norm_finish` writes the norms, and `check` its mark.
pub const NORMS: Binding = Binding { group: 1, number: 5, name: "norms", access: Access::Storage };
const DISPATCH: Binding = uniform::<DispatchUniforms>(0, "dispatch");
const STEP_NORMS: Binding = uniform::<Norms>(1, "step_norms");
const BLEND: Binding = uniform::<BlendUniforms>(2, "blend");
const KIND_TABLE: Binding = Binding {
    group: 1,
    number: 3,
    name: "kinds",
    access: Access::Uniform((KINDS * size_of::<KindUniforms>()) as u64),
};

const NORM: &[Binding] =
    &[CHUNKS, tensor(column::WEIGHT), tensor(column::GRAD), PARTIALS, DISPATCH, KIND_TABLE];

const NORM_FINISH: &[Binding] =
    &[PARTIALS, uniform::<NormFinishUniforms>(4, "norm_finish_uniforms"), NORMS];

const ASCENT: &[Binding] = &[
    CHUNKS,
    tensor(column::WEIGHT),
    tensor(column::GRAD),
    tensor(column::PARTNER),
    DISPATCH,
    STEP_NORMS,
    KIND_TABLE,
];

const DESCENT: &[Binding] = &[
    CHUNKS,
    tensor(column::WEIGHT),
    tensor(column::ANCHOR),
    tensor(column::GRAD),
    tensor(column::GRAD_PERTURBED),
    tensor(column::STATE),
    tensor(column::STATE + 1),
    tensor(column::STATE + 2),
    DISPATCH,
    STEP_NORMS,
    BLEND,
    KIND_TABLE,
];

const LEAN_ASCENT: &[Binding] = &[
    CHUNKS,
    tensor(column::WEIGHT),
    tensor(column::ANCHOR),
    tensor(column::GRAD),
    tensor(column::PARTNER),
    tensor(column::STATE),
    tensor(column::STATE + 1),
    tensor(column::STATE + 2),
    DISPATCH,
    STEP_NORMS,
    BLEND,
    KIND_TABLE,
];

const LEAN_DESCENT: &[Binding] = &[
    CHUNKS,
    tensor(column::WEIGHT),
    tensor(column::ANCHOR),
    tensor(column::GRAD_PERTURBED),
    DISPATCH,
    STEP_NORMS,
    BLEND,
    KIND_TABLE,
];

const CHECK: &[Binding] = &[CHUNKS, tensor(column::GRAD), DISPATCH, NORMS];

/// Bindings of a stage with one frame, by group and number. Further frames repeat the varying
/// columns' bindings at [`column_binding`].
pub const fn bindings(stage: Stage) -> &'static [Binding] {
    match stage {
        Stage::Norm => NORM,
        Stage::NormFinish => NORM_FINISH,
        Stage::Ascent => ASCENT,
        Stage::Descent => DESCENT,
        Stage::LeanAscent => LEAN_ASCENT,
        Stage::LeanDescent => LEAN_DESCENT,
        Stage::Check => CHECK,
    }
}

/// Storage buffers that a stage with one frame binds.
pub fn storage_buffers(stage: Stage) -> u32 {
    bindings(stage).iter().filter(|b| !matches!(b.access, Access::Uniform(_))).count() as u32
}

/// One row of the chunk table; offsets count `f32` elements from the start of the binding.
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
}

impl Chunk {
    /// A row of frame 0, from its offsets by [`column`](mod@column).
    pub fn new(len: u32, index: u32, kind: u32, offsets: [u32; COLUMNS]) -> Self {
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
    /// Unused.
    pub padding_0: u32,
    /// Unused.
    pub padding_1: u32,
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
    /// Bit: a step over gradients that are not finite is left out.
    pub const SKIPS: u32 = 16;
    /// Bit: but it is the base optimizer's where only `g~` is not finite.
    pub const FALLS_BACK: u32 = 32;
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
    assert!(size_of::<Chunk>() == 48);
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
