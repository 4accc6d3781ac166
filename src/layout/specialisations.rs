// The specialisations of the shaders. The engine builds them as pipelines; scripts/backends and scripts/dawn
// include this file as well, so it may only use std.

use super::relatives::{Moments, StepOn, UpdateOf};
use super::scaling::Scaling;
use super::stages::{BufferSets, Packed, Stage, Width};

/// The operand of a norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NormOf {
    /// `g` (or `g~`).
    Gradient,
    /// The scaled gradient, whose norm divides the perturbation.
    Perturbation(Scaling),
    /// Both, in one pass over `g`.
    Both(Scaling),
}

impl NormOf {
    /// All operands.
    pub const ALL: [NormOf; 5] = [
        NormOf::Gradient,
        NormOf::Perturbation(Scaling::Adaptive),
        NormOf::Perturbation(Scaling::ByClass),
        NormOf::Both(Scaling::Adaptive),
        NormOf::Both(Scaling::ByClass),
    ];

    /// Returns the number of norms taken.
    pub const fn count(self) -> u64 {
        match self {
            NormOf::Gradient | NormOf::Perturbation(_) => 1,
            NormOf::Both(_) => 2,
        }
    }

    /// Returns how `g` is scaled.
    pub const fn scaling(self) -> Scaling {
        match self {
            NormOf::Gradient => Scaling::Plain,
            NormOf::Perturbation(scaling) | NormOf::Both(scaling) => scaling,
        }
    }

    /// Returns whether the norm of the unscaled `g` is taken.
    pub const fn takes_gradient(self) -> bool {
        !matches!(self, NormOf::Perturbation(_))
    }

    fn constants(self, by_lane: bool) -> Vec<(&'static str, f64)> {
        vec![
            ("PLAIN", f64::from(self.takes_gradient())),
            ("SCALED", f64::from(self != NormOf::Gradient)),
            self.scaling().constant(),
            ("BY_LANE", f64::from(by_lane)),
        ]
    }
}

/// A variant of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kernel {
    /// Partial sums of squares.
    Norm {
        /// Operand of the norm.
        of: NormOf,
        /// Write a partial sum for each invocation instead of each workgroup.
        by_lane: bool,
    },
    /// The norms, from the partial sums.
    NormFinish(NormOf),
    /// Partial sums, one for each workgroup, and the norms from them.
    NormAndFinish(NormOf),
    /// The perturbation of the weights.
    Ascent {
        /// How the perturbation scales.
        scaling: Scaling,
        /// Write `w + e_w` over `w`, and save `w` to the anchor.
        in_place: bool,
        /// Round `w + e_w` to half precision stochastically.
        stochastic: bool,
    },
    /// Restoration of the weights, blend and base step.
    Descent {
        /// State tensors of the base optimizer, 0 to 3.
        states: u32,
        /// Read `w` from the anchor.
        anchored: bool,
        /// Take the base optimizer's step on `g`, without `g~`.
        alone: bool,
    },
    /// The perturbation and the base step.
    LeanAscent {
        /// How the perturbation scales.
        scaling: Scaling,
        /// State tensors of the base optimizer, 0 to 3.
        states: u32,
        /// Read `w` from the anchor.
        anchored: bool,
        /// Round `w + e_w` to half precision stochastically.
        stochastic: bool,
    },
    /// The sharpness step.
    LeanDescent {
        /// Copy the anchor to the weights if `g~` is not finite.
        anchored: bool,
    },
    /// The check that a gradient is finite.
    Check {
        /// Check `g~` instead of `g`.
        perturbed: bool,
    },
    /// The perturbation along a direction that depends on the method's state.
    AscentWithState {
        /// How the perturbation scales.
        scaling: Scaling,
        /// Write `w + e_w` over `w`, and save `w` to the anchor.
        in_place: bool,
        /// Round `w + e_w` to half precision stochastically.
        stochastic: bool,
        /// The state alone is the direction: Momentum-SAM. Otherwise it is added to `g`.
        alone: bool,
    },
    /// Partial sums over one or two operands.
    Moments(Moments),
    /// Norms and factors, from the partial sums.
    Coefficients(Moments),
    /// The method's new state.
    Update(UpdateOf),
    /// Restoration of the weights and base step of WSAM's relatives.
    MethodDescent {
        /// State tensors of the base optimizer, 0 to 3.
        states: u32,
        /// Read `w` from the anchor.
        anchored: bool,
        /// What the base optimizer steps on.
        on: StepOn,
    },
}

