//! Tensors as the engine sees them: ranges of `f32` elements in storage buffers.

use super::error::Role;
use crate::layout::{COLUMNS, column};

/// `len` elements of `f32` in `buffer`, starting `offset` bytes in. Cloning clones a handle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// A buffer with `BufferUsages::STORAGE`.
    pub buffer: wgpu::Buffer,
    /// Start in bytes, any multiple of 4.
    pub offset: u64,
    /// Length in elements; 0 is allowed.
    pub len: u64,
}

impl Slice {
    /// The first `len` elements of `buffer`.
    pub fn new(buffer: &wgpu::Buffer, len: u64) -> Self {
        Self { buffer: buffer.clone(), offset: 0, len }
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

pub(crate) type Roles<'a> = Vec<(Role, &'a Slice, bool)>;

fn state_roles(state: &[Slice]) -> impl Iterator<Item = (Role, &Slice, bool)> {
    state.iter().zip(0..).map(|(slice, i)| (Role::State(i), slice, true))
}

/// A tensor whose slices are what they are, whatever the placement.
pub(crate) trait Sliced {
    /// Elements.
    fn len(&self) -> u64;

    /// Each slice, and whether it is written.
    fn roles(&self) -> Roles<'_>;
}

impl AscentTensor {
    pub(crate) fn columns(&self) -> Columns<'_> {
        let slices = [
            (column::WEIGHT, Some(&self.weight)),
            (column::GRAD, Some(&self.grad)),
            (column::PARTNER, self.partner.as_ref()),
        ];
        columns(slices, &[])
    }

    pub(crate) fn roles(&self, placement: Placement) -> Roles<'_> {
        let in_place = placement == Placement::InPlace && self.partner.is_some();
        [(Role::Weight, &self.weight, in_place), (Role::Grad, &self.grad, false)]
            .into_iter()
            .chain(self.partner.as_ref().map(|partner| (Role::Partner, partner, true)))
            .collect()
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

impl Sliced for DescentTensor {
    fn len(&self) -> u64 {
        self.weight.len
    }

    fn roles(&self) -> Roles<'_> {
        [(Role::Weight, &self.weight, true)]
            .into_iter()
            .chain(self.anchor.as_ref().map(|anchor| (Role::Anchor, anchor, false)))
            .chain([
                (Role::Grad, &self.grad, false),
                (Role::GradPerturbed, &self.grad_perturbed, false),
            ])
            .chain(state_roles(&self.state))
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

impl Sliced for BaseTensor {
    fn len(&self) -> u64 {
        self.weight.len
    }

    fn roles(&self) -> Roles<'_> {
        [(Role::Weight, &self.weight, true)]
            .into_iter()
            .chain(self.anchor.as_ref().map(|anchor| (Role::Anchor, anchor, false)))
            .chain([(Role::Grad, &self.grad, false)])
            .chain(state_roles(&self.state))
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

impl Sliced for LeanAscentTensor {
    fn len(&self) -> u64 {
        self.weight.len
    }

    fn roles(&self) -> Roles<'_> {
        [(Role::Weight, &self.weight, true)]
            .into_iter()
            .chain(self.anchor.as_ref().map(|anchor| (Role::Anchor, anchor, false)))
            .chain([(Role::Grad, &self.grad, false)])
            .chain(self.partner.as_ref().map(|partner| (Role::Partner, partner, true)))
            .chain(state_roles(&self.state))
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

impl Sliced for LeanDescentTensor {
    fn len(&self) -> u64 {
        self.weight.len
    }

    fn roles(&self) -> Roles<'_> {
        [(Role::Weight, &self.weight, true), (Role::GradPerturbed, &self.grad_perturbed, false)]
            .into_iter()
            .chain(self.ran_on.as_ref().map(|ran_on| (Role::Anchor, ran_on, false)))
            .collect()
    }
}
