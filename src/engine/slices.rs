//! The tensors of a step, as ranges of elements in storage buffers.

use super::error::Role;
use crate::layout::{COLUMNS, Packed, Width, column};

/// Element type of a [`Slice`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
/// a rounded copy to the weights. Master weights are passed in the following fields:
///
/// | | in half precision | master weights |
/// | --- | --- | --- |
/// | ascent out of place | [`partner`](AscentTensor::partner) | [`weight`](AscentTensor::weight) |
/// | ascent in place | `weight` | `partner`, which is read: `w` need not be saved |
/// | descent, base step | [`weight`](DescentTensor::weight) | [`anchor`](DescentTensor::anchor), which is also written |
///
/// Lean mode does not support master weights.
#[derive(Clone, Debug, PartialEq, Eq)]
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

    fn is_half(&self) -> bool {
        self.format != Format::F32
    }

    /// Returns whether this slice holds the master weights of the tensor with this gradient.
    fn is_master_of(&self, grad: &Slice) -> bool {
        grad.is_half() && !self.is_half()
    }
}

/// One tensor of an ascent. All slices have the weight's length.
#[derive(Clone, Debug)]
pub struct AscentTensor {
    /// The weights `w`. Read; overwritten with `w + e_w` if [`Placement::InPlace`].
    pub weight: Slice,
    /// The gradient `g`. Read.
    pub grad: Slice,
    /// Written with `w + e_w` if [`Placement::OutOfPlace`], or with a copy of `w` (the anchor) if
    /// [`Placement::InPlace`]. `None` if, and only if, the tensor's group is not perturbed.
    pub partner: Option<Slice>,
    /// The parameter group: 0 for no group, `k` for the `k`-th of
    /// [`Hyperparameters::groups`](crate::method::Hyperparameters::groups).
    pub group: usize,
}

/// Where an ascent writes the perturbed weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// In a separate buffer. `w` is not written, so it need not be restored.
    #[default]
    OutOfPlace,
    /// Over `w`, after `w` has been copied to the anchor. Both forward passes read the same buffer, and the
    /// descent restores `w` from the anchor bit for bit.
    InPlace,
}

/// One tensor of a descent. All slices have the weight's length.
#[derive(Clone, Debug)]
pub struct DescentTensor {
    /// Written with the new weights. Read as `w` if there is no anchor.
    pub weight: Slice,
    /// Slice that `w` is read from: the anchor of an ascent in place, or the old weights if the new weights are
    /// written to a separate buffer. `None` if `weight` still holds `w`, as after an ascent out of place, and
    /// for a tensor that is not perturbed.
    pub anchor: Option<Slice>,
    /// The gradient `g`, unclipped. Read.
    pub grad: Slice,
    /// The perturbed gradient `g~`. Read.
    pub grad_perturbed: Slice,
    /// State tensors, in the order of [`Base::state_names`](crate::method::Base::state_names).
    /// Read and written; the first step ignores their content.
    pub state: Vec<Slice>,
    /// Step count of this tensor, from 1. A [skipped](crate::method::NonFinite::Skip) step does not advance it;
    /// the step's [norms](crate::layout::Norms) show whether it was skipped.
    pub step: u64,
    /// The parameter group: 0 for no group, `k` for the `k`-th of
    /// [`Hyperparameters::groups`](crate::method::Hyperparameters::groups).
    pub group: usize,
}

/// One tensor of a lean ascent. All slices have the weight's length.
#[derive(Clone, Debug)]
pub struct LeanAscentTensor {
    /// Written with `base_step(w, g) + lr alpha g`, the input of the lean descent. Read as `w` if there is no
    /// anchor.
    pub weight: Slice,
    /// Slice that `w` is read from, if `weight` is a separate buffer.
    pub anchor: Option<Slice>,
    /// The gradient `g`, unclipped. Read; not needed after the ascent.
    pub grad: Slice,
    /// Written with `w + e_w`. `None` if, and only if, the tensor's group is not perturbed; the second pass then
    /// reads `w`.
    pub partner: Option<Slice>,
    /// State tensors, as in [`DescentTensor::state`].
    pub state: Vec<Slice>,
    /// Step count of this tensor, as in [`DescentTensor::step`].
    pub step: u64,
    /// The parameter group: 0 for no group, `k` for the `k`-th of
    /// [`Hyperparameters::groups`](crate::method::Hyperparameters::groups).
    pub group: usize,
}

