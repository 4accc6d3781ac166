// The stages, the ways in which they access tensors, and the buffer sets of a dispatch. The engine and build.rs
// both include this file, so it may only use std.

/// Workgroup sizes that an engine supports: powers of two, from `FIRST_LEVEL` in `squares.wgsl` to WebGPU's default
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
    pub const WEIGHT_COPY: usize = 4;
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
    /// Both in one dispatch.
    NormAndFinish,
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
    /// The perturbation of the weights along a direction that depends on the method's state.
    AscentWithState,
    /// Partial sums over two gradients.
    Moments,
    /// Partial sums over the direction of a perturbation that depends on the method's state.
    MomentsWithState,
    /// Norms and factors, from the partial sums of the moments.
    Coefficients,
    /// The method's new state.
    Update,
    /// Restoration of the weights and base step of WSAM's relatives.
    MethodDescent,
}

impl Stage {
    /// All stages.
    pub const ALL: [Stage; 14] = [
        Stage::Norm,
        Stage::NormFinish,
        Stage::NormAndFinish,
        Stage::Ascent,
        Stage::Descent,
        Stage::LeanAscent,
        Stage::LeanDescent,
        Stage::Check,
        Stage::AscentWithState,
        Stage::Moments,
        Stage::MomentsWithState,
        Stage::Coefficients,
        Stage::Update,
        Stage::MethodDescent,
    ];

    /// Returns whether only WSAM's relatives use the stage. An engine compiles it at first use.
    pub const fn is_of_relatives(self) -> bool {
        matches!(
            self,
            Stage::AscentWithState
                | Stage::Moments
                | Stage::MomentsWithState
                | Stage::Coefficients
                | Stage::Update
                | Stage::MethodDescent
        )
    }

    /// Returns the stage's files in `shaders/`, in the order in which they are concatenated.
    pub fn files(self, width: Width) -> Vec<&'static str> {
        let own: &[&str] = match self {
            Stage::Norm | Stage::NormFinish => {
                &["scaling.wgsl", "partials.wgsl", "squares.wgsl", "sums.wgsl", "norm.wgsl"]
            }
            Stage::NormAndFinish => {
                &["scaling.wgsl", "partials_shared.wgsl", "squares.wgsl", "sums.wgsl", "norm.wgsl"]
            }
            Stage::Ascent => &["scaling.wgsl", "direction_gradient.wgsl", "ascent.wgsl"],
            Stage::Descent => &["step.wgsl", "descent.wgsl"],
            Stage::LeanAscent => &["scaling.wgsl", "step.wgsl", "lean_ascent.wgsl"],
            Stage::LeanDescent => &["step.wgsl", "lean_descent.wgsl"],
            Stage::Check => &["check.wgsl"],
            Stage::AscentWithState => &["scaling.wgsl", "direction_state.wgsl", "ascent.wgsl"],
            Stage::Moments => &[
                "partials.wgsl",
                "squares.wgsl",
                "products.wgsl",
                "orthogonal.wgsl",
                "operands_gradients.wgsl",
                "moments.wgsl",
            ],
            Stage::MomentsWithState => &[
                "scaling.wgsl",
                "partials.wgsl",
                "squares.wgsl",
                "products.wgsl",
                "direction_state.wgsl",
                "operands_direction.wgsl",
                "moments.wgsl",
            ],
            Stage::Coefficients => &[
                "partials.wgsl",
                "squares.wgsl",
                "products.wgsl",
                "sums.wgsl",
                "coefficients.wgsl",
            ],
            Stage::Update => &["orthogonal.wgsl", "update.wgsl"],
            Stage::MethodDescent => {
                &["scaling.wgsl", "step.wgsl", "orthogonal.wgsl", "method_descent.wgsl"]
            }
        };
        [&["common.wgsl"], width.files(), own].concat()
    }

    /// Returns the name of the entry point.
    pub const fn entry_point(self) -> &'static str {
        match self {
            Stage::Norm => "norm",
            Stage::NormFinish => "norm_finish",
            Stage::NormAndFinish => "norm_and_finish",
            Stage::Ascent | Stage::AscentWithState => "ascent",
            Stage::Descent => "descent",
            Stage::LeanAscent => "lean_ascent",
            Stage::LeanDescent => "lean_descent",
            Stage::Check => "check",
            Stage::Moments | Stage::MomentsWithState => "moments",
            Stage::Coefficients => "coefficients",
            Stage::Update => "update",
            Stage::MethodDescent => "method_descent",
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

/// The buffer sets of a dispatch (one buffer for each column), and the columns that differ between them. The other columns are
/// bound once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BufferSets {
    /// Number of buffer sets, at least 1.
    pub count: u32,
    /// Columns that vary, as bits: if bit `c` is set, column `c` has a binding in each buffer set.
    pub varying: u8,
}

impl BufferSets {
    /// A single buffer set.
    pub const SINGLE: BufferSets = BufferSets { count: 1, varying: 0 };

    /// Returns whether a column has a separate binding in each buffer set.
    pub const fn varies(self, column: usize) -> bool {
        self.varying & (1 << column) != 0
    }
}