/// Returns the index, in 32-bit words of `Norms`, of the flag for a non-finite `g`, or `g~` if `perturbed`.
pub const fn nonfinite_flag(perturbed: bool) -> u32 {
    36 + perturbed as u32
}

impl Kernel {
    /// Returns every kernel that the engine can use.
    pub fn all() -> Vec<Kernel> {
        let roundings = |scaling| [false, true].map(|stochastic| (scaling, stochastic));
        let mut all = Vec::new();
        for of in NormOf::ALL {
            all.extend([Kernel::NormFinish(of), Kernel::NormAndFinish(of)]);
            all.extend([false, true].map(|by_lane| Kernel::Norm { of, by_lane }));
        }
        for moments in Moments::ALL {
            all.push(Kernel::Moments(moments));
            if moments == moments.unscaled() {
                all.push(Kernel::Coefficients(moments));
            }
        }
        all.extend([UpdateOf::Average, UpdateOf::Direction].map(Kernel::Update));
        for flag in [false, true] {
            all.push(Kernel::LeanDescent { anchored: flag });
            all.push(Kernel::Check { perturbed: flag });
            for (scaling, stochastic) in Scaling::ALL.into_iter().flat_map(roundings) {
                let in_place = flag;
                all.push(Kernel::Ascent { scaling, in_place, stochastic });
                let alone = false;
                all.push(Kernel::AscentWithState { scaling, in_place, stochastic, alone });
            }
            for stochastic in [false, true] {
                let (scaling, in_place, alone) = (Scaling::Plain, flag, true);
                all.push(Kernel::AscentWithState { scaling, in_place, stochastic, alone });
            }
            for states in 0..=3 {
                for on in StepOn::ALL {
                    all.push(Kernel::MethodDescent { states, anchored: flag, on });
                }
                for alone in [false, true] {
                    all.push(Kernel::Descent { states, anchored: flag, alone });
                }
                for (scaling, stochastic) in Scaling::ALL.into_iter().flat_map(roundings) {
                    all.push(Kernel::LeanAscent { scaling, states, anchored: flag, stochastic });
                }
            }
        }
        all
    }

    /// Returns the stage of the kernel.
    pub const fn stage(self) -> Stage {
        match self {
            Kernel::Norm { .. } => Stage::Norm,
            Kernel::NormFinish(_) => Stage::NormFinish,
            Kernel::NormAndFinish(_) => Stage::NormAndFinish,
            Kernel::Ascent { .. } => Stage::Ascent,
            Kernel::Descent { .. } => Stage::Descent,
            Kernel::LeanAscent { .. } => Stage::LeanAscent,
            Kernel::LeanDescent { .. } => Stage::LeanDescent,
            Kernel::Check { .. } => Stage::Check,
            Kernel::AscentWithState { .. } => Stage::AscentWithState,
            Kernel::Moments(Moments::Products | Moments::Length) => Stage::Moments,
            Kernel::Moments(_) => Stage::MomentsWithState,
            Kernel::Coefficients(_) => Stage::Coefficients,
            Kernel::Update(_) => Stage::Update,
            Kernel::MethodDescent { .. } => Stage::MethodDescent,
        }
    }

    /// Returns whether the kernel exists for tensors of this width. Stochastic rounding requires half precision,
    /// and lean mode does not support master weights.
    pub const fn suits(self, width: Width) -> bool {
        match (self, width) {
            (
                Kernel::Ascent { stochastic, .. }
                | Kernel::AscentWithState { stochastic, .. }
                | Kernel::LeanAscent { stochastic, .. },
                Width::Wide | Width::Narrow,
            ) => !stochastic,
            (Kernel::LeanAscent { .. } | Kernel::LeanDescent { .. }, _) => !width.has_master(),
            // It accesses no tensors, so one width is enough.
            (Kernel::NormFinish(_) | Kernel::Coefficients(_), _) => matches!(width, Width::Wide),
            _ => true,
        }
    }

