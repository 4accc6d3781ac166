//! Checks of slices: lengths, formats, alignment, bounds, usages and overlaps.

use super::columns::{PhaseTensor, SliceUse, SliceUses};
use super::error::EngineError;
use super::slice::{Format, Role, half_format};
use crate::method::{Hyperparameters, Method};
use std::collections::HashMap;

/// Checks that the method is WSAM, for a call that supports no other. `reason` says why, and what to do.
pub(super) fn check_wsam(
    hyper: &Hyperparameters,
    call: &'static str,
    reason: &'static str,
) -> Result<(), EngineError> {
    match hyper.method {
        Method::Wsam => Ok(()),
        method => Err(EngineError::Method { method: method.name(), call, reason }),
    }
}

/// Checks the slices of a phase.
pub(crate) fn check_slices<T: PhaseTensor>(tensors: &[T]) -> Result<(), EngineError> {
    check(tensors.iter().map(|tensor| (tensor.len(), tensor.slice_uses())))
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
fn check<'a>(tensors: impl Iterator<Item = (u64, SliceUses<'a>)>) -> Result<(), EngineError> {
    let mut by_buffer: HashMap<&wgpu::Buffer, Vec<Range>> = HashMap::new();
    for (tensor, (weight_len, roles)) in tensors.enumerate() {
        // The tensor's format is half precision if any slice's is. Master weights and states are f32.
        let format = half_format(roles.iter().map(|one| one.slice)).unwrap_or_default();
        for one in roles {
            let SliceUse { role, slice, written } = one;
            let end = check_slice(tensor, one, weight_len, format)?;
            if slice.len > 0 {
                let range = Range { start: slice.offset, end, written, tensor, role };
                by_buffer.entry(&slice.buffer).or_default().push(range);
            }
        }
    }
    by_buffer.into_values().try_for_each(check_overlaps)
}

/// Checks one slice of a tensor of this `format`, and returns the byte where it ends.
fn check_slice(
    tensor: usize,
    SliceUse { role, slice, .. }: SliceUse<'_>,
    weight_len: u64,
    format: Format,
) -> Result<u64, EngineError> {
    let (offset, len, size) = (slice.offset, slice.len, slice.buffer.size());
    if len != weight_len {
        return Err(EngineError::Length { tensor, role, len, weight_len });
    }
    let found = slice.format;
    let single = matches!(role, Role::State(_) | Role::MethodState | Role::Master);
    let expected = if single { Format::F32 } else { format };
    if found != expected {
        return Err(EngineError::Format { tensor, role, found, expected });
    }
    // In half precision the kernels access whole vectors of four elements.
    let vector = if format == Format::F32 { 1 } else { 4 };
    let alignment = vector * found.bytes();
    if !offset.is_multiple_of(alignment) {
        return Err(EngineError::Misaligned { tensor, role, offset, alignment });
    }
    let whole = len.checked_next_multiple_of(vector).unwrap_or(u64::MAX);
    let end = whole.saturating_mul(found.bytes()).saturating_add(offset);
    if end > size {
        return Err(EngineError::OutOfBounds { tensor, role, end, size });
    }
    let usage = slice.buffer.usage();
    if !usage.contains(wgpu::BufferUsages::STORAGE) {
        return Err(EngineError::NotStorage { tensor, role, usage });
    }
    Ok(end)
}

/// Checks that no written range overlaps another range. Read ranges may overlap each other.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::Base;

    #[test]
    fn other_methods_are_refused_by_name() {
        let wsam = Hyperparameters::new(Base::Sgd { momentum: None, weight_decay: 0.0 });
        assert_eq!(check_wsam(&wsam, "lean_ascent", "why"), Ok(()));
        let gsam = Hyperparameters { method: Method::Gsam { alpha: 0.4 }, ..wsam };
        let refused = check_wsam(&gsam, "lean_ascent", "why").map_err(|error| error.to_string());
        assert_eq!(refused, Err("lean_ascent does not support GSAM: why".to_owned()));
    }
}
