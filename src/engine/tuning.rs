//! How work is cut: the numbers that depend on the adapter, in one place.

use super::error::EngineError;
use crate::layout::WORKGROUPS;

/// A shader has code for each frame, and bindings.
pub(crate) const MAX_FRAMES: u32 = 16;

/// The longest chunk: far more is no use, and the kernels count elements in 32 bits.
const MAX_CHUNK_LEN: u32 = 1 << 24;

/// Rounds that the loops of one invocation may take, all of them together.
///
/// llvmpipe counts the rounds of every loop that an invocation runs through in one counter, the last look at
/// a loop's condition too, and leaves the rest of the work undone when it has counted
/// `LP_MAX_TGSI_LOOP_ITERATIONS` of Mesa, silently. The kernels' loops, in the words of the shaders:
///
/// | Kernel | Loops | Rounds at most |
/// | --- | --- | --- |
/// | `ascent`, `check` | over a chunk, for each frame | `n + frames` |
/// | `descent`, `lean_ascent`, `lean_descent` | two over a chunk, of which one is empty, for each frame | `n + 2 frames` |
/// | `norm` | over a chunk by four vectors, by single ones, and again for squares that leave the range, for each frame; the sums of up to two norms over the workgroup | `n + n / 4 + 3 + 3 frames + 2 sums` |
/// | `norm_finish` | over partial sums, in links, and the sum over the workgroup, for up to two norms | [`finish_rounds`] |
///
/// `n` is the vectors of a chunk that one invocation goes through, `len / (4 workgroup)`, and `frames` at most
/// [`Tuning::max_frames`]. The norm's row is the largest: [`Tuning::longest_chunk`] is where it ends.
pub(crate) const MAX_LOOP_ROUNDS: u64 = 65_535;

/// Partial sums in a link of `norm_finish`: `LINK` in `norm.wgsl`.
const LINK: u64 = 128;

/// Rounds of the sum over a workgroup, in both of its levels.
fn workgroup_sum_rounds(workgroup: u32) -> u64 {
    (u64::from(workgroup) / 8 + 1) + (8 + 1)
}

/// Rounds of `norm_finish` over so many partial sums of each of `norms` norms.
pub(crate) fn finish_rounds(workgroup: u32, partials: u64, norms: u64) -> u64 {
    let each = partials.div_ceil(u64::from(workgroup));
    let links = each.div_ceil(LINK);
    // A link's loop ends once more than it has partials, and so does the loop over links.
    let stretch = (each + links) + (links + 1);
    // The last loop writes up to three fields.
    norms * (stretch + workgroup_sum_rounds(workgroup)) + 4
}

/// Sizes of workgroups, chunks and dispatches. They change speed, not results beyond the order of
/// the norm's sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Invocations in a workgroup: one of [`WORKGROUPS`].
    pub workgroup: u32,
    /// Elements that one workgroup of an ascent or descent owns, a multiple of 4. Large enough to
    /// keep chunk tables small beside the tensors, small enough that a small model fills the
    /// adapter; at most [`longest_chunk`](Self::longest_chunk).
    pub chunk_len: u32,
    /// The most elements that one workgroup of a norm owns, a multiple of `chunk_len` and at most
    /// [`longest_chunk`](Self::longest_chunk). It owns as many as leave about a thousand workgroups, and more
    /// where the partial sums would be more than one finish can add up.
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
                max_frames: MAX_FRAMES,
            },
            _ => Self {
                workgroup: 256,
                chunk_len: 4096,
                max_norm_chunk_len: 1 << 16,
                partials_by_lane: false,
                max_frames: MAX_FRAMES,
            },
        }
    }

    pub(crate) fn check(&self) -> Result<(), EngineError> {
        let wrong = |name, value: u32, expected: &str| {
            let (value, expected) = (u64::from(value), expected.to_owned());
            Err(EngineError::Tuning { name, value, expected })
        };
        if !WORKGROUPS.contains(&self.workgroup) {
            return wrong("workgroup", self.workgroup, "one of layout::WORKGROUPS");
        }
        let fits =
            |value: u32, unit| (1..=MAX_CHUNK_LEN).contains(&value) && value.is_multiple_of(unit);
        if !fits(self.chunk_len, 4) {
            return wrong("chunk_len", self.chunk_len, "a multiple of 4 in 4..=2^24");
        }
        if !fits(self.max_norm_chunk_len, self.chunk_len) {
            let expected = "a multiple of chunk_len up to 2^24";
            return wrong("max_norm_chunk_len", self.max_norm_chunk_len, expected);
        }
        if !(1..=MAX_FRAMES).contains(&self.max_frames) {
            return wrong("max_frames", self.max_frames, "in 1..=16");
        }
        let longest = self.longest_chunk();
        let lens = [("chunk_len", self.chunk_len), ("max_norm_chunk_len", self.max_norm_chunk_len)];
        for (name, len) in lens {
            if len > longest {
                let most = format!(
                    "at most {longest} with workgroups of {}, or a loop takes more than {MAX_LOOP_ROUNDS} rounds",
                    self.workgroup
                );
                return wrong(name, len, &most);
            }
        }
        Ok(())
    }

    /// Elements of the longest chunk whose loops stay within 65,535 rounds, in every kernel: what
    /// [`chunk_len`](Self::chunk_len) and [`max_norm_chunk_len`](Self::max_norm_chunk_len) may be at most with
    /// this [`workgroup`](Self::workgroup) and [`max_frames`](Self::max_frames).
    pub fn longest_chunk(&self) -> u32 {
        let fixed = 3 + 3 * u64::from(self.max_frames) + 2 * workgroup_sum_rounds(self.workgroup);
        let vectors = MAX_LOOP_ROUNDS.saturating_sub(fixed) * 4 / 5;
        let elements = 4 * u64::from(self.workgroup) * vectors;
        elements.min(u64::from(MAX_CHUNK_LEN)) as u32
    }

    /// Elements that one workgroup of a norm over so many elements owns.
    pub(crate) fn norm_chunk_len(&self, elements: u64) -> u64 {
        let least = u64::from(self.chunk_len);
        (elements / 1024).next_multiple_of(least).clamp(least, u64::from(self.max_norm_chunk_len))
    }
}
