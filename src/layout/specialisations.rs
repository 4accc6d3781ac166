// Every way the shaders are compiled. Read by the engine, which builds these pipelines, and by
// build.rs, which validates them; std only, for build.rs includes this file as it is.

/// Invocations in a workgroup that an engine may choose: powers of two, at least what the norm's
/// second level has, at most what WebGPU promises.
pub const WORKGROUPS: [u32; 6] = [8, 16, 32, 64, 128, 256];

/// Columns of a chunk table: the roles a tensor's slices have.
pub const COLUMNS: usize = 8;

/// Places of the columns, in the order of the chunk table's fields and of the binding numbers.
pub mod column {
    /// The weights.
    pub const WEIGHT: usize = 0;
    /// Where `w` is read from, if not from the weights.
    pub const ANCHOR: usize = 1;
    /// The gradient.
    pub const GRAD: usize = 2;
    /// The perturbed gradient.
    pub const GRAD_PERTURBED: usize = 3;
    /// The second weight buffer of an ascent.
    pub const PARTNER: usize = 4;
    /// The first of three states.
    pub const STATE: usize = 5;
}

/// A shader stage: one entry point, put behind the files that it shares with others.
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
    /// The climb and the base step in one.
    LeanAscent,
    /// The sharpness step after a lean ascent.
    LeanDescent,
    /// Whether a gradient is finite.
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

    /// The files in `shaders/` that make the stage up, in their order.
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

    /// The entry point's name.
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

/// How a dispatch accesses tensors: which file of accessors it is compiled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Width {
    /// Vectors of four, for chunks that start on multiples of four elements.
    Wide,
    /// Single elements, for chunks that start anywhere.
    Narrow,
    /// Vectors of four elements in half precision, two a word.
    Packed(Packed),
}

/// A form of half precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Packed {
    /// bf16, not f16.
    pub bf16: bool,
    /// There are master weights, in the anchor's column.
    pub master: bool,
}

impl Width {
    /// All.
    pub const ALL: [Width; 6] = [
        Width::Wide,
        Width::Narrow,
        Width::Packed(Packed { bf16: false, master: false }),
        Width::Packed(Packed { bf16: false, master: true }),
        Width::Packed(Packed { bf16: true, master: false }),
        Width::Packed(Packed { bf16: true, master: true }),
    ];

    /// The files in `shaders/` that hold the accessors.
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

    /// Whether there are master weights.
    pub const fn has_master(self) -> bool {
        matches!(self, Width::Packed(Packed { master: true, .. }))
    }
}

/// Frames of a dispatch: how many sets of buffers it reaches, and which columns differ between
/// them. The other columns are bound once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Frames {
    /// Frames, at least 1.
    pub count: u32,
    /// Bit `c` set: column `c` has a binding in each frame.
    pub varying: u8,
}

impl Frames {
    /// One frame.
    pub const SINGLE: Frames = Frames { count: 1, varying: 0 };

    /// Whether a column has a binding of its own in each frame.
    pub const fn varies(self, column: usize) -> bool {
        self.varying & (1 << column) != 0
    }
}

/// How a perturbation scales with the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scaling {
    /// Not at all.
    Plain,
    /// By `w^2`.
    Adaptive,
    /// As each kind says, which also says whether its tensors are perturbed at all.
    ByKind,
}

impl Scaling {
    /// All.
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

/// What a norm is taken of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NormOf {
    /// `g`.
    Gradient,
    /// What the perturbation is divided by, if that is not `g`.
    Perturbation(Scaling),
    /// Both, in one reading.
    Both(Scaling),
}

impl NormOf {
    /// All.
    pub const ALL: [NormOf; 5] = [
        NormOf::Gradient,
        NormOf::Perturbation(Scaling::Adaptive),
        NormOf::Perturbation(Scaling::ByKind),
        NormOf::Both(Scaling::Adaptive),
        NormOf::Both(Scaling::ByKind),
    ];

    /// Norms it comes to.
    pub const fn count(self) -> u64 {
        match self {
            NormOf::Gradient | NormOf::Perturbation(_) => 1,
            NormOf::Both(_) => 2,
        }
    }

