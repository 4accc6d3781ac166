//! Unstable: the layout of the shaders' data may change in any release. Use it to read what the engine computes,
//! such as [`Norms`], or to write a kernel that computes a [blend](BlendUniforms), with a pinned version.
//!
//! Binding numbers, uniform structs and shader sources are defined only here. Each struct mirrors the WGSL struct
//! of the same name. Sizes and offsets are checked twice: by assertions at compile time (`structs.rs`), and by
//! `tests/layout.rs` against naga's reflection of the shaders.

mod buffer_sets;
mod samples;
mod specialisations;
mod stages;
mod structs;

pub use buffer_sets::{COLUMN_NAMES, column_binding, for_buffer_sets};
pub use samples::{sampled_constants, sampled_modules};
pub use specialisations::{Kernel, NormOf, Scaling, Specialisation, nonfinite_flag};
pub use stages::{BufferSets, COLUMNS, Packed, Stage, WORKGROUPS, Width, column};
pub use structs::{
    BlendUniforms, Chunk, DispatchUniforms, NormFinishUniforms, Norms, PARAM_CLASSES,
    ParamClassUniforms, SCOPES,
};

use std::mem::size_of;

/// Returns the WGSL source of a stage with one buffer set: the stage's [files](Stage::files), concatenated.
/// [`for_buffer_sets`] derives the source for more buffer sets from it.
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
        Stage::Norm | Stage::NormFinish => {
            sources!("scaling.wgsl", "partials.wgsl", "squares.wgsl", "norm.wgsl")
        }
        Stage::NormAndFinish => {
            sources!("scaling.wgsl", "partials_shared.wgsl", "squares.wgsl", "norm.wgsl")
        }
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
const PARAM_CLASS_TABLE: Binding = Binding {
    group: 1,
    number: 3,
    name: "param_classes",
    access: Access::Uniform((PARAM_CLASSES * size_of::<ParamClassUniforms>()) as u64),
};

const NORM: &[Binding] =
    &[CHUNKS, tensor(column::WEIGHT), tensor(column::GRAD), PARTIALS, DISPATCH, PARAM_CLASS_TABLE];

const NORM_MASTER: &[Binding] =
    &[CHUNKS, tensor(column::ANCHOR), tensor(column::GRAD), PARTIALS, DISPATCH, PARAM_CLASS_TABLE];

const NORM_FINISH_UNIFORMS: Binding = uniform::<NormFinishUniforms>(4, "norm_finish_uniforms");

const NORM_FINISH: &[Binding] = &[PARTIALS, NORM_FINISH_UNIFORMS, NORMS];

const NORM_AND_FINISH: &[Binding] = &[
    CHUNKS,
    tensor(column::WEIGHT),
    tensor(column::GRAD),
    PARTIALS,
    DISPATCH,
    PARAM_CLASS_TABLE,
    NORM_FINISH_UNIFORMS,
    NORMS,
];

const NORM_AND_FINISH_MASTER: &[Binding] = &[
    CHUNKS,
    tensor(column::ANCHOR),
    tensor(column::GRAD),
    PARTIALS,
    DISPATCH,
    PARAM_CLASS_TABLE,
    NORM_FINISH_UNIFORMS,
    NORMS,
];

const ASCENT: &[Binding] = &[
    CHUNKS,
    tensor(column::WEIGHT),
    tensor(column::GRAD),
    tensor(column::WEIGHT_COPY),
    DISPATCH,
    STEP_NORMS,
    PARAM_CLASS_TABLE,
];

const ASCENT_MASTER: &[Binding] = &[
    CHUNKS,
    tensor(column::WEIGHT),
    tensor(column::ANCHOR),
    tensor(column::GRAD),
    tensor(column::WEIGHT_COPY),
    DISPATCH,
    STEP_NORMS,
    PARAM_CLASS_TABLE,
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
    PARAM_CLASS_TABLE,
];

const LEAN_ASCENT: &[Binding] = &[
    CHUNKS,
    tensor(column::WEIGHT),
    tensor(column::ANCHOR),
    tensor(column::GRAD),
    tensor(column::WEIGHT_COPY),
    tensor(column::STATE),
    tensor(column::STATE + 1),
    tensor(column::STATE + 2),
    DISPATCH,
    STEP_NORMS,
    BLEND,
    PARAM_CLASS_TABLE,
];

const LEAN_DESCENT: &[Binding] = &[
    CHUNKS,
    tensor(column::WEIGHT),
    tensor(column::ANCHOR),
    tensor(column::GRAD_PERTURBED),
    DISPATCH,
    STEP_NORMS,
    BLEND,
    PARAM_CLASS_TABLE,
];

const CHECK: &[Binding] = &[CHUNKS, tensor(column::GRAD), DISPATCH, NORMS];

/// Returns the bindings of a stage with one buffer set, ordered by group and number. Each further set repeats the
/// bindings of the varying columns at [`column_binding`].
pub const fn bindings(stage: Stage, width: Width) -> &'static [Binding] {
    match stage {
        Stage::Norm if width.has_master() => NORM_MASTER,
        Stage::Norm => NORM,
        Stage::NormFinish => NORM_FINISH,
        Stage::NormAndFinish if width.has_master() => NORM_AND_FINISH_MASTER,
        Stage::NormAndFinish => NORM_AND_FINISH,
        Stage::Ascent if width.has_master() => ASCENT_MASTER,
        Stage::Ascent => ASCENT,
        Stage::Descent => DESCENT,
        Stage::LeanAscent => LEAN_ASCENT,
        Stage::LeanDescent => LEAN_DESCENT,
        Stage::Check => CHECK,
    }
}

/// Returns the number of storage buffers that a stage with one buffer set binds.
pub fn storage_buffers(stage: Stage, width: Width) -> u32 {
    bindings(stage, width).iter().filter(|b| !matches!(b.access, Access::Uniform(_))).count() as u32
}
