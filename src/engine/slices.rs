//! Tensors as the engine sees them: ranges of elements in storage buffers.

use super::error::Role;
use crate::layout::{COLUMNS, Packed, Width, column};

/// What the elements of a [`Slice`] are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Single precision.
    #[default]
    F32,
    /// IEEE 754 half precision. No adapter feature is needed: kernels take words apart themselves.
    F16,
    /// The upper half of an `f32`.
    Bf16,
}

impl Format {
    /// Bytes of an element.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

/// `len` elements in `buffer`, starting `offset` bytes in. Cloning clones a handle.
///
/// In half precision ([`Format::F16`], [`Format::Bf16`]) are the weights, gradients and perturbed weights
/// of a tensor, all alike; its states stay `f32`. Such a tensor owns whole vectors of four elements: its
/// slices start on multiples of 8 bytes (those in `f32` of 16), and the buffer reaches to the end of
/// the last vector. What lies there past the tensor's end keeps its bits.
///
/// It may have master weights, in `f32`, which it then steps from and to, while the weights are their
/// rounded copy. They stand in the place that `w` is read from and nothing else needs:
///
/// | | in half precision | master weights |
/// | --- | --- | --- |
/// | ascent out of place | [`partner`](AscentTensor::partner) | [`weight`](AscentTensor::weight) |
/// | ascent in place | `weight` | `partner`: nothing has to be saved |
/// | descent, base step | [`weight`](DescentTensor::weight) | [`anchor`](DescentTensor::anchor), which is written, too |
///
/// Lean steps know of none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// A buffer with `BufferUsages::STORAGE`.
    pub buffer: wgpu::Buffer,
    /// Start in bytes, any multiple of 4, or as said above.
    pub offset: u64,
    /// Length in elements; 0 is allowed.
    pub len: u64,
    /// What the elements are.
    pub format: Format,
}

impl Slice {
    /// The first `len` elements of `buffer`, in `f32`.
    pub fn new(buffer: &wgpu::Buffer, len: u64) -> Self {
        Self { buffer: buffer.clone(), offset: 0, len, format: Format::F32 }
    }

    /// The same place in a buffer, with elements of another format.
    pub fn with_format(self, format: Format) -> Self {
        Self { format, ..self }
    }

    fn is_half(&self) -> bool {
        self.format != Format::F32
    }

    /// Whether it is master weights of the tensor that has this gradient.
    fn is_master_of(&self, grad: &Slice) -> bool {
        grad.is_half() && !self.is_half()
    }
}

/// One tensor of an ascent. All slices have the weight's length.
#[derive(Clone, Debug)]
pub struct AscentTensor {
    /// The weights `w`. Read; written with `w + e_w` if [`Placement::InPlace`].
    pub weight: Slice,
    /// The gradient `g`. Read.
    pub grad: Slice,
    /// Written: `w + e_w` if [`Placement::OutOfPlace`], a copy of `w` (the anchor) if
    /// [`Placement::InPlace`]. `None` for a tensor whose group is not perturbed, and only then.
    pub partner: Option<Slice>,
    /// Its parameter group: 0 for none, `k` for the `k`-th of
    /// [`Hyperparameters::groups`](crate::method::Hyperparameters::groups).
    pub group: usize,
}

/// Where an ascent puts the perturbed weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// In a buffer of their own: `w` is never touched, so restoring it is free and exact.
    #[default]
    OutOfPlace,
    /// Over `w`, which is saved to the anchor first: the second forward pass reads the buffer the
    /// first one read, and the descent restores `w` from the anchor, exactly.
    InPlace,
}

/// One tensor of a descent. All slices have the weight's length.
#[derive(Clone, Debug)]
pub struct DescentTensor {
    /// Written with the new weights. Read as `w` if there is no anchor.
    pub weight: Slice,
    /// Where `w` is read from: the anchor of an in-place ascent, or the old weights if the new
    /// ones go to a buffer of their own. `None` if `weight` itself still holds `w`, as it does after
    /// an ascent out of place, and after any of a tensor that is not perturbed.
    pub anchor: Option<Slice>,
    /// The gradient `g`, unclipped. Read.
    pub grad: Slice,
    /// The perturbed gradient `g~`. Read.
    pub grad_perturbed: Slice,
    /// State tensors, in the order of [`Base::state_names`](crate::method::Base::state_names).
    /// Read and written; the first step ignores their content.
    pub state: Vec<Slice>,
    /// Which step of this tensor this is, counted from 1; steps that were
    /// [left out](crate::method::NonFinite::Skip) are none, as their [norms](crate::layout::Norms) tell.
    pub step: u64,
    /// Its parameter group: 0 for none, `k` for the `k`-th of
    /// [`Hyperparameters::groups`](crate::method::Hyperparameters::groups).
    pub group: usize,
}

