//! Sizes of workgroups, chunks and dispatches, which depend on the adapter.

use super::error::EngineError;
use crate::layout::WORKGROUPS;

/// Largest number of buffer sets in a dispatch. Each buffer set adds code and bindings to the shader.
pub(crate) const MAX_BUFFER_SETS: u32 = 16;

/// Largest chunk length in elements. Longer chunks bring no speed, and the kernels count elements in 32 bits.
const MAX_CHUNK_LEN: u32 = 1 << 24;

/// Largest number of loop iterations of one invocation, summed over all of its loops.
///
/// llvmpipe counts the iterations of all loops of an invocation in one counter, including the final check of
/// each loop's condition. It exits loops silently after 65,535 iterations (`LP_MAX_TGSI_LOOP_ITERATIONS` in
/// Mesa). The kernels' loops, with the shaders' names:
///
/// | Kernel | Loops | Iterations at most |
/// | --- | --- | --- |
/// | `ascent`, `check` | over a chunk, for each buffer set | `n + sets` |
/// | `descent`, `lean_ascent`, `lean_descent` | two over a chunk, one of them empty, for each buffer set | `n + 2 sets` |
/// | `norm` | over a chunk by four vectors, then by single vectors, then again if squares leave the range of f32, for each buffer set; the sums of up to two norms over the workgroup | `n + n / 4 + 3 + 3 sets + 2 sums` |
/// | `norm_and_finish` | those of `norm`, and for each scope those of `norm_finish` | checked for each plan |
/// | `moments` | those of `norm`, with up to three sums | `n + n / 4 + 3 + 3 sets + 3 sums`; its chunks are shorter |
/// | `ascent` with a state, `update` | as `ascent` | `n + sets` |
/// | `method_descent` | as `descent` | `n + 2 sets` |
/// | `coefficients` | as `norm_finish`, for up to four sums | [`finish_iterations`] |
/// | `norm_finish` | over partial sums, in links, and the sum over the workgroup, for up to two norms | [`finish_iterations`] |
///
/// `n` is the number of vectors of a chunk that one invocation processes, `len / (4 workgroup)`. `sets` is at
/// most [`Tuning::max_buffer_sets`]. The bound for `norm` is the largest and determines [`Tuning::longest_chunk`].
pub(crate) const MAX_LOOP_ITERATIONS: u64 = 65_535;

/// Partial sums in a link of `norm_finish`: `LINK` in `sums.wgsl`.
const LINK: u64 = 128;

/// Returns the loop iterations of `workgroup_sum`, over both of its levels.
fn workgroup_sum_iterations(workgroup: u32) -> u64 {
    (u64::from(workgroup) / 8 + 1) + (8 + 1)
}

/// Returns the loop iterations of `norm_finish` over `partials` partial sums for each of `norms` norms.
pub(crate) fn finish_iterations(workgroup: u32, partials: u64, norms: u64) -> u64 {
    let each = partials.div_ceil(u64::from(workgroup));
    let links = each.div_ceil(LINK);
    // Each loop checks its condition once more than it iterates: the loop over a link's partials, and the
    // loop over links.
    let stretch = (each + links) + (links + 1);
    // The last loop writes up to three fields of Norms.
    norms * (stretch + workgroup_sum_iterations(workgroup)) + 4
}

/// Sizes of workgroups, chunks and dispatches. They affect speed, and the results only through the order in
/// which the norm is summed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tuning {
    /// Invocations in a workgroup: one of [`WORKGROUPS`].
    pub workgroup: u32,
    /// Elements that one workgroup of an ascent or descent owns: a multiple of 4, at most
    /// [`longest_chunk`](Self::longest_chunk). Large values keep chunk tables small compared with the tensors;
    /// small values let a small model occupy the whole adapter.
    pub chunk_len: u32,
    /// Largest number of elements that one workgroup of a norm owns: a multiple of `chunk_len`, at most
    /// [`longest_chunk`](Self::longest_chunk). The engine aims at about a thousand workgroups. It exceeds this
    /// maximum only if there would otherwise be more partial sums than one `norm_finish` can add.
    pub max_norm_chunk_len: u32,
    /// Let norms write a partial sum for each invocation instead of each workgroup, which avoids barriers but
    /// moves more bytes. It applies only if these bytes are few compared with the tensors'.
    pub partials_by_lane: bool,
    /// Let the last workgroup of a norm compute the norm from the partial sums, which saves a dispatch. It applies
    /// only on Vulkan, and not together with a partial sum for each invocation.
    pub finish_in_norm: bool,
    /// Largest number of buffer sets in a dispatch, 1 to 16. The device's
    /// `max_storage_buffers_per_shader_stage` may allow fewer.
    pub max_buffer_sets: u32,
}

