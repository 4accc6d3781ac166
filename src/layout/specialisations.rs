// The specialisations of the shaders. The engine builds them as pipelines; scripts/backends and scripts/dawn
// include this file as well, so it may only use std.

/// Workgroup sizes that an engine supports: powers of two, from `FIRST_LEVEL` in `norm.wgsl` to WebGPU's default
/// limit.
pub const WORKGROUPS: [u32; 6] = [8, 16, 32, 64, 128, 256];

/// Number of columns of a chunk table, one for each role of a tensor's slices.
pub const COLUMNS: usize = 8;

/// Indices of the columns, in the order of the chunk table's fields and of the binding numbers.
pub mod column {
    /// The weights.
    pub const WEIGHT: usize = 0;
    /// The slice that `w` is read from, if not from the weights.
    pub const ANCHOR: usize = 1;
    /// The gradient.
    pub const GRAD: usize = 2;
    /// The perturbed gradient.
    pub const GRAD_PERTURBED: usize = 3;
    /// The second weight slice of an ascent.
    pub const PARTNER: usize = 4;
    /// The first of three state tensors.
    pub const STATE: usize = 5;
}

/// A shader stage: one entry point, compiled together with the files that it shares with other stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Partial sums of the global norm.
    Norm,
    /// The global norm, from its partial sums.
    NormFinish,
    /// The perturbation of the weights.
    Ascent,
    /// Restoration of the weights, blend and base step.
    Descent,
    /// The perturbation and the base step in one kernel.
    LeanAscent,
    /// The sharpness step after a lean ascent.
    LeanDescent,
    /// The check that a gradient is finite.
    Check,
}

impl Stage {
    /// All stages.
    pub const ALL: [Stage; 7] = [
        Stage::Norm,
        Stage::NormFinish,
        Stage::Ascent,
        Stage::Descent,
        Stage::LeanAscent,
        Stage::LeanDescent,
        Stage::Check,
    ];

    /// Returns the stage's files in `shaders/`, in the order in which they are concatenated.
    pub fn files(self, width: Width) -> Vec<&'static str> {
        let own: &[&str] = match self {
            Stage::Norm | Stage::NormFinish => &["scaling.wgsl", "norm.wgsl"],
            Stage::Ascent => &["scaling.wgsl", "ascent.wgsl"],
            Stage::Descent => &["step.wgsl", "descent.wgsl"],
            Stage::LeanAscent => &["scaling.wgsl", "step.wgsl", "lean_ascent.wgsl"],
            Stage::LeanDescent => &["step.wgsl", "lean_descent.wgsl"],
            Stage::Check => &["check.wgsl"],
        };
        [&["common.wgsl"], width.files(), own].concat()
    }

    /// Returns the name of the entry point.
    pub const fn entry_point(self) -> &'static str {
        match self {
            Stage::Norm => "norm",
            Stage::NormFinish => "norm_finish",
            Stage::Ascent => "ascent",
            Stage::Descent => "descent",
            Stage::LeanAscent => "lean_ascent",
            Stage::LeanDescent => "lean_descent",
            Stage::Check => "check",
        }
    }
}

/// How a dispatch accesses tensors. It selects the file of accessors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Width {
    /// Vectors of four, for chunks that start on multiples of four elements.
    Wide,
    /// Single elements, for chunks that start anywhere.
    Narrow,
    /// Vectors of four elements in half precision, two elements in each 32-bit word.
    Packed(Packed),
}

/// A variant of half precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Packed {
    /// bf16 instead of f16.
    pub bf16: bool,
    /// Whether there are master weights, in the anchor's column.
    pub master: bool,
}

impl Width {
    /// All widths.
    pub const ALL: [Width; 6] = [
        Width::Wide,
        Width::Narrow,
        Width::Packed(Packed { bf16: false, master: false }),
        Width::Packed(Packed { bf16: false, master: true }),
        Width::Packed(Packed { bf16: true, master: false }),
        Width::Packed(Packed { bf16: true, master: true }),
    ];

    /// Returns the files in `shaders/` that hold the accessors.
    const fn files(self) -> &'static [&'static str] {
        match self {
            Width::Wide => &["tensors_wide.wgsl", "states.wgsl", "no_master.wgsl"],
            Width::Narrow => &["tensors_narrow.wgsl", "no_master.wgsl"],
            Width::Packed(Packed { master: false, .. }) => {
                &["tensors_half.wgsl", "states.wgsl", "anchor_half.wgsl", "no_master.wgsl"]
            }
            Width::Packed(Packed { master: true, .. }) => {
                &["tensors_half.wgsl", "states.wgsl", "master.wgsl"]
            }
        }
    }

    /// Returns whether there are master weights.
    pub const fn has_master(self) -> bool {
        matches!(self, Width::Packed(Packed { master: true, .. }))
    }
}

