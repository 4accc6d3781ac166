//! Cuts tensors into chunks and gathers the chunks that can share a dispatch.
//!
//! A dispatch binds one window of one buffer per column. Tensors whose slices lie in the same
//! windows share it, so the number of dispatches grows with distinct buffers, not with tensors.

use super::slices::{COLUMNS, Columns, Slice, chunk};
use crate::layout::Chunk;
use std::collections::HashMap;

/// Elements of a tensor that one workgroup owns. Large enough to keep tables under 1 % of the
/// tensors, small enough that a small model still fills a GPU.
pub(crate) const CHUNK_LEN: u64 = 4096;

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
) -> Vec<Group<V>> {
    let mut groups: Vec<Group<V>> = Vec::new();
    let mut places: HashMap<(V, [Option<Window>; COLUMNS]), usize> = HashMap::new();
    for (variant, len, columns) in tensors {
        let mut position = 0;
        while position < len {
            let windows = columns.map(|slice| slice.map(|slice| limits.window(slice, position)));
            let mut offsets = [0; COLUMNS];
            let mut piece = len - position;
            for ((slice, window), offset) in columns.iter().zip(&windows).zip(&mut offsets) {
                if let (Some(slice), Some(window)) = (slice, window) {
                    let start = slice.offset + 4 * position - window.offset;
                    piece = piece.min((window.size - start) / 4);
                    *offset = start / 4;
                }
            }
            let place = *places.entry((variant, windows)).or_insert_with_key(|(_, windows)| {
                groups.push(Group { variant, windows: windows.clone(), chunks: Vec::new() });
                groups.len() - 1
            });
            push_chunks(&mut groups[place].chunks, piece, offsets);
            position += piece;
        }
    }
    groups
}

fn push_chunks(chunks: &mut Vec<Chunk>, piece: u64, offsets: [u64; COLUMNS]) {
    let mut done = 0;
    while done < piece {
        let len = CHUNK_LEN.min(piece - done);
        // Both fit: a window is at most u32::MAX bytes.
        chunks.push(chunk(len as u32, offsets.map(|offset| (offset + done) as u32)));
        done += len;
    }
}
