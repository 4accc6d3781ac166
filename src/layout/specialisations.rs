// Every way the shaders are compiled. Read by the engine, which builds these pipelines, and by
// build.rs, which validates each of them; std only, for build.rs includes this file as it is.

/// A shader stage: one file in `shaders/`, put behind `shaders/common.wgsl`.
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

/// One compiled form of a stage: the pipeline cache's key, naming every compile input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Specialisation {
    /// Partial sums of `g^2`, or of `(|w| g)^2` if adaptive.
    Norm {
        /// Scale the gradient by the weight.
        adaptive: bool,
    },
    /// The finish has one form.
    NormFinish,
    /// The climb.
    Ascent {
        /// Scale the perturbation by the squared weight.
        adaptive: bool,
        /// Write `w + e_w` over `w` and save the anchor.
        in_place: bool,
    },
    /// The descent.
    Descent {
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
        for flag in [false, true] {
            all.push(Specialisation::Norm { adaptive: flag });
            for in_place in [false, true] {
                all.push(Specialisation::Ascent { adaptive: flag, in_place });
            }
            for states in 0..=3 {
                all.push(Specialisation::Descent { states, anchored: flag });
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

    /// Values of the shader's `override` constants.
    pub fn constants(self) -> Vec<(&'static str, f64)> {
        match self {
            Specialisation::Norm { adaptive } => vec![("ADAPTIVE", f64::from(adaptive))],
            Specialisation::NormFinish => vec![],
            Specialisation::Ascent { adaptive, in_place } => {
                vec![("ADAPTIVE", f64::from(adaptive)), ("IN_PLACE", f64::from(in_place))]
            }
            Specialisation::Descent { states, anchored } => {
                vec![("STATES", f64::from(states)), ("ANCHORED", f64::from(anchored))]
            }
        }
    }
}
