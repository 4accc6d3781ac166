//! Cuts tensors into chunks and gathers the chunks that can share a dispatch.
//!
//! A dispatch binds one window of one buffer per column. Tensors whose slices lie in the same
//! windows share it, so the number of dispatches grows with distinct buffers, not with tensors.

use super::slices::{COLUMNS, Columns, Slice, chunk};
use crate::layout::{Chunk, Width};
use std::collections::HashMap;

/// A range of a buffer that a dispatch binds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Window {
    pub(crate) buffer: wgpu::Buffer,
    pub(crate) offset: u64,
    pub(crate) size: u64,
}

/// Work of one dispatch.
#[derive(Debug)]
pub(crate) struct Group<V> {
    /// What distinguishes this group's pipeline or uniforms.
    pub(crate) variant: V,
    pub(crate) width: Width,
    pub(crate) windows: [Option<Window>; COLUMNS],
    pub(crate) chunks: Vec<Chunk>,
}

/// Limits that shape windows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WindowLimits {
    pub(crate) max_binding: u64,
    pub(crate) alignment: u64,
}

impl WindowLimits {
    /// The window of `slice` that holds its element `position`.
    fn window(&self, slice: &Slice, position: u64) -> Window {
        // Offsets in the chunk table are 32-bit element counts.
        let longest = self.max_binding.min(u64::from(u32::MAX));
        let stride = longest - longest % self.alignment;
        let size = slice.buffer.size();
        let offset = if size <= longest {
            0
        } else {
            let byte = slice.offset + 4 * position;
            byte - byte % stride
        };
        let bound = if size <= longest { size } else { stride.min(size - offset) };
        // A binding's size is a multiple of 4; a buffer's need not be.
        Window { buffer: slice.buffer.clone(), offset, size: bound - bound % 4 }
    }
}

/// Cuts `tensors` into groups, in the order in which their windows first appear. Within a group,
/// chunks follow the order of the tensors.
// wgpu hashes and compares a buffer by its identity, which nothing mutates.
#[allow(clippy::mutable_key_type)]
pub(crate) fn cut<'a, V: Copy + Eq + std::hash::Hash>(
    tensors: impl Iterator<Item = (V, u64, Columns<'a>)>,
    limits: WindowLimits,
    chunk_len: u64,
) -> Vec<Group<V>> {
    let mut groups: Vec<Group<V>> = Vec::new();
    let mut places: HashMap<(V, Width, [Option<Window>; COLUMNS]), usize> = HashMap::new();
    for (variant, len, columns) in tensors {
        let mut position = 0;
        while position < len {
            let windows = columns.map(|slice| slice.map(|slice| limits.window(slice, position)));
            let (offsets, piece, width) = piece(&columns, &windows, position, len);
            let key = (variant, width, windows);
            let place = *places.entry(key).or_insert_with_key(|(_, _, windows)| {
                let (windows, chunks) = (windows.clone(), Vec::new());
                groups.push(Group { variant, width, windows, chunks });
                groups.len() - 1
            });
            push_chunks(&mut groups[place].chunks, piece, offsets, chunk_len);
            position += piece;
        }
    }
    groups
}

/// Offsets in the windows, and how many elements from `position` on can be taken at which width.
fn piece(
    columns: &Columns<'_>,
    windows: &[Option<Window>; COLUMNS],
    position: u64,
    len: u64,
) -> ([u64; COLUMNS], u64, Width) {
    let mut offsets = [0; COLUMNS];
    let mut in_windows = len - position;
    // Elements that whole vectors cover: a binding's last vector may be cut short by its end.
    let mut in_vectors = u64::MAX;
    for ((slice, window), offset) in columns.iter().zip(windows).zip(&mut offsets) {
        if let (Some(slice), Some(window)) = (slice, window) {
            *offset = (slice.offset + 4 * position - window.offset) / 4;
            in_windows = in_windows.min(window.size / 4 - *offset);
            in_vectors = in_vectors.min((window.size / 16 * 4).saturating_sub(*offset));
        }
    }
    let aligned = offsets.iter().all(|offset| offset.is_multiple_of(4));
    if aligned && in_vectors > 0 {
        (offsets, in_windows.min(in_vectors), Width::Wide)
    } else {
        (offsets, in_windows, Width::Narrow)
    }
}

fn push_chunks(chunks: &mut Vec<Chunk>, piece: u64, offsets: [u64; COLUMNS], chunk_len: u64) {
    let mut done = 0;
    while done < piece {
        let len = chunk_len.min(piece - done);
        // Both fit: a window is at most u32::MAX bytes.
        chunks.push(chunk(len as u32, offsets.map(|offset| (offset + done) as u32)));
        done += len;
    }
}