/// One tensor of a lean descent.
#[derive(Clone, Debug)]
pub struct LeanDescentTensor {
    /// The lean ascent's `weight`. Read; written with the new weights.
    pub weight: Slice,
    /// The perturbed gradient `g~`. Read.
    pub grad_perturbed: Slice,
    /// The weights of the second pass: the lean ascent's `partner`, or the old weights of a tensor that is not
    /// perturbed. If `g~` is not finite, and the method does not
    /// [propagate](crate::method::NonFinite::Propagate) this, they are copied to `weight`. Without this slice
    /// `weight` then keeps the lean ascent's result, which includes the term `lr alpha g`.
    pub ran_on: Option<Slice>,
    /// The parameter group: 0 for no group, `k` for the `k`-th of
    /// [`Hyperparameters::groups`](crate::method::Hyperparameters::groups).
    pub group: usize,
}

/// One tensor of a base optimizer's step alone. All slices have the weight's length.
#[derive(Clone, Debug)]
pub struct BaseTensor {
    /// Written with the new weights. Read as `w` if there is no anchor.
    pub weight: Slice,
    /// Slice that `w` is read from, if the new weights are written to a separate buffer.
    pub anchor: Option<Slice>,
    /// The gradient `g`, unclipped. Read.
    pub grad: Slice,
    /// State tensors, as in [`DescentTensor::state`].
    pub state: Vec<Slice>,
    /// Step count of this tensor, as in [`DescentTensor::step`].
    pub step: u64,
    /// The parameter group: 0 for no group, `k` for the `k`-th of
    /// [`Hyperparameters::groups`](crate::method::Hyperparameters::groups).
    pub group: usize,
}

/// The slices of one tensor, indexed by [`column`].
pub(crate) type Columns<'a> = [Option<&'a Slice>; COLUMNS];

fn columns<'a, const N: usize>(
    slices: [(usize, Option<&'a Slice>); N],
    state: &'a [Slice],
) -> Columns<'a> {
    let mut columns = [None; COLUMNS];
    for (place, slice) in slices {
        columns[place] = slice;
    }
    for (place, slice) in columns[column::STATE..].iter_mut().zip(state) {
        *place = Some(slice);
    }
    columns
}

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

/// How a phase uses a slice, for the checks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SliceUse<'a> {
    pub(crate) role: Role,
    pub(crate) slice: &'a Slice,
    pub(crate) written: bool,
    /// Whether the slice may hold master weights.
    pub(crate) master: bool,
}

pub(crate) type SliceUses<'a> = Vec<SliceUse<'a>>;

fn read(role: Role, slice: &Slice) -> SliceUse<'_> {
    SliceUse { role, slice, written: false, master: false }
}

fn written(role: Role, slice: &Slice) -> SliceUse<'_> {
    SliceUse { written: true, ..read(role, slice) }
}

fn state_uses(state: &[Slice]) -> impl Iterator<Item = SliceUse<'_>> {
    state.iter().zip(0..).map(|(slice, i)| written(Role::State(i), slice))
}

/// The use of an anchor: read, and also written if it holds master weights.
fn anchor_use<'a>(anchor: &'a Slice, grad: &Slice) -> SliceUse<'a> {
    let written = anchor.is_master_of(grad);
    SliceUse { written, master: true, ..read(Role::Anchor, anchor) }
}

/// A tensor whose slices are used in one way only. An ascent's depend on the placement.
pub(crate) trait HasSlices {
    /// Returns the number of elements.
    fn len(&self) -> u64;

    /// Returns each slice with its use.
    fn slice_uses(&self) -> SliceUses<'_>;
}

impl AscentTensor {
    pub(crate) fn columns(&self) -> Columns<'_> {
        let is_master = |slice: &&Slice| slice.is_master_of(&self.grad);
        let (weight, partner) = (Some(&self.weight), self.partner.as_ref());
        let slices = [
            (column::WEIGHT, weight.filter(|slice| !is_master(slice))),
            (column::ANCHOR, weight.filter(is_master).or(partner.filter(is_master))),
            (column::GRAD, Some(&self.grad)),
            (column::PARTNER, partner.filter(|slice| !is_master(slice))),
        ];
        columns(slices, &[])
    }

    pub(crate) fn slice_uses(&self, placement: Placement) -> SliceUses<'_> {
        let in_place = placement == Placement::InPlace && self.partner.is_some();
        let weight =
            SliceUse { written: in_place, master: !in_place, ..read(Role::Weight, &self.weight) };
        let partner = self.partner.as_ref().map(|partner| SliceUse {
            written: !(in_place && partner.is_master_of(&self.grad)),
            master: in_place,
            ..read(Role::Partner, partner)
        });
        [weight, read(Role::Grad, &self.grad)].into_iter().chain(partner).collect()
    }
}