/// The frames (sets of buffers) of a dispatch, and the columns that differ between them. The other columns are
/// bound once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Frames {
    /// Number of frames, at least 1.
    pub count: u32,
    /// Columns that vary, as bits: if bit `c` is set, column `c` has a binding in each frame.
    pub varying: u8,
}

impl Frames {
    /// A single frame.
    pub const SINGLE: Frames = Frames { count: 1, varying: 0 };

    /// Returns whether a column has a separate binding in each frame.
    pub const fn varies(self, column: usize) -> bool {
        self.varying & (1 << column) != 0
    }
}

/// How the perturbation scales with the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scaling {
    /// Not scaled (SAM).
    Plain,
    /// Scaled by `w^2` (ASAM).
    Adaptive,
    /// Set for each kind of tensors by `KindUniforms::flags`, which also set whether they are perturbed.
    ByKind,
}

impl Scaling {
    /// All scalings.
    pub const ALL: [Scaling; 3] = [Scaling::Plain, Scaling::Adaptive, Scaling::ByKind];

    fn constant(self) -> (&'static str, f64) {
        let value = match self {
            Scaling::Plain => 0.0,
            Scaling::Adaptive => 1.0,
            Scaling::ByKind => 2.0,
        };
        ("SCALING", value)
    }
}

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
        NormOf::Perturbation(Scaling::ByKind),
        NormOf::Both(Scaling::Adaptive),
        NormOf::Both(Scaling::ByKind),
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
}

/// Returns the index, in 32-bit words of `Norms`, of the flag for a non-finite `g`, or `g~` if `perturbed`.
pub const fn mark(perturbed: bool) -> u32 {
    36 + perturbed as u32
}

impl Kernel {
    /// Returns every kernel that the engine can use.
    pub fn all() -> Vec<Kernel> {
        let roundings = |scaling| [false, true].map(|stochastic| (scaling, stochastic));
        let mut all = Vec::new();
        for of in NormOf::ALL {
            all.push(Kernel::NormFinish(of));
            all.extend([false, true].map(|by_lane| Kernel::Norm { of, by_lane }));
        }
        for flag in [false, true] {
            all.push(Kernel::LeanDescent { anchored: flag });
            all.push(Kernel::Check { perturbed: flag });
            for (scaling, stochastic) in Scaling::ALL.into_iter().flat_map(roundings) {
                all.push(Kernel::Ascent { scaling, in_place: flag, stochastic });
            }
            for states in 0..=3 {
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
            Kernel::Ascent { .. } => Stage::Ascent,
            Kernel::Descent { .. } => Stage::Descent,
            Kernel::LeanAscent { .. } => Stage::LeanAscent,
            Kernel::LeanDescent { .. } => Stage::LeanDescent,
            Kernel::Check { .. } => Stage::Check,
        }
    }

    /// Returns whether the kernel exists for tensors of this width. Stochastic rounding requires half precision,
    /// and lean mode does not support master weights.
    pub const fn suits(self, width: Width) -> bool {
        match (self, width) {
            (
                Kernel::Ascent { stochastic, .. } | Kernel::LeanAscent { stochastic, .. },
                Width::Wide | Width::Narrow,
            ) => !stochastic,
            (Kernel::LeanAscent { .. } | Kernel::LeanDescent { .. }, _) => !width.has_master(),
            // It accesses no tensors, so one width is enough.
            (Kernel::NormFinish(_), _) => matches!(width, Width::Wide),
            _ => true,
        }
    }

    const fn is_stochastic(self) -> bool {
        let (Kernel::Ascent { stochastic, .. } | Kernel::LeanAscent { stochastic, .. }) = self
        else {
            return false;
        };
        stochastic
    }

    /// Returns the values of the stage's `override` constants, without `WORKGROUP` and the rounding.
    fn constants(self, width: Width) -> Vec<(&'static str, f64)> {
        match self {
            Kernel::Norm { of, by_lane } => of.constants(by_lane),
            // The source is shared with `norm`; `norm_finish` does not read BY_LANE.
            Kernel::NormFinish(of) => of.constants(false),
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
            Kernel::Check { perturbed } => vec![("MARK", f64::from(mark(perturbed)))],
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
    pub frames: Frames,
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
