//! Binding numbers, uniform structs and shader sources, which are defined only here.
//!
//! Each struct mirrors the WGSL struct of the same name. Sizes and offsets are checked twice: by assertions at
//! compile time (`structs.rs`), and by `tests/layout` against naga's reflection of the shaders.

mod frames;
mod samples;
mod specialisations;
mod structs;

pub use frames::{COLUMN_NAMES, column_binding, framed};
pub use samples::{sampled_constants, sampled_modules};
pub use specialisations::{
    COLUMNS, Frames, Kernel, NormOf, Packed, Scaling, Specialisation, Stage, WORKGROUPS, Width,
    column, mark,
};
pub use structs::{
    BlendUniforms, Chunk, DispatchUniforms, KINDS, KindUniforms, NormFinishUniforms, Norms, SCOPES,
};

use std::mem::size_of;

/// Returns the WGSL source of a stage with one frame: the stage's [files](Stage::files), concatenated.
/// [`framed`] derives the source for more frames from it.
pub const fn source(stage: Stage, width: Width) -> &'static str {
    macro_rules! joined {
        ($($file:literal),+) => {
            concat!($(include_str!(concat!("../../shaders/", $file))),+)
        };
    }
    macro_rules! sources {
        ($($own:literal),+) => {
            match width {
                Width::Wide => joined!(
                    "common.wgsl", "tensors_wide.wgsl", "states.wgsl", "no_master.wgsl", $($own),+
                ),
                Width::Narrow => joined!(
                    "common.wgsl", "tensors_narrow.wgsl", "no_master.wgsl", $($own),+
                ),
                Width::Packed(Packed { master: false, .. }) => joined!(
                    "common.wgsl", "tensors_half.wgsl", "states.wgsl", "anchor_half.wgsl",
                    "no_master.wgsl", $($own),+
                ),
                Width::Packed(Packed { master: true, .. }) => joined!(
                    "common.wgsl", "tensors_half.wgsl", "states.wgsl", "master.wgsl", $($own),+
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

/// How a stage accesses a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A uniform buffer of this many bytes.
    Uniform(u64),
    /// A read-only storage buffer.
    Table,
    /// A read-write storage buffer. All tensors are bound read-write, for the reason given in
    /// `tensors_wide.wgsl`.
    Storage,
}

/// A binding of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Bind group. Group 0 is reused while the tensors stay in the same buffers; group 1 is created for each
    /// phase of a step.
    pub group: u32,
    /// Binding number.
    pub number: u32,
    /// Name of the WGSL variable.
    pub name: &'static str,
    /// How the stage accesses it.
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
/// Binding of the norm's partial sums.
pub const PARTIALS: Binding =
    Binding { group: 0, number: 9, name: "partials", access: Access::Storage };
/// Binding of the norms buffer, in which `norm_finish` writes the norms and `check` its flag.
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

const NORM_MASTER: &[Binding] =
    &[CHUNKS, tensor(column::ANCHOR), tensor(column::GRAD), PARTIALS, DISPATCH, KIND_TABLE];

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

const ASCENT_MASTER: &[Binding] = &[
    CHUNKS,
    tensor(column::WEIGHT),
    tensor(column::ANCHOR),
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

/// Returns the bindings of a stage with one frame, ordered by group and number. Each further frame repeats the
/// bindings of the varying columns at [`column_binding`].
pub const fn bindings(stage: Stage, width: Width) -> &'static [Binding] {
    match stage {
        Stage::Norm if width.has_master() => NORM_MASTER,
        Stage::Norm => NORM,
        Stage::NormFinish => NORM_FINISH,
        Stage::Ascent if width.has_master() => ASCENT_MASTER,
        Stage::Ascent => ASCENT,
        Stage::Descent => DESCENT,
        Stage::LeanAscent => LEAN_ASCENT,
        Stage::LeanDescent => LEAN_DESCENT,
        Stage::Check => CHECK,
    }
}

/// Returns the number of storage buffers that a stage with one frame binds.
pub fn storage_buffers(stage: Stage, width: Width) -> u32 {
    bindings(stage, width).iter().filter(|b| !matches!(b.access, Access::Uniform(_))).count() as u32
}
