//! Cutting of tensors into chunks, grouped by the buffers that hold them.
//!
//! A buffer set is a set of buffer windows, one for each column. Tensors whose slices lie in the same windows
//! share a buffer set, so the number of sets grows with the number of distinct buffers, not of tensors.
//! `schedule.rs` then packs buffer sets into dispatches.

use super::rows::TensorRow;
use super::slice::{Columns, Slice, packed_width};
use crate::layout::{COLUMNS, Chunk, PARAM_CLASSES, Width};
use std::collections::HashMap;

/// A range of a buffer that a dispatch binds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Window {
    pub(crate) buffer: wgpu::Buffer,
    pub(crate) offset: u64,
    pub(crate) size: u64,
}

/// The windows of a buffer set, one for each column in use.
pub(crate) type Windows = [Option<Window>; COLUMNS];

/// The chunks of one buffer set.
#[derive(Clone, Debug)]
pub(crate) struct SetChunks {
    /// Page of the table of constants that holds its tensors' parameter classes.
    pub(crate) page: usize,
    pub(crate) width: Width,
    pub(crate) windows: Windows,
    pub(crate) chunks: Vec<Chunk>,
}

/// Device limits on the size and the alignment of a window, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WindowLimits {
    pub(crate) max_binding: u64,
    pub(crate) alignment: u64,
}

impl WindowLimits {
    /// Returns the window of the slice's buffer that holds the slice's element `position`.
    fn window(&self, slice: &Slice, position: u64) -> Window {
        // Offsets in the chunk table are 32-bit element counts.
        let longest = self.max_binding.min(u64::from(u32::MAX));
        let stride = longest - longest % self.alignment;
        let size = slice.buffer.size();
        let offset = if size <= longest {
            0
        } else {
            let byte = slice.offset + slice.format.bytes() * position;
            byte - byte % stride
        };
        let bound = if size <= longest { size } else { stride.min(size - offset) };
        // WebGPU requires the size of a storage binding to be a multiple of 4.
        Window { buffer: slice.buffer.clone(), offset, size: bound - bound % 4 }
    }
}

/// Tensors, cut into chunks.
#[derive(Debug)]
pub(crate) struct ChunkedTensors {
    pub(crate) buffer_sets: Vec<SetChunks>,
    /// For each tensor, the number of chunks up to and including its last.
    pub(crate) ends: Vec<u32>,
}

/// Cuts tensors into chunks of at most `chunk_len` elements and groups these by buffer set, page and width.
///
/// Buffer sets are in the order in which their windows first appear. Chunks are in the order of the tensors
/// within a buffer set, and numbered in the order of the tensors over all buffer sets.
// wgpu hashes and compares a buffer by its identity, which nothing mutates.
#[allow(clippy::mutable_key_type)]
pub(crate) fn chunk_tensors<'a>(
    tensors: impl Iterator<Item = TensorRow<'a>>,
    limits: WindowLimits,
    chunk_len: u64,
) -> ChunkedTensors {
    let mut buffer_sets: Vec<SetChunks> = Vec::new();
    let mut places: HashMap<(usize, Width, Windows), usize> = HashMap::new();
    let mut ends = Vec::new();
    let mut count = 0;
    let mut before = 0u64;
    for TensorRow { param_class, len, columns, .. } in tensors {
        let (page, param_class) = (param_class / PARAM_CLASSES, param_class % PARAM_CLASSES);
        let mut position = 0;
        while position < len {
            let windows = columns.map(|slice| slice.map(|slice| limits.window(slice, position)));
            let (offsets, piece, width) = piece(&columns, &windows, position, len);
            let same = |buffer_set: &SetChunks| {
                (buffer_set.page, buffer_set.width) == (page, width)
                    && buffer_set.windows == windows
            };
            // Checked first, because consecutive tensors usually share their windows.
            let place = match buffer_sets.last() {
                Some(last) if same(last) => buffer_sets.len() - 1,
                _ => {
                    let next = buffer_sets.len();
                    let place = *places.entry((page, width, windows.clone())).or_insert(next);
                    if place == next {
                        buffer_sets.push(SetChunks { page, width, windows, chunks: Vec::new() });
                    }
                    place
                }
            };
            let mut done = 0;
            while done < piece {
                let len = chunk_len.min(piece - done);
                // Offsets fit in u32: a window has at most u32::MAX bytes.
                let offsets = offsets.map(|offset| (offset + done) as u32);
                let at = (before + position + done) as u32;
                let chunk = Chunk::new(len as u32, count, param_class as u32, at, offsets);
                buffer_sets[place].chunks.push(chunk);
                count += 1;
                done += len;
            }
            position += piece;
        }
        before = before.wrapping_add(len.next_multiple_of(4));
        ends.push(count);
    }
    ChunkedTensors { buffer_sets, ends }
}

/// Returns the offsets of element `position` within the windows, the number of elements from there on that
/// one buffer set can cover, and the width at which they are accessed.
fn piece(
    columns: &Columns<'_>,
    windows: &Windows,
    position: u64,
    len: u64,
) -> ([u64; COLUMNS], u64, Width) {
    let mut offsets = [0; COLUMNS];
    let packed = packed_width(columns);
    let mut in_windows = len - position;
    // Elements in whole vectors of four: the end of a binding may cut off its last vector.
    let mut in_vectors = u64::MAX;
    for ((slice, window), offset) in columns.iter().zip(windows).zip(&mut offsets) {
        if let (Some(slice), Some(window)) = (slice, window) {
            let bytes = slice.format.bytes();
            *offset = (slice.offset + bytes * position - window.offset) / bytes;
            in_windows = in_windows.min(window.size / bytes - *offset);
            in_vectors = in_vectors.min((window.size / bytes / 4 * 4).saturating_sub(*offset));
        }
    }
    if let Some(width) = packed {
        // `check_slice` has checked the alignment, and that the last vector ends inside the buffer.
        return (offsets, in_windows, width);
    }
    let aligned = offsets.iter().all(|offset| offset.is_multiple_of(4));
    if aligned && in_vectors > 0 {
        (offsets, in_windows.min(in_vectors), Width::Wide)
    } else {
        (offsets, in_windows, Width::Narrow)
    }
}