    /// How `g` is scaled, if it is.
    pub const fn scaling(self) -> Scaling {
        match self {
            NormOf::Gradient => Scaling::Plain,
            NormOf::Perturbation(scaling) | NormOf::Both(scaling) => scaling,
        }
    }

    /// Whether the norm of `g` itself is taken.
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

/// A form of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kernel {
    /// Partial sums of squares.
    Norm {
        /// Of what.
        of: NormOf,
        /// A partial for each invocation, in place of one for each workgroup.
        by_lane: bool,
    },
    /// The norms from them.
    NormFinish(NormOf),
    /// The climb.
    Ascent {
        /// How the perturbation scales.
        scaling: Scaling,
        /// Write `w + e_w` over `w` and save the anchor.
        in_place: bool,
        /// Round `w + e_w` to half precision by chance.
        stochastic: bool,
    },
    /// The descent.
    Descent {
        /// State tensors of the base optimizer, 0 to 3.
        states: u32,
        /// Take `w` from the anchor.
        anchored: bool,
        /// The base optimizer's step alone.
        alone: bool,
    },
    /// The climb with the base step.
    LeanAscent {
        /// How the perturbation scales.
        scaling: Scaling,
        /// State tensors of the base optimizer, 0 to 3.
        states: u32,
        /// Take `w` from the anchor.
        anchored: bool,
        /// Round `w + e_w` to half precision by chance.
        stochastic: bool,
    },
    /// The sharpness step.
    LeanDescent {
        /// Have weights to return to where `g~` is not finite.
        anchored: bool,
    },
    /// Whether a gradient is finite.
    Check {
        /// `g~`, not `g`.
        perturbed: bool,
    },
}

/// Place, among the values of `Norms`, of the mark on a gradient that is not finite.
pub const fn mark(perturbed: bool) -> u32 {
    36 + perturbed as u32
}

impl Kernel {
    /// Every kernel the engine can ask for.
    pub fn all() -> Vec<Kernel> {
        let by_chance = |scaling| [false, true].map(|stochastic| (scaling, stochastic));
        let mut all = Vec::new();
        for of in NormOf::ALL {
            all.push(Kernel::NormFinish(of));
            all.extend([false, true].map(|by_lane| Kernel::Norm { of, by_lane }));
        }
        for flag in [false, true] {
            all.push(Kernel::LeanDescent { anchored: flag });
            all.push(Kernel::Check { perturbed: flag });
            for (scaling, stochastic) in Scaling::ALL.into_iter().flat_map(by_chance) {
                all.push(Kernel::Ascent { scaling, in_place: flag, stochastic });
            }
            for states in 0..=3 {
                for alone in [false, true] {
                    all.push(Kernel::Descent { states, anchored: flag, alone });
                }
                for (scaling, stochastic) in Scaling::ALL.into_iter().flat_map(by_chance) {
                    all.push(Kernel::LeanAscent { scaling, states, anchored: flag, stochastic });
                }
            }
        }
        all
    }

    /// The stage this is a form of.
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

    /// Whether there is a form of it for tensors of this width: single precision is not rounded by
    /// chance, nor do lean steps know of master weights.
    pub const fn suits(self, width: Width) -> bool {
        match (self, width) {
            (
                Kernel::Ascent { stochastic, .. } | Kernel::LeanAscent { stochastic, .. },
                Width::Wide | Width::Narrow,
            ) => !stochastic,
            (Kernel::LeanAscent { .. } | Kernel::LeanDescent { .. }, _) => !width.has_master(),
            // Tensors are nothing to it.
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

    /// Values of the stage's `override` constants beside the geometry.
    fn constants(self, width: Width) -> Vec<(&'static str, f64)> {
        match self {
            Kernel::Norm { of, by_lane } => of.constants(by_lane),
            // Shared source; what it is set to makes no difference here.
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

/// One compiled form of a stage: the pipeline cache's key, naming every compile input but the size
/// of workgroups, which an engine never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Specialisation {
    /// What it computes.
    pub kernel: Kernel,
    /// How it accesses tensors. The norm's finish accesses none, and goes by the wide source.
    pub width: Width,
    /// The sets of buffers it reaches.
    pub frames: Frames,
}

impl Specialisation {
    /// Values of the shader's `override` constants, with workgroups of this size.
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
