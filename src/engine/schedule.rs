//! Packing of frames into dispatches, as many to a dispatch as the device's limits allow.
//!
//! Each frame has separate bindings for the columns that vary, and separate code in the shader
//! (`layout/frames.rs`). Selecting the buffer at each access instead costs a software adapter a third of
//! its throughput (`benches/README.md`).

use super::chunking::{FrameChunks, Windows};
use crate::layout::{COLUMNS, Chunk, Frames, Width};

/// One dispatch: its frames and chunks.
#[derive(Debug)]
pub(crate) struct Dispatch {
    /// Page of the table of constants.
    pub(crate) page: usize,
    pub(crate) width: Width,
    pub(crate) frames: Frames,
    /// Indexed by frame.
    pub(crate) windows: Vec<Windows>,
    pub(crate) chunks: Vec<Chunk>,
}

/// Limits of one dispatch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Capacity {
    /// Storage buffers that may be bound in addition to those of a single frame.
    pub(crate) spare_buffers: u32,
    pub(crate) max_frames: u32,
    /// Largest number of chunks, each of which takes one workgroup.
    pub(crate) max_chunks: u64,
}

/// Packs frames into dispatches. Frames of the same page and width share as few dispatches as the capacity
/// allows.
pub(crate) fn pack(
    frames: Vec<FrameChunks>,
    capacity: impl Fn(Width) -> Capacity,
) -> Vec<Dispatch> {
    let mut batches: Vec<Vec<FrameChunks>> = Vec::new();
    for frame in frames {
        let fits = |batch: &&mut Vec<FrameChunks>| {
            batch.first().is_some_and(|f| (f.page, f.width) == (frame.page, frame.width))
        };
        match batches.iter_mut().find(fits) {
            Some(batch) => batch.push(frame),
            None => batches.push(vec![frame]),
        }
    }
    let mut dispatches = Vec::new();
    for mut batch in batches {
        let varying = varying(&batch);
        let capacity = capacity(batch[0].width);
        let extra_frames = capacity.spare_buffers.checked_div(varying.count_ones()).unwrap_or(0);
        let most = (1 + extra_frames).min(capacity.max_frames) as usize;
        while !batch.is_empty() {
            let rest = batch.split_off(most.min(batch.len()));
            split(join(batch, varying, most), capacity.max_chunks, &mut dispatches);
            batch = rest;
        }
    }
    dispatches
}

/// Returns the columns whose windows differ between frames, as bits.
fn varying(frames: &[FrameChunks]) -> u8 {
    let differs = |column: usize| {
        frames.iter().any(|frame| frame.windows[column] != frames[0].windows[column])
    };
    (0..COLUMNS).filter(|column| differs(*column)).map(|column| 1 << column).sum()
}

/// Joins frames into one dispatch of at most `most` frames.
///
/// A count above four is rounded up to a multiple of four. Otherwise a model whose gradients move between a
/// varying number of buffers would compile a shader for each count.
fn join(frame_chunks: Vec<FrameChunks>, varying: u8, most: usize) -> Dispatch {
    let (page, width) = (frame_chunks[0].page, frame_chunks[0].width);
    let count = match frame_chunks.len() {
        few @ 0..=4 => few,
        many => many.next_multiple_of(4).min(most),
    };
    let frames = match count {
        1 => Frames::SINGLE,
        count => Frames { count: count as u32, varying },
    };
    let mut windows = Vec::with_capacity(count);
    let mut chunks = Vec::with_capacity(frame_chunks.iter().map(|frame| frame.chunks.len()).sum());
    for (index, frame) in (0..).zip(frame_chunks) {
        windows.push(frame.windows);
        chunks.extend(frame.chunks.into_iter().map(|chunk| Chunk { frame: index, ..chunk }));
    }
    // The added frames have no chunks: their buffers are bound but not accessed.
    windows.resize(count, windows[0].clone());
    Dispatch { page, width, frames, windows, chunks }
}

/// Appends `dispatch` to `out`, split into several if it has more than `max_chunks` chunks.
fn split(dispatch: Dispatch, max_chunks: u64, out: &mut Vec<Dispatch>) {
    if dispatch.chunks.len() as u64 <= max_chunks {
        return out.push(dispatch);
    }
    let Dispatch { page, width, frames, windows, chunks } = dispatch;
    out.extend(chunks.chunks(max_chunks as usize).map(|part| Dispatch {
        page,
        width,
        frames,
        windows: windows.clone(),
        chunks: part.to_vec(),
    }));
}
