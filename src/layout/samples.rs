// The specialisations that tests/layout, scripts/backends and scripts/dawn validate. They include this file, so it
// may only use std.

use super::specialisations::{Kernel, Specialisation};
use super::stages::{BufferSets, Packed, Stage, WORKGROUPS, Width, column};

/// A single buffer set, whose source is the files unchanged, and two samples of several: two buffer sets in which
/// every column varies, and five in which only the gradients vary.
const BUFFER_SETS: [BufferSets; 3] = [
    BufferSets::SINGLE,
    BufferSets { count: 2, varying: u8::MAX },
    BufferSets { count: 5, varying: 1 << column::GRAD | 1 << column::GRAD_PERTURBED },
];

/// One width for each file of accessors. f16 and bf16 differ in one constant only.
const WIDTHS: [Width; 4] = [
    Width::Wide,
    Width::Narrow,
    Width::Packed(Packed { bf16: false, master: false }),
    Width::Packed(Packed { bf16: true, master: true }),
];

/// Returns the workgroup sizes that a stage is validated with: all of them where loops depend on the size, else
/// two samples.
const fn sampled_workgroups(stage: Stage) -> &'static [u32] {
    match stage {
        Stage::Norm
        | Stage::NormFinish
        | Stage::NormAndFinish
        | Stage::Moments
        | Stage::MomentsWithState
        | Stage::Coefficients => &WORKGROUPS,
        _ => &[16, 256],
    }
}

/// Returns the modules to validate.
pub fn sampled_modules() -> impl Iterator<Item = (Stage, Width, BufferSets)> {
    let widths = Stage::ALL.into_iter().flat_map(|s| WIDTHS.map(|width| (s, width)));
    let suits = |(stage, width): &(Stage, Width)| {
        Kernel::all().iter().any(|kernel| kernel.stage() == *stage && kernel.suits(*width))
    };
    widths.filter(suits).flat_map(|(stage, width)| BUFFER_SETS.map(|sets| (stage, width, sets)))
}

/// Returns the pipelines of a module to validate, with the values of their `override` constants.
pub fn sampled_constants(
    (stage, width, buffer_sets): (Stage, Width, BufferSets),
) -> impl Iterator<Item = (Kernel, Vec<(&'static str, f64)>)> {
    let of_stage = move |kernel: &Kernel| kernel.stage() == stage && kernel.suits(width);
    let pipelines = move |kernel| {
        let constants = move |workgroup: &u32| {
            (kernel, Specialisation { kernel, width, buffer_sets }.constants(*workgroup))
        };
        sampled_workgroups(stage).iter().map(constants)
    };
    Kernel::all().into_iter().filter(of_stage).flat_map(pipelines)
}