impl DescentTensor {
    /// Returns the slices by column. `w` is in the anchor's column if `anchored`.
    pub(crate) fn columns(&self, anchored: bool) -> Columns<'_> {
        let slices = [
            (column::WEIGHT, Some(&self.weight)),
            (column::ANCHOR, anchored.then(|| self.anchor.as_ref().unwrap_or(&self.weight))),
            (column::GRAD, Some(&self.grad)),
            (column::GRAD_PERTURBED, Some(&self.grad_perturbed)),
        ];
        columns(slices, &self.state)
    }
}

impl HasSlices for DescentTensor {
    fn len(&self) -> u64 {
        self.weight.len
    }

    fn slice_uses(&self) -> SliceUses<'_> {
        [written(Role::Weight, &self.weight)]
            .into_iter()
            .chain(self.anchor.as_ref().map(|anchor| anchor_use(anchor, &self.grad)))
            .chain([read(Role::Grad, &self.grad), read(Role::GradPerturbed, &self.grad_perturbed)])
            .chain(state_uses(&self.state))
            .collect()
    }
}

impl BaseTensor {
    /// Returns the slices by column. `w` is in the anchor's column if `anchored`.
    pub(crate) fn columns(&self, anchored: bool) -> Columns<'_> {
        let slices = [
            (column::WEIGHT, Some(&self.weight)),
            (column::ANCHOR, anchored.then(|| self.anchor.as_ref().unwrap_or(&self.weight))),
            (column::GRAD, Some(&self.grad)),
        ];
        columns(slices, &self.state)
    }
}

impl HasSlices for BaseTensor {
    fn len(&self) -> u64 {
        self.weight.len
    }

    fn slice_uses(&self) -> SliceUses<'_> {
        [written(Role::Weight, &self.weight)]
            .into_iter()
            .chain(self.anchor.as_ref().map(|anchor| anchor_use(anchor, &self.grad)))
            .chain([read(Role::Grad, &self.grad)])
            .chain(state_uses(&self.state))
            .collect()
    }
}

impl LeanAscentTensor {
    /// Returns the slices by column. `w` is in the anchor's column if `anchored`.
    pub(crate) fn columns(&self, anchored: bool) -> Columns<'_> {
        let slices = [
            (column::WEIGHT, Some(&self.weight)),
            (column::ANCHOR, anchored.then(|| self.anchor.as_ref().unwrap_or(&self.weight))),
            (column::GRAD, Some(&self.grad)),
            (column::PARTNER, self.partner.as_ref()),
        ];
        columns(slices, &self.state)
    }
}

impl HasSlices for LeanAscentTensor {
    fn len(&self) -> u64 {
        self.weight.len
    }

    fn slice_uses(&self) -> SliceUses<'_> {
        [written(Role::Weight, &self.weight)]
            .into_iter()
            .chain(self.anchor.as_ref().map(|anchor| read(Role::Anchor, anchor)))
            .chain([read(Role::Grad, &self.grad)])
            .chain(self.partner.as_ref().map(|partner| written(Role::Partner, partner)))
            .chain(state_uses(&self.state))
            .collect()
    }
}

impl LeanDescentTensor {
    /// Returns the slices by column. `ran_on` is in the anchor's column if `anchored`.
    pub(crate) fn columns(&self, anchored: bool) -> Columns<'_> {
        let slices = [
            (column::WEIGHT, Some(&self.weight)),
            (column::GRAD_PERTURBED, Some(&self.grad_perturbed)),
            (column::ANCHOR, anchored.then(|| self.ran_on.as_ref().unwrap_or(&self.weight))),
        ];
        columns(slices, &[])
    }
}

impl HasSlices for LeanDescentTensor {
    fn len(&self) -> u64 {
        self.weight.len
    }

    fn slice_uses(&self) -> SliceUses<'_> {
        [written(Role::Weight, &self.weight), read(Role::GradPerturbed, &self.grad_perturbed)]
            .into_iter()
            .chain(self.ran_on.as_ref().map(|ran_on| read(Role::Anchor, ran_on)))
            .collect()
    }
}
