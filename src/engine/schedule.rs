//! Packing of buffer sets into dispatches, as many to a dispatch as the device's limits allow.
//!
//! Each buffer set has separate bindings for the columns that vary, and separate code in the shader
//! (`layout/buffer_sets.rs`). Selecting the buffer at each access instead costs a software adapter a third of
//! its throughput (`benches/README.md`).

use super::chunking::{SetChunks, Windows};
use crate::layout::{BufferSets, COLUMNS, Chunk, Width};

/// One dispatch: its buffer sets and chunks.
#[derive(Debug)]
pub(crate) struct Dispatch {
    /// Page of the table of constants.
    pub(crate) page: usize,
    pub(crate) width: Width,
    pub(crate) buffer_sets: BufferSets,
    /// Indexed by buffer set.
    pub(crate) windows: Vec<Windows>,
    pub(crate) chunks: Vec<Chunk>,
}

/// Limits of one dispatch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Capacity {
    /// Storage buffers that may be bound in addition to those of a single buffer set.
    pub(crate) spare_buffers: u32,
    pub(crate) max_buffer_sets: u32,
    /// Largest number of chunks, each of which takes one workgroup.
    pub(crate) max_chunks: u64,
}

/// Packs buffer sets into dispatches. Sets of the same page and width share as few dispatches as the capacity
/// allows.
pub(crate) fn pack(
    buffer_sets: Vec<SetChunks>,
    capacity: impl Fn(Width) -> Capacity,
) -> Vec<Dispatch> {
    let mut batches: Vec<Vec<SetChunks>> = Vec::new();
    for buffer_set in buffer_sets {
        let fits = |batch: &&mut Vec<SetChunks>| {
            batch.first().is_some_and(|f| (f.page, f.width) == (buffer_set.page, buffer_set.width))
        };
        match batches.iter_mut().find(fits) {
            Some(batch) => batch.push(buffer_set),
            None => batches.push(vec![buffer_set]),
        }
    }
    let mut dispatches = Vec::new();
    for mut batch in batches {
        let varying = varying(&batch);
        let capacity = capacity(batch[0].width);
        let extra_sets = capacity.spare_buffers.checked_div(varying.count_ones()).unwrap_or(0);
        let most = (1 + extra_sets).min(capacity.max_buffer_sets) as usize;
        while !batch.is_empty() {
            let rest = batch.split_off(most.min(batch.len()));
            split(join(batch, varying, most), capacity.max_chunks, &mut dispatches);
            batch = rest;
        }
    }
    dispatches
}

/// Returns the columns whose windows differ between buffer sets, as bits.
fn varying(buffer_sets: &[SetChunks]) -> u8 {
    let differs = |column: usize| {
        buffer_sets
            .iter()
            .any(|buffer_set| buffer_set.windows[column] != buffer_sets[0].windows[column])
    };
    (0..COLUMNS).filter(|column| differs(*column)).map(|column| 1 << column).sum()
}

/// Joins buffer sets into one dispatch of at most `most` buffer sets.
///
/// A count above four is rounded up to a multiple of four. Otherwise a model whose gradients move between a
/// varying number of buffers would compile a shader for each count.
fn join(frame_chunks: Vec<SetChunks>, varying: u8, most: usize) -> Dispatch {
    let (page, width) = (frame_chunks[0].page, frame_chunks[0].width);
    let count = match frame_chunks.len() {
        few @ 0..=4 => few,
        many => many.next_multiple_of(4).min(most),
    };
    let buffer_sets = match count {
        1 => BufferSets::SINGLE,
        count => BufferSets { count: count as u32, varying },
    };
    let mut windows = Vec::with_capacity(count);
    let mut chunks =
        Vec::with_capacity(frame_chunks.iter().map(|buffer_set| buffer_set.chunks.len()).sum());
    for (index, buffer_set) in (0..).zip(frame_chunks) {
        windows.push(buffer_set.windows);
        chunks.extend(
            buffer_set.chunks.into_iter().map(|chunk| Chunk { buffer_set: index, ..chunk }),
        );
    }
    // The added buffer sets have no chunks: their buffers are bound but not accessed.
    windows.resize(count, windows[0].clone());
    Dispatch { page, width, buffer_sets, windows, chunks }
}

/// Appends `dispatch` to `out`, split into several if it has more than `max_chunks` chunks.
fn split(dispatch: Dispatch, max_chunks: u64, out: &mut Vec<Dispatch>) {
    if dispatch.chunks.len() as u64 <= max_chunks {
        return out.push(dispatch);
    }
    let Dispatch { page, width, buffer_sets, windows, chunks } = dispatch;
    out.extend(chunks.chunks(max_chunks as usize).map(|part| Dispatch {
        page,
        width,
        buffer_sets,
        windows: windows.clone(),
        chunks: part.to_vec(),
    }));
}
