// Every way the shaders are compiled. Read by the engine, which builds these pipelines, and by
// build.rs, which validates each of them; std only, for build.rs includes this file as it is.

/// Invocations in a workgroup that an engine may choose: powers of two, at least what the norm's
/// second level has, at most what WebGPU promises.
pub const WORKGROUPS: [u32; 5] = [16, 32, 64, 128, 256];

/// A shader stage: one file in `shaders/`, put behind `common.wgsl` and the accessors of a
/// [`Width`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Partial sums of the global norm.
    Norm,
    /// The global norm from its partial sums.
    NormFinish,
    /// The climb to the perturbed weights.
    Ascent,
    /// Restoration, blend and base step.
    Descent,
}

impl Stage {
    /// All stages.
    pub const ALL: [Stage; 4] = [Stage::Norm, Stage::NormFinish, Stage::Ascent, Stage::Descent];

    /// The file in `shaders/` that holds the stage.
    pub const fn file(self) -> &'static str {
        match self {
            Stage::Norm | Stage::NormFinish => "norm.wgsl",
            Stage::Ascent => "ascent.wgsl",
            Stage::Descent => "descent.wgsl",
        }
    }

    /// The entry point's name.
    pub const fn entry_point(self) -> &'static str {
        match self {
            Stage::Norm => "norm",
            Stage::NormFinish => "norm_finish",
            Stage::Ascent => "ascent",
            Stage::Descent => "descent",
        }
    }
}

/// How a dispatch accesses tensors: which file is put between `common.wgsl` and the stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Width {
    /// Vectors of four, for chunks that start on multiples of four elements.
    Wide,
    /// Single elements, for chunks that start anywhere.
    Narrow,
}

impl Width {
    /// Both.
    pub const ALL: [Width; 2] = [Width::Wide, Width::Narrow];

    /// The file in `shaders/` that holds the accessors.
    pub const fn file(self) -> &'static str {
        match self {
            Width::Wide => "tensors_wide.wgsl",
            Width::Narrow => "tensors_narrow.wgsl",
        }
    }
}

/// One compiled form of a stage: the pipeline cache's key, naming every compile input but the size
/// of workgroups, which an engine never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Specialisation {
    /// Partial sums of `g^2`, or of `(|w| g)^2` if adaptive.
    Norm {
        /// How tensors are accessed.
        width: Width,
        /// Scale the gradient by the weight.
        adaptive: bool,
    },
    /// The finish has one form.
    NormFinish,
    /// The climb.
    Ascent {
        /// How tensors are accessed.
        width: Width,
        /// Scale the perturbation by the squared weight.
        adaptive: bool,
        /// Write `w + e_w` over `w` and save the anchor.
        in_place: bool,
    },
    /// The descent.
    Descent {
        /// How tensors are accessed.
        width: Width,
        /// State tensors of the base optimizer, 0 to 3.
        states: u32,
        /// Take `w` from the anchor.
        anchored: bool,
    },
}

impl Specialisation {
    /// Every specialisation the engine can ask for.
    pub fn all() -> Vec<Specialisation> {
        let mut all = vec![Specialisation::NormFinish];
        for width in Width::ALL {
            for flag in [false, true] {
                all.push(Specialisation::Norm { width, adaptive: flag });
                for in_place in [false, true] {
                    all.push(Specialisation::Ascent { width, adaptive: flag, in_place });
                }
                for states in 0..=3 {
                    all.push(Specialisation::Descent { width, states, anchored: flag });
                }
            }
        }
        all
    }

    /// The stage this is a form of.
    pub const fn stage(self) -> Stage {
        match self {
            Specialisation::Norm { .. } => Stage::Norm,
            Specialisation::NormFinish => Stage::NormFinish,
            Specialisation::Ascent { .. } => Stage::Ascent,
            Specialisation::Descent { .. } => Stage::Descent,
        }
    }

    /// How it accesses tensors. The finish accesses none, and goes by the wide source.
    pub const fn width(self) -> Width {
        match self {
            Specialisation::Norm { width, .. }
            | Specialisation::Ascent { width, .. }
            | Specialisation::Descent { width, .. } => width,
            Specialisation::NormFinish => Width::Wide,
        }
    }

    /// Values of the shader's `override` constants, with workgroups of this size.
    pub fn constants(self, workgroup: u32) -> Vec<(&'static str, f64)> {
        let mut constants = vec![("WORKGROUP", f64::from(workgroup))];
        match self {
            Specialisation::Norm { adaptive, .. } => {
                constants.push(("ADAPTIVE", f64::from(adaptive)));
            }
            Specialisation::NormFinish => {}
            Specialisation::Ascent { adaptive, in_place, .. } => {
                constants.push(("ADAPTIVE", f64::from(adaptive)));
                constants.push(("IN_PLACE", f64::from(in_place)));
            }
            Specialisation::Descent { states, anchored, .. } => {
                constants.push(("STATES", f64::from(states)));
                constants.push(("ANCHORED", f64::from(anchored)));
            }
        }
        constants
    }
}
