//! The bindings of each stage.

use super::buffer_sets::{COLUMN_NAMES, column_binding};
use super::stages::{Stage, Width, column};
use super::structs::{
    BlendUniforms, Coefficients, DispatchUniforms, NormFinishUniforms, Norms, PARAM_CLASSES,
    ParamClassUniforms,
};
use std::mem::size_of;

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
/// Binding of the factors that `coefficients` computes, as the other stages read them.
const COEFFICIENT_ROWS: Binding = uniform::<Coefficients>(2, "coefficients");
/// Binding of the factors that `coefficients` writes.
pub const COEFFICIENTS: Binding =
    Binding { group: 1, number: 6, name: "coefficient_rows", access: Access::Storage };
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

const ASCENT_WITH_STATE: &[Binding] = &[
    CHUNKS,
    tensor(column::WEIGHT),
    tensor(column::GRAD),
    tensor(column::WEIGHT_COPY),
    tensor(column::STATE),
    DISPATCH,
    STEP_NORMS,
    PARAM_CLASS_TABLE,
];

const ASCENT_WITH_STATE_MASTER: &[Binding] = &[
    CHUNKS,
    tensor(column::WEIGHT),
    tensor(column::ANCHOR),
    tensor(column::GRAD),
    tensor(column::WEIGHT_COPY),
    tensor(column::STATE),
    DISPATCH,
    STEP_NORMS,
    PARAM_CLASS_TABLE,
];

const MOMENTS: &[Binding] = &[
    CHUNKS,
    tensor(column::GRAD),
    tensor(column::GRAD_PERTURBED),
    PARTIALS,
    DISPATCH,
    COEFFICIENT_ROWS,
    PARAM_CLASS_TABLE,
];

const MOMENTS_WITH_STATE: &[Binding] = &[
    CHUNKS,
    tensor(column::WEIGHT),
    tensor(column::GRAD),
    tensor(column::STATE),
    PARTIALS,
    DISPATCH,
    STEP_NORMS,
    PARAM_CLASS_TABLE,
];

const MOMENTS_WITH_STATE_MASTER: &[Binding] = &[
    CHUNKS,
    tensor(column::ANCHOR),
    tensor(column::GRAD),
    tensor(column::STATE),
    PARTIALS,
    DISPATCH,
    STEP_NORMS,
    PARAM_CLASS_TABLE,
];

const COEFFICIENTS_STAGE: &[Binding] =
    &[PARTIALS, PARAM_CLASS_TABLE, NORM_FINISH_UNIFORMS, NORMS, COEFFICIENTS];

const UPDATE: &[Binding] = &[
    CHUNKS,
    tensor(column::GRAD),
    tensor(column::GRAD_PERTURBED),
    tensor(column::STATE),
    DISPATCH,
    STEP_NORMS,
    COEFFICIENT_ROWS,
    PARAM_CLASS_TABLE,
];

const METHOD_DESCENT: &[Binding] = &[
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
    COEFFICIENT_ROWS,
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
        Stage::AscentWithState if width.has_master() => ASCENT_WITH_STATE_MASTER,
        Stage::AscentWithState => ASCENT_WITH_STATE,
        Stage::Moments => MOMENTS,
        Stage::MomentsWithState if width.has_master() => MOMENTS_WITH_STATE_MASTER,
        Stage::MomentsWithState => MOMENTS_WITH_STATE,
        Stage::Coefficients => COEFFICIENTS_STAGE,
        Stage::Update => UPDATE,
        Stage::MethodDescent => METHOD_DESCENT,
    }
}

/// Returns the number of storage buffers that a stage with one buffer set binds.
pub fn storage_buffers(stage: Stage, width: Width) -> u32 {
    bindings(stage, width).iter().filter(|b| !matches!(b.access, Access::Uniform(_))).count() as u32
}
