//! Unstable: the layout of the shaders' data may change in any release. Use it to read what the engine computes,
//! such as [`Norms`], or to write a kernel that computes a [blend](BlendUniforms), with a pinned version.
//!
//! Binding numbers, uniform structs and shader sources are defined only here. Each struct mirrors the WGSL struct
//! of the same name. Sizes and offsets are checked twice: by assertions at compile time (`structs.rs`), and by
//! `tests/layout.rs` against naga's reflection of the shaders.

mod bindings;
mod buffer_sets;
mod relatives;
mod samples;
mod scaling;
mod specialisations;
mod stages;
mod structs;

pub use bindings::{Access, Binding, COEFFICIENTS, NORMS, PARTIALS, bindings, storage_buffers};
pub use buffer_sets::{COLUMN_NAMES, column_binding, for_buffer_sets};
pub use relatives::{Moments, StepOn, UpdateOf};
pub use samples::{sampled_constants, sampled_modules};
pub use scaling::Scaling;
pub use specialisations::{Kernel, NormOf, Specialisation, nonfinite_flag};
pub use stages::{BufferSets, COLUMNS, Packed, Stage, WORKGROUPS, Width, column};
pub use structs::{
    BlendUniforms, Chunk, Coefficients, DispatchUniforms, NormFinishUniforms, Norms, PARAM_CLASSES,
    ParamClassUniforms, SCOPES,
};

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
            sources!("scaling.wgsl", "partials.wgsl", "squares.wgsl", "sums.wgsl", "norm.wgsl")
        }
        Stage::NormAndFinish => {
            sources!(
                "scaling.wgsl",
                "partials_shared.wgsl",
                "squares.wgsl",
                "sums.wgsl",
                "norm.wgsl"
            )
        }
        Stage::Ascent => sources!("scaling.wgsl", "direction_gradient.wgsl", "ascent.wgsl"),
        Stage::Descent => sources!("step.wgsl", "descent.wgsl"),
        Stage::LeanAscent => sources!("scaling.wgsl", "step.wgsl", "lean_ascent.wgsl"),
        Stage::LeanDescent => sources!("step.wgsl", "lean_descent.wgsl"),
        Stage::Check => sources!("check.wgsl"),
        Stage::AscentWithState => sources!("scaling.wgsl", "direction_state.wgsl", "ascent.wgsl"),
        Stage::Moments => sources!(
            "partials.wgsl",
            "squares.wgsl",
            "products.wgsl",
            "orthogonal.wgsl",
            "operands_gradients.wgsl",
            "moments.wgsl"
        ),
        Stage::MomentsWithState => sources!(
            "scaling.wgsl",
            "partials.wgsl",
            "squares.wgsl",
            "products.wgsl",
            "direction_state.wgsl",
            "operands_direction.wgsl",
            "moments.wgsl"
        ),
        Stage::Coefficients => sources!(
            "partials.wgsl",
            "squares.wgsl",
            "products.wgsl",
            "sums.wgsl",
            "coefficients.wgsl"
        ),
        Stage::Update => sources!("orthogonal.wgsl", "update.wgsl"),
        Stage::MethodDescent => {
            sources!("scaling.wgsl", "step.wgsl", "orthogonal.wgsl", "method_descent.wgsl")
        }
    }
}
