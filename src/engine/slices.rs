//! Tensors as the engine sees them: ranges of `f32` elements in storage buffers.

use super::error::{EngineError, Role};
use crate::layout::Chunk;
use std::collections::HashMap;

/// `len` elements of `f32` in `buffer`, starting `offset` bytes in. Cloning clones a handle.
#[derive(Clone, Debug)]
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

/// Slices of one tensor by their column in the chunk table.
pub(crate) type Columns<'a> = [Option<&'a Slice>; COLUMNS];

/// Columns of [`Chunk`] that hold offsets.
pub(crate) const COLUMNS: usize = 7;

/// Places of the columns, in the order of [`Chunk`]'s fields.
pub(crate) mod column {
    pub(crate) const WEIGHT: usize = 0;
    pub(crate) const GRAD: usize = 1;
    pub(crate) const GRAD_PERTURBED: usize = 2;
    pub(crate) const PARTNER: usize = 3;
    pub(crate) const STATE: usize = 4;
}

pub(crate) fn chunk(len: u32, offsets: [u32; COLUMNS]) -> Chunk {
    let [weight, grad, grad_perturbed, partner, state_0, state_1, state_2] = offsets;
    Chunk { len, weight, grad, grad_perturbed, partner, state_0, state_1, state_2 }
}

impl AscentTensor {
    pub(crate) fn columns(&self) -> Columns<'_> {
        let mut columns = [None; COLUMNS];
        columns[column::WEIGHT] = Some(&self.weight);
        columns[column::GRAD] = Some(&self.grad);
        columns[column::PARTNER] = Some(&self.partner);
        columns
    }

    fn roles(&self, placement: Placement) -> impl Iterator<Item = (Role, &Slice, bool)> {
        [
            (Role::Weight, &self.weight, placement == Placement::InPlace),
            (Role::Grad, &self.grad, false),
            (Role::Partner, &self.partner, true),
        ]
        .into_iter()
    }
}

impl DescentTensor {
    pub(crate) fn columns(&self) -> Columns<'_> {
        let mut columns = [None; COLUMNS];
        columns[column::WEIGHT] = Some(&self.weight);
        columns[column::GRAD] = Some(&self.grad);
        columns[column::GRAD_PERTURBED] = Some(&self.grad_perturbed);
        columns[column::PARTNER] = self.anchor.as_ref();
        for (place, state) in columns[column::STATE..].iter_mut().zip(&self.state) {
            *place = Some(state);
        }
        columns
    }

    fn roles(&self) -> impl Iterator<Item = (Role, &Slice, bool)> {
        let states = self.state.iter().zip(0..).map(|(slice, i)| (Role::State(i), slice, true));
        [(Role::Weight, &self.weight, true)]
            .into_iter()
            .chain(self.anchor.as_ref().map(|anchor| (Role::Anchor, anchor, false)))
            .chain([
                (Role::Grad, &self.grad, false),
                (Role::GradPerturbed, &self.grad_perturbed, false),
            ])
            .chain(states)
    }
}

/// Checks an ascent's tensors before anything is recorded.
pub(crate) fn check_ascent(
    tensors: &[AscentTensor],
    placement: Placement,
) -> Result<(), EngineError> {
    check(tensors.iter().map(|tensor| (tensor.weight.len, tensor.roles(placement))))
}

/// Checks a descent's tensors before anything is recorded.
pub(crate) fn check_descent(tensors: &[DescentTensor], states: usize) -> Result<(), EngineError> {
    for (index, tensor) in tensors.iter().enumerate() {
        if tensor.state.len() != states {
            return Err(EngineError::StateCount {
                tensor: index,
                found: tensor.state.len(),
                expected: states,
            });
        }
        if tensor.step == 0 {
            return Err(EngineError::StepZero { tensor: index });
        }
    }
    check(tensors.iter().map(|tensor| (tensor.weight.len, tensor.roles())))
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
fn check<'a, R>(tensors: impl Iterator<Item = (u64, R)>) -> Result<(), EngineError>
where
    R: Iterator<Item = (Role, &'a Slice, bool)>,
{
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
