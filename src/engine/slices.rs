//! Tensors as the engine sees them: ranges of `f32` elements in storage buffers.

use super::error::{EngineError, Role};
use crate::layout::{COLUMNS, column};
use std::collections::HashMap;

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
    /// [`Placement::InPlace`].
    pub partner: Slice,
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
    /// an ascent out of place.
    pub anchor: Option<Slice>,
    /// The gradient `g`, unclipped. Read.
    pub grad: Slice,
    /// The perturbed gradient `g~`. Read.
    pub grad_perturbed: Slice,
    /// State tensors, in the order of [`Base::state_names`](crate::method::Base::state_names).
    /// Read and written; the first step ignores their content.
    pub state: Vec<Slice>,
    /// Which step of this tensor this is, counted from 1.
    pub step: u64,
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
    /// Written with `w + e_w`.
    pub partner: Slice,
    /// State tensors, as in [`DescentTensor::state`].
    pub state: Vec<Slice>,
    /// Which step of this tensor this is, counted from 1.
    pub step: u64,
}

/// One tensor of a lean descent.
#[derive(Clone, Debug)]
pub struct LeanDescentTensor {
    /// The lean ascent's `weight`. Read; written with the new weights.
    pub weight: Slice,
    /// The perturbed gradient `g~`. Read.
    pub grad_perturbed: Slice,
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
    /// Which step of this tensor this is, counted from 1.
    pub step: u64,
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
            (column::PARTNER, Some(&self.partner)),
        ];
        columns(slices, &[])
    }

    fn roles(&self, placement: Placement) -> Roles<'_> {
        vec![
            (Role::Weight, &self.weight, placement == Placement::InPlace),
            (Role::Grad, &self.grad, false),
            (Role::Partner, &self.partner, true),
        ]
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
            (column::PARTNER, Some(&self.partner)),
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
            .chain([(Role::Grad, &self.grad, false), (Role::Partner, &self.partner, true)])
            .chain(state_roles(&self.state))
            .collect()
    }
}

impl LeanDescentTensor {
    pub(crate) fn columns(&self) -> Columns<'_> {
        let slices = [
            (column::WEIGHT, Some(&self.weight)),
            (column::GRAD_PERTURBED, Some(&self.grad_perturbed)),
        ];
        columns(slices, &[])
    }
}

impl Sliced for LeanDescentTensor {
    fn len(&self) -> u64 {
        self.weight.len
    }

    fn roles(&self) -> Roles<'_> {
        vec![(Role::Weight, &self.weight, true), (Role::GradPerturbed, &self.grad_perturbed, false)]
    }
}

/// Checks an ascent's slices before anything is recorded.
pub(crate) fn check_ascent(
    tensors: &[AscentTensor],
    placement: Placement,
) -> Result<(), EngineError> {
    check(tensors.iter().map(|tensor| (tensor.weight.len, tensor.roles(placement))))
}

/// Checks the slices of any other half of a step.
pub(crate) fn check_slices<T: Sliced>(tensors: &[T]) -> Result<(), EngineError> {
    check(tensors.iter().map(|tensor| (tensor.len(), tensor.roles())))
}

/// Sorts tensors into classes of equal step counts: the class of each, and the step of each class.
///
/// # Errors
///
/// For a tensor with the wrong number of states, or at step 0.
pub(crate) fn classes<'a>(
    tensors: impl Iterator<Item = (&'a [Slice], u64)>,
    states: usize,
) -> Result<(Vec<usize>, Vec<u64>), EngineError> {
    let mut steps: Vec<u64> = Vec::new();
    let mut of = Vec::with_capacity(tensors.size_hint().0);
    for (tensor, (state, step)) in tensors.enumerate() {
        if state.len() != states {
            return Err(EngineError::StateCount { tensor, found: state.len(), expected: states });
        }
        if step == 0 {
            return Err(EngineError::StepZero { tensor });
        }
        let known = steps.iter().position(|known| *known == step);
        of.push(known.unwrap_or_else(|| {
            steps.push(step);
            steps.len() - 1
        }));
    }
    Ok((of, steps))
}

struct Range {
    start: u64,
    end: u64,
    written: bool,
    tensor: usize,
    role: Role,
}

// wgpu hashes and compares a buffer by its identity, which nothing mutates.
#[allow(clippy::mutable_key_type)]
fn check<'a>(tensors: impl Iterator<Item = (u64, Roles<'a>)>) -> Result<(), EngineError> {
    let mut by_buffer: HashMap<&wgpu::Buffer, Vec<Range>> = HashMap::new();
    for (tensor, (weight_len, roles)) in tensors.enumerate() {
        for (role, slice, written) in roles {
            let end = check_slice(tensor, role, slice, weight_len)?;
            if slice.len > 0 {
                let range = Range { start: slice.offset, end, written, tensor, role };
                by_buffer.entry(&slice.buffer).or_default().push(range);
            }
        }
    }
    by_buffer.into_values().try_for_each(check_overlaps)
}

fn check_slice(
    tensor: usize,
    role: Role,
    slice: &Slice,
    weight_len: u64,
) -> Result<u64, EngineError> {
    let (offset, len, size) = (slice.offset, slice.len, slice.buffer.size());
    if len != weight_len {
        return Err(EngineError::Length { tensor, role, len, weight_len });
    }
    if !offset.is_multiple_of(4) {
        return Err(EngineError::Misaligned { tensor, role, offset });
    }
    let end = len.saturating_mul(4).saturating_add(offset);
    if end > size {
        return Err(EngineError::OutOfBounds { tensor, role, end, size });
    }
    let usage = slice.buffer.usage();
    if !usage.contains(wgpu::BufferUsages::STORAGE) {
        return Err(EngineError::NotStorage { tensor, role, usage });
    }
    Ok(end)
}

/// Ranges that are only read may overlap; a written one may overlap nothing.
fn check_overlaps(mut ranges: Vec<Range>) -> Result<(), EngineError> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut furthest: Option<&Range> = None;
    let mut furthest_written: Option<&Range> = None;
    for range in &ranges {
        let rival = if range.written { furthest } else { furthest_written };
        if let Some(rival) = rival.filter(|rival| range.start < rival.end) {
            return Err(EngineError::Overlap {
                tensor: range.tensor,
                role: range.role,
                other_tensor: rival.tensor,
                other_role: rival.role,
            });
        }
        let further = |old: Option<&Range>| old.is_none_or(|old| range.end > old.end);
        if further(furthest) {
            furthest = Some(range);
        }
        if range.written && further(furthest_written) {
            furthest_written = Some(range);
        }
    }
    Ok(())
}