    /// Returns whether the kernel reads `w`, or the weights to restore, from the anchor's column. Master weights,
    /// which are there too, are told by the width.
    pub const fn is_anchored(self) -> bool {
        matches!(
            self,
            Kernel::Descent { anchored: true, .. }
                | Kernel::MethodDescent { anchored: true, .. }
                | Kernel::LeanAscent { anchored: true, .. }
                | Kernel::LeanDescent { anchored: true }
        )
    }

    const fn is_stochastic(self) -> bool {
        let (Kernel::Ascent { stochastic, .. }
        | Kernel::AscentWithState { stochastic, .. }
        | Kernel::LeanAscent { stochastic, .. }) = self
        else {
            return false;
        };
        stochastic
    }

    /// Returns the values of the stage's `override` constants, without `WORKGROUP` and the rounding.
    fn constants(self, width: Width) -> Vec<(&'static str, f64)> {
        match self {
            Kernel::Norm { of, by_lane } => of.constants(by_lane),
            // The source is shared with `norm`; the other entry points do not read BY_LANE.
            Kernel::NormFinish(of) | Kernel::NormAndFinish(of) => of.constants(false),
            Kernel::Ascent { scaling, in_place, .. } => {
                vec![scaling.constant(), ("IN_PLACE", f64::from(in_place))]
            }
            Kernel::Descent { states, anchored, alone } => vec![
                ("STATES", f64::from(states)),
                // Master weights are an anchor.
                ("ANCHORED", f64::from(anchored || width.has_master())),
                ("ALONE", f64::from(alone)),
            ],
            Kernel::LeanAscent { scaling, states, anchored, .. } => vec![
                scaling.constant(),
                ("STATES", f64::from(states)),
                ("ANCHORED", f64::from(anchored)),
            ],
            Kernel::LeanDescent { anchored } => {
                vec![("STATES", 0.0), ("ANCHORED", f64::from(anchored))]
            }
            Kernel::AscentWithState { scaling, in_place, alone, .. } => vec![
                scaling.constant(),
                ("IN_PLACE", f64::from(in_place)),
                ("ALONE", f64::from(alone)),
            ],
            Kernel::Moments(moments) => moments.constants(),
            Kernel::Coefficients(moments) => moments.coefficients(),
            Kernel::Update(of) => {
                vec![("FROM_PERTURBED", f64::from(of == UpdateOf::Direction))]
            }
            Kernel::MethodDescent { states, anchored, on } => vec![
                // The class of each tensor says whether it is perturbed.
                Scaling::ByClass.constant(),
                ("STATES", f64::from(states)),
                ("ANCHORED", f64::from(anchored || width.has_master())),
                on.constant(),
            ],
            Kernel::Check { perturbed } => {
                vec![("NONFINITE_FLAG", f64::from(nonfinite_flag(perturbed)))]
            }
        }
    }
}

/// One compiled variant of a stage. It contains every compile input of a pipeline except the workgroup size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Specialisation {
    /// Kernel.
    pub kernel: Kernel,
    /// How it accesses tensors. `norm_finish` accesses none and uses [`Width::Wide`].
    pub width: Width,
    /// Sets of buffers that it accesses.
    pub buffer_sets: BufferSets,
}

impl Specialisation {
    /// Returns the values of the shader's `override` constants, for workgroups of this size.
    pub fn constants(self, workgroup: u32) -> Vec<(&'static str, f64)> {
        let mut constants = vec![("WORKGROUP", f64::from(workgroup))];
        constants.extend(self.kernel.constants(self.width));
        if let Width::Packed(Packed { bf16, .. }) = self.width {
            constants.push(("BF16", f64::from(bf16)));
            constants.push(("STOCHASTIC", f64::from(self.kernel.is_stochastic())));
        }
        constants
    }
}
