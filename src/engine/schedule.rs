//! Puts frames together into dispatches, as many as the device's limits let one dispatch bind.
//!
//! Each frame has bindings of its own for the columns that vary, and code of its own in the shader
//! (`layout/frames.rs`). Choosing a buffer at each access instead costs a software adapter a third of
//! its rate: `benches/README.md`.

use super::chunking::{FrameChunks, Windows};
use crate::layout::{COLUMNS, Chunk, Frames, Width};

/// Work of one dispatch.
#[derive(Debug)]
pub(crate) struct Dispatch {
    /// Page of the table of constants.
    pub(crate) page: usize,
    pub(crate) width: Width,
    pub(crate) frames: Frames,
    /// By frame.
    pub(crate) windows: Vec<Windows>,
    pub(crate) chunks: Vec<Chunk>,
}

/// What one dispatch can hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Capacity {
    /// Storage buffers beyond those of a single frame.
    pub(crate) spare_buffers: u32,
    pub(crate) max_frames: u32,
    /// Workgroups, one for each chunk.
    pub(crate) max_chunks: u64,
}

/// Groups in dispatches. Groups of one page and width share as few as the capacity allows.
pub(crate) fn pack(
    groups: Vec<FrameChunks>,
    capacity: impl Fn(Width) -> Capacity,
) -> Vec<Dispatch> {
    let mut kinds: Vec<Vec<FrameChunks>> = Vec::new();
    for group in groups {
        let like = |kind: &&mut Vec<FrameChunks>| {
            kind.first().is_some_and(|f| (f.page, f.width) == (group.page, group.width))
        };
        match kinds.iter_mut().find(like) {
            Some(kind) => kind.push(group),
            None => kinds.push(vec![group]),
        }
    }
    let mut dispatches = Vec::new();
    for mut kind in kinds {
        let varying = varying(&kind);
        let capacity = capacity(kind[0].width);
        let room = capacity.spare_buffers.checked_div(varying.count_ones()).unwrap_or(0);
        let most = (1 + room).min(capacity.max_frames) as usize;
        while !kind.is_empty() {
            let rest = kind.split_off(most.min(kind.len()));
            split(join(kind, varying, most), capacity.max_chunks, &mut dispatches);
            kind = rest;
        }
    }
    dispatches
}

/// Columns that are not the same window in all groups, as bits.
fn varying(groups: &[FrameChunks]) -> u8 {
    let differs = |column: usize| {
        groups.iter().any(|group| group.windows[column] != groups[0].windows[column])
    };
    (0..COLUMNS).filter(|column| differs(*column)).map(|column| 1 << column).sum()
}

/// One dispatch of at most `most` frames. Counts above four come in fours, so that a model whose
/// gradients wander over more or fewer buffers does not compile a shader for each count.
fn join(groups: Vec<FrameChunks>, varying: u8, most: usize) -> Dispatch {
    let (page, width) = (groups[0].page, groups[0].width);
    let count = match groups.len() {
        few @ 0..=4 => few,
        many => many.next_multiple_of(4).min(most),
    };
    let frames = match count {
        1 => Frames::SINGLE,
        count => Frames { count: count as u32, varying },
    };
    let mut windows = Vec::with_capacity(count);
    let mut chunks = Vec::with_capacity(groups.iter().map(|group| group.chunks.len()).sum());
    for (frame, group) in (0..).zip(groups) {
        windows.push(group.windows);
        chunks.extend(group.chunks.into_iter().map(|chunk| Chunk { frame, ..chunk }));
    }
    // Frames without chunks: bound, never touched.
    windows.resize(count, windows[0].clone());
    Dispatch { page, width, frames, windows, chunks }
}

/// Several dispatches where the grid cannot hold all workgroups.
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
