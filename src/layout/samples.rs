// What of all specialisations is validated, by build.rs and by scripts/backends and scripts/dawn; std
// only, for they include this file as it is.

use super::specialisations::{
    Frames, Kernel, Packed, Specialisation, Stage, WORKGROUPS, Width, column,
};

/// One frame, whose source is the files as they stand; and of the many ways to have more, these: every
/// column varies, gradients alone vary, two frames and five.
const FRAMES: [Frames; 3] = [
    Frames::SINGLE,
    Frames { count: 2, varying: u8::MAX },
    Frames { count: 5, varying: 1 << column::GRAD | 1 << column::GRAD_PERTURBED },
];

/// Of each file of accessors one: the two kinds of half precision differ in one constant.
const WIDTHS: [Width; 4] = [
    Width::Wide,
    Width::Narrow,
    Width::Packed(Packed { bf16: false, master: false }),
    Width::Packed(Packed { bf16: true, master: true }),
];

/// The sizes that a stage is validated with: all where sums are shared out by them, else the ends.
const fn sampled_workgroups(stage: Stage) -> &'static [u32] {
    match stage {
        Stage::Norm | Stage::NormFinish => &WORKGROUPS,
        _ => &[16, 256],
    }
}

/// All that shaders are validated with, module by module.
pub fn sampled_modules() -> impl Iterator<Item = (Stage, Width, Frames)> {
    let widths = Stage::ALL.into_iter().flat_map(|s| WIDTHS.map(|width| (s, width)));
    let suits = |(stage, width): &(Stage, Width)| {
        Kernel::all().iter().any(|kernel| kernel.stage() == *stage && kernel.suits(*width))
    };
    widths.filter(suits).flat_map(|(stage, width)| FRAMES.map(|f| (stage, width, f)))
}

/// The pipelines of a module that it is validated with, by their constants.
pub fn sampled_constants(
    (stage, width, frames): (Stage, Width, Frames),
) -> impl Iterator<Item = (Kernel, Vec<(&'static str, f64)>)> {
    let of_stage = move |kernel: &Kernel| kernel.stage() == stage && kernel.suits(width);
    let pipelines = move |kernel| {
        let constants = move |workgroup: &u32| {
            (kernel, Specialisation { kernel, width, frames }.constants(*workgroup))
        };
        sampled_workgroups(stage).iter().map(constants)
    };
    Kernel::all().into_iter().filter(of_stage).flat_map(pipelines)
}
