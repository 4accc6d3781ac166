//! A range of elements in a storage buffer, its element type, and the role that it has in a tensor.

use crate::layout::{COLUMNS, Packed, Width, column};

/// Element type of a [`Slice`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// Single precision.
    #[default]
    F32,
    /// IEEE 754 half precision. It needs no adapter feature, because the kernels unpack words by bit operations.
    F16,
    /// bfloat16, the upper 16 bits of an `f32`.
    Bf16,
}

impl Format {
    /// Returns the size of an element in bytes.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

/// `len` elements of `buffer`, from byte `offset` on. Cloning copies the buffer's handle only.
///
/// A tensor may be in half precision ([`Format::F16`], [`Format::Bf16`]). Its weights, gradients and perturbed
/// weights then all have this format, and its states are `f32`. The kernels access such a tensor in vectors of
/// four elements: its slices must start on multiples of 8 bytes (`f32` slices of 16), and the buffer must
/// contain the whole last vector. Bits of that vector after the tensor's end are preserved.
///
/// A tensor in half precision may have `f32` master weights. The step then reads and updates these, and writes
/// a rounded copy to the weights. Lean mode does not support master weights.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Slice {
    /// A buffer with `BufferUsages::STORAGE`.
    pub buffer: wgpu::Buffer,
    /// Start in bytes: a multiple of 4 in single precision, else as described above.
    pub offset: u64,
    /// Length in elements; 0 is allowed.
    pub len: u64,
    /// Element type.
    pub format: Format,
}

impl Slice {
    /// Creates a slice of the first `len` `f32` elements of `buffer`.
    pub fn new(buffer: &wgpu::Buffer, len: u64) -> Self {
        Self { buffer: buffer.clone(), offset: 0, len, format: Format::F32 }
    }

    /// Sets the element type.
    pub fn with_format(self, format: Format) -> Self {
        Self { format, ..self }
    }

    /// Sets the start, in bytes from the start of the buffer.
    pub fn at(self, offset: u64) -> Self {
        Self { offset, ..self }
    }

    /// Sets the length, in elements.
    pub fn with_len(self, len: u64) -> Self {
        Self { len, ..self }
    }

    pub(crate) fn is_half(&self) -> bool {
        self.format != Format::F32
    }
}

/// The role of a slice within its tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// The weights `w`, or the gradient that a mix or a clip writes.
    Weight,
    /// The gradient `g`.
    Grad,
    /// The perturbed gradient `g~`.
    GradPerturbed,
    /// The slice that receives `w + e_w`, if not the weights.
    Perturbed,
    /// The slice that an ascent in place saves `w` to, or that `w` is read from.
    Anchor,
    /// The `f32` master weights.
    Master,
    /// The weights of a lean step's second pass.
    SecondPassWeight,
    /// A state tensor of the base optimizer, by its index in `Base::state_names`.
    State(u32),
    /// The state tensor of the method, or the momentum that Momentum-SAM perturbs along.
    MethodState,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Role::Weight => f.write_str("weight"),
            Role::Grad => f.write_str("grad"),
            Role::GradPerturbed => f.write_str("grad_perturbed"),
            Role::Perturbed => f.write_str("perturbed"),
            Role::Anchor => f.write_str("anchor"),
            Role::Master => f.write_str("master"),
            Role::SecondPassWeight => f.write_str("second_pass_weight"),
            Role::State(index) => write!(f, "state {index}"),
            Role::MethodState => f.write_str("method_state"),
        }
    }
}

/// The slices of one tensor, indexed by [`column`].
pub(crate) type Columns<'a> = [Option<&'a Slice>; COLUMNS];

/// Returns the width of the dispatch for these slices if they are in half precision.
pub(crate) fn packed_width(columns: &Columns<'_>) -> Option<Width> {
    let bf16 = half_format(columns.iter().flatten().copied())? == Format::Bf16;
    let master = columns[column::ANCHOR].is_some_and(|anchor| !anchor.is_half());
    Some(Width::Packed(Packed { bf16, master }))
}

/// Returns the half-precision format that these slices use, if any.
pub(crate) fn half_format<'a>(mut slices: impl Iterator<Item = &'a Slice>) -> Option<Format> {
    slices.find(|slice| slice.is_half()).map(|slice| slice.format)
}
