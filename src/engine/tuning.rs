//! How work is cut: the numbers that depend on the adapter, in one place.

use super::error::EngineError;
use crate::layout::WORKGROUPS;

/// A shader has code for each frame, and bindings.
pub(crate) const MOST_FRAMES: u32 = 16;

/// The longest chunk: far more is no use, and the kernels count elements in 32 bits.
const LONGEST: u32 = 1 << 24;

/// Sizes of workgroups, chunks and dispatches. They change speed, not results beyond the order of
/// the norm's sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Invocations in a workgroup: one of [`WORKGROUPS`].
    pub workgroup: u32,
    /// Elements that one workgroup of an ascent or descent owns, a multiple of 4. Large enough to
    /// keep chunk tables small beside the tensors, small enough that a small model fills the
    /// adapter.
    pub chunk_len: u32,
    /// The most elements that one workgroup of a norm owns, a multiple of `chunk_len`. It owns as
    /// many as leave about a thousand workgroups.
    pub max_norm_chunk_len: u32,
    /// Norms keep a partial sum for each invocation, in place of one for each workgroup: more bytes,
    /// no barriers. Only where chunks are long enough for those bytes to stay under a hundredth.
    pub partials_by_lane: bool,
    /// The most frames, sets of distinct buffers, that a dispatch reaches: 1 to 16. The device's
    /// `max_storage_buffers_per_shader_stage` may allow fewer.
    pub max_frames: u32,
}

impl Tuning {
    /// What suits an adapter.
    ///
    /// On a CPU a workgroup runs as a loop over SIMD vectors of invocations. A workgroup of one vector
    /// reads each buffer from front to back, as a CPU's prefetchers want it; one of more goes through
    /// a chunk once for each vector, in strides. And a barrier there suspends a coroutine. Measured
    /// with lavapipe on two cores: `benches/README.md`. The values for other adapters are unmeasured.
    pub fn for_adapter(info: &wgpu::AdapterInfo) -> Self {
        match info.device_type {
            wgpu::DeviceType::Cpu => Self {
                workgroup: 8,
                chunk_len: 1 << 14,
                max_norm_chunk_len: 1 << 14,
                partials_by_lane: true,
                max_frames: MOST_FRAMES,
            },
            _ => Self {
                workgroup: 256,
                chunk_len: 4096,
                max_norm_chunk_len: 1 << 16,
                partials_by_lane: false,
                max_frames: MOST_FRAMES,
            },
        }
    }

    pub(crate) fn check(&self) -> Result<(), EngineError> {
        let wrong = |name, value: u32, expected| {
            Err(EngineError::Tuning { name, value: u64::from(value), expected })
        };
        if !WORKGROUPS.contains(&self.workgroup) {
            return wrong("workgroup", self.workgroup, "one of layout::WORKGROUPS");
        }
        let fits = |value: u32, unit| (1..=LONGEST).contains(&value) && value.is_multiple_of(unit);
        if !fits(self.chunk_len, 4) {
            return wrong("chunk_len", self.chunk_len, "a multiple of 4 in 4..=2^24");
        }
        if !fits(self.max_norm_chunk_len, self.chunk_len) {
            let expected = "a multiple of chunk_len up to 2^24";
            return wrong("max_norm_chunk_len", self.max_norm_chunk_len, expected);
        }
        if !(1..=MOST_FRAMES).contains(&self.max_frames) {
            return wrong("max_frames", self.max_frames, "in 1..=16");
        }
        Ok(())
    }

    /// Elements that one workgroup of a norm over so many elements owns.
    pub(crate) fn norm_chunk_len(&self, elements: u64) -> u64 {
        let least = u64::from(self.chunk_len);
        (elements / 1024).next_multiple_of(least).clamp(least, u64::from(self.max_norm_chunk_len))
    }
}