/// One tensor of a lean ascent. All slices have the weight's length.
#[derive(Clone, Debug)]
pub struct LeanAscentTensor {
    /// Written with what the descent needs: the base optimizer's step, taken, and a term in `g`.
    /// Read as `w` if there is no anchor.
    pub weight: Slice,
    /// Where `w` is read from, if `weight` is a buffer of its own.
    pub anchor: Option<Slice>,
    /// The gradient `g`, unclipped. Read, and not needed any more afterwards.
    pub grad: Slice,
    /// Written with `w + e_w`. `None` for a tensor whose group is not perturbed, and only then: the second
    /// pass then reads `w`.
    pub partner: Option<Slice>,
    /// State tensors, as in [`DescentTensor::state`].
    pub state: Vec<Slice>,
    /// Which step of this tensor this is, as in [`DescentTensor::step`].
    pub step: u64,
    /// Its parameter group: 0 for none, `k` for the `k`-th of
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
    /// What the second pass ran on: the lean ascent's `partner`, or the old weights of a tensor that is not
    /// perturbed. Read if `g~` is not finite and the step is not to
    /// [propagate](crate::method::NonFinite) that: the weights then become these. Without it they stay
    /// as the ascent left them, with a term in `g` too many.
    pub ran_on: Option<Slice>,
    /// Its parameter group: 0 for none, `k` for the `k`-th of
    /// [`Hyperparameters::groups`](crate::method::Hyperparameters::groups).
    pub group: usize,
}

/// One tensor of a base optimizer's step alone. All slices have the weight's length.
#[derive(Clone, Debug)]
pub struct BaseTensor {
    /// Written with the new weights. Read as `w` if there is no anchor.
    pub weight: Slice,
    /// Where `w` is read from, if the new weights go to a buffer of their own.
    pub anchor: Option<Slice>,
    /// The gradient `g`, unclipped. Read.
    pub grad: Slice,
    /// State tensors, as in [`DescentTensor::state`].
    pub state: Vec<Slice>,
    /// Which step of this tensor this is, as in [`DescentTensor::step`].
    pub step: u64,
    /// Its parameter group: 0 for none, `k` for the `k`-th of
    /// [`Hyperparameters::groups`](crate::method::Hyperparameters::groups).
    pub group: usize,
}

/// Slices of one tensor by their [`column`].
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

/// The width of the dispatch that reaches these slices, if they are in half precision.
pub(crate) fn packed_width(columns: &Columns<'_>) -> Option<Width> {
    let bf16 = half_format(columns.iter().flatten().copied())? == Format::Bf16;
    let master = columns[column::ANCHOR].is_some_and(|anchor| !anchor.is_half());
    Some(Width::Packed(Packed { bf16, master }))
}

/// The half precision among these.
pub(crate) fn half_format<'a>(mut slices: impl Iterator<Item = &'a Slice>) -> Option<Format> {
    slices.find(|slice| slice.is_half()).map(|slice| slice.format)
}

/// A slice on its way through the checks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SliceUse<'a> {
    pub(crate) role: Role,
    pub(crate) slice: &'a Slice,
    pub(crate) written: bool,
    /// Whether it may be master weights.
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

/// The anchor of a step: master weights are written.
fn anchor_use<'a>(anchor: &'a Slice, grad: &Slice) -> SliceUse<'a> {
    let written = anchor.is_master_of(grad);
    SliceUse { written, master: true, ..read(Role::Anchor, anchor) }
}

/// A tensor whose slices are what they are, whatever the placement.
pub(crate) trait HasSlices {
    /// Elements.
    fn len(&self) -> u64;

    /// Each slice, and what happens to it.
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
    /// `w` has a column of its own if `anchored`.
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
    /// `w` has a column of its own if `anchored`.
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
    /// `w` has a column of its own if `anchored`.
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
    /// What the second pass ran on is the anchor if `anchored`.
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