impl Default for Tuning {
    /// Returns the tuning for a GPU.
    fn default() -> Self {
        Self {
            workgroup: 256,
            chunk_len: 4096,
            max_norm_chunk_len: 1 << 16,
            partials_by_lane: false,
            finish_in_norm: true,
            max_buffer_sets: MAX_BUFFER_SETS,
        }
    }
}

impl Tuning {
    /// Returns the default tuning for an adapter.
    ///
    /// On a CPU a workgroup runs as a loop over SIMD vectors of invocations. A workgroup of one vector
    /// reads each buffer from front to back, which suits the CPU's prefetchers. A larger workgroup passes over a
    /// chunk once for each vector, in strides, and suspends a coroutine at each barrier. The CPU values were
    /// measured with lavapipe on two cores (`benches/README.md`). All other adapters get the
    /// [default](Self::default), which was measured on one GPU only, an NVIDIA H200
    /// (`benches/results/nvidia-h200`).
    pub fn for_adapter(info: &wgpu::AdapterInfo) -> Self {
        match info.device_type {
            wgpu::DeviceType::Cpu => Self {
                workgroup: 8,
                chunk_len: 1 << 14,
                max_norm_chunk_len: 1 << 14,
                partials_by_lane: true,
                finish_in_norm: true,
                max_buffer_sets: MAX_BUFFER_SETS,
            },
            _ => Self::default(),
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
        if !(1..=MAX_BUFFER_SETS).contains(&self.max_buffer_sets) {
            return wrong("max_buffer_sets", self.max_buffer_sets, "in 1..=16");
        }
        let longest = self.longest_chunk();
        let lens = [("chunk_len", self.chunk_len), ("max_norm_chunk_len", self.max_norm_chunk_len)];
        for (name, len) in lens {
            if len > longest {
                let most = format!(
                    "at most {longest} with workgroups of {}, or a loop takes more than {MAX_LOOP_ITERATIONS} iterations",
                    self.workgroup
                );
                return wrong(name, len, &most);
            }
        }
        Ok(())
    }

    /// Returns the largest chunk length in elements whose loops stay within 65,535 iterations in every kernel.
    ///
    /// It limits [`chunk_len`](Self::chunk_len) and [`max_norm_chunk_len`](Self::max_norm_chunk_len), and depends
    /// on [`workgroup`](Self::workgroup) and [`max_buffer_sets`](Self::max_buffer_sets).
    pub fn longest_chunk(&self) -> u32 {
        let vectors = MAX_LOOP_ITERATIONS.saturating_sub(self.norm_iterations(0)) * 4 / 5;
        let elements = 4 * u64::from(self.workgroup) * vectors;
        elements.min(u64::from(MAX_CHUNK_LEN)) as u32
    }

    /// Returns the longest chunk of `moments`, whose workgroups add one sum more than those of `norm`.
    pub(crate) fn longest_moments_chunk(&self) -> u64 {
        let fixed = self.norm_iterations(0) + workgroup_sum_iterations(self.workgroup);
        let vectors = MAX_LOOP_ITERATIONS.saturating_sub(fixed) * 4 / 5;
        (4 * u64::from(self.workgroup) * vectors).min(u64::from(MAX_CHUNK_LEN))
    }

    /// Returns the most loop iterations of `norm` over a chunk of `len` elements.
    pub(crate) fn norm_iterations(&self, len: u64) -> u64 {
        let vectors = len.div_ceil(4 * u64::from(self.workgroup));
        let sums = 2 * workgroup_sum_iterations(self.workgroup);
        vectors + vectors.div_ceil(4) + 3 + 3 * u64::from(self.max_buffer_sets) + sums
    }

    /// Returns the elements that one workgroup of a norm over `elements` elements owns.
    pub(crate) fn norm_chunk_len(&self, elements: u64) -> u64 {
        let least = u64::from(self.chunk_len);
        (elements / 1024).next_multiple_of(least).clamp(least, u64::from(self.max_norm_chunk_len))
    }
}
