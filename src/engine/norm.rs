//! Norms and other sums in a plan: the `norm` or `moments` dispatches, which write partial sums, and `norm_finish` or
//! `coefficients`, which adds them.

use super::chunking::{ChunkedTensors, chunk_tensors};
use super::dispatch::{PreparedDispatch, whole_buffer};
use super::error::EngineError;
use super::recorder::{Engine, PARTIAL_SIZE};
use super::rows::TensorRow;
use super::sums::{Sums, SumsReduction};
use super::tuning::{MAX_LOOP_ITERATIONS, finish_iterations};
use crate::layout::{self, BufferSets, NormFinishUniforms, Specialisation, WORKGROUPS, Width};

/// The chunks and partial sums of a norm.
pub(super) struct NormPlan {
    pub(super) chunked: ChunkedTensors,
    /// Whether each invocation writes a partial sum, instead of each workgroup.
    pub(super) by_lane: bool,
    /// Whether the last workgroup of the norm may compute the norms from the partial sums.
    pub(super) finishes: bool,
    /// Partial sums for each norm taken.
    partials: u64,
    /// Number of norms that perturbations are divided by: the global one and those of groups.
    scopes: u32,
    pub(super) finish: NormFinishUniforms,
    of: Sums,
}

impl NormPlan {
    /// Returns the size of all partial sums in bytes.
    pub(super) fn bytes(&self) -> u64 {
        PARTIAL_SIZE * self.of.stored() * self.partials
    }
}

impl Engine {
    /// Cuts the tensors of a norm into chunks.
    ///
    /// # Errors
    ///
    /// [`EngineError::Limit`] if there are more partial sums or more norms than one `norm_finish` can handle.
    pub(super) fn plan_norm<'a>(
        &self,
        norm: SumsReduction,
        rows: impl Iterator<Item = TensorRow<'a>>,
    ) -> Result<NormPlan, EngineError> {
        let mut rows: Vec<_> = rows.filter_map(|row| norm.row(row)).collect();
        // `norm_finish` adds contiguous partials for each scope. Tensors that are not perturbed come last.
        rows.sort_by_key(|row| row.scope.unwrap_or(usize::MAX));
        let elements = rows.iter().map(|row| row.len).sum();
        let mut chunk_len = self.norm_chunk_len(norm.of, elements);
        if !norm.of.is_norm() {
            chunk_len = chunk_len.min(self.tuning.longest_moments_chunk());
        }
        let chunked = chunk_tensors(rows.iter().copied(), self.window_limits, chunk_len);
        let chunks = u64::from(chunked.ends.last().copied().unwrap_or(0));
        let by_lane = self.by_lane(norm.of, elements, chunks);
        let lanes = if by_lane { self.tuning.workgroup } else { 1 };
        let partials = chunks * u64::from(lanes);
        let most = self.max_partials(norm.of);
        if partials > most {
            let (name, granted) = self.partials_limit(norm.of);
            // `needed` has the limit's unit: bytes, or invocations of a workgroup.
            let needed = granted.saturating_mul(partials.div_ceil(most));
            return Err(EngineError::Limit { name, granted, needed });
        }
        let scopes = rows.iter().filter_map(|row| row.scope).max().map_or(1, |scope| scope + 1);
        if scopes as u64 > u64::from(self.max_grid) {
            let (name, granted) =
                ("max_compute_workgroups_per_dimension", u64::from(self.max_grid));
            return Err(EngineError::Limit { name, granted, needed: scopes as u64 });
        }
        let finish =
            norm.uniforms(&rows, scopes as u32, chunked.ends.iter().map(|end| end * lanes));
        let finishes =
            !by_lane && self.finishes_in_norm(chunk_len, scopes as u64, partials, norm.of);
        Ok(NormPlan {
            chunked,
            by_lane,
            finishes,
            partials,
            scopes: scopes as u32,
            finish,
            of: norm.of,
        })
    }

    /// Returns the elements that one workgroup of a norm owns: the tuning's number, or more if the partial
    /// sums would otherwise exceed half of what one `norm_finish` can add.
    fn norm_chunk_len(&self, of: Sums, elements: u64) -> u64 {
        let usual = self.tuning.norm_chunk_len(elements);
        let half = (self.max_partials(of) / 2).max(1);
        let unit = u64::from(self.tuning.chunk_len);
        let longest = u64::from(self.tuning.longest_chunk());
        usual.max((elements / half).next_multiple_of(unit).min(longest - longest % unit))
    }

    /// Returns the partial sums of each norm that one `norm_finish` can add: they must fit one binding, and
    /// the loops over them must stay within [`MAX_LOOP_ITERATIONS`].
    fn max_partials(&self, of: Sums) -> u64 {
        let fit = self.max_binding() / (PARTIAL_SIZE * of.count());
        fit.min(max_finished_partials(self.largest_workgroup(), of.added()))
            .min(u64::from(u32::MAX) / 2)
    }

    /// Returns the name and value of the device limit that determines [`max_partials`](Self::max_partials).
    fn partials_limit(&self, of: Sums) -> (&'static str, u64) {
        let largest = self.largest_workgroup();
        let fit = self.max_binding() / (PARTIAL_SIZE * of.count());
        if fit <= max_finished_partials(largest, of.added()) {
            ("max_storage_buffer_binding_size", self.max_binding())
        } else {
            ("max_compute_invocations_per_workgroup", u64::from(largest))
        }
    }

    /// Returns the size in bytes of the largest buffer that the engine can bind whole.
    pub(super) fn max_binding(&self) -> u64 {
        let bytes = self.window_limits.max_binding.min(self.device.limits().max_buffer_size);
        bytes - bytes % PARTIAL_SIZE
    }

    /// Returns whether a norm keeps a partial sum for each invocation.
    ///
    /// A partial sum costs 32 bytes, written and read: together they must stay below a twentieth of the
    /// bytes that the norm reads. In `norm_finish` each invocation adds one partial sum of each chunk, which
    /// must stay within [`MAX_LOOP_ITERATIONS`].
    fn by_lane(&self, of: Sums, elements: u64, chunks: u64) -> bool {
        let workgroup = self.tuning.workgroup;
        let partials = chunks * u64::from(workgroup);
        of.is_norm()
            && self.tuning.partials_by_lane
            && chunks < 1 << 15
            && 32 * partials * 20 < 4 * elements
            && finish_iterations(workgroup, partials, of.added()) <= MAX_LOOP_ITERATIONS
            && partials <= self.max_partials(of)
    }

    /// Returns whether the last workgroup of a norm can compute the norms from the partial sums, which saves a
    /// dispatch.
    ///
    /// It requires a barrier that orders memory accesses for the whole device. wgpu's `storageBarrier` does so in
    /// SPIR-V only, so this is limited to Vulkan.
    fn finishes_in_norm(&self, chunk_len: u64, scopes: u64, partials: u64, of: Sums) -> bool {
        let workgroup = self.tuning.workgroup;
        let finishing = scopes * finish_iterations(workgroup, partials, of.added()) + scopes;
        of.is_norm()
            && self.tuning.finish_in_norm
            && self.device.adapter_info().backend == wgpu::Backend::Vulkan
            && self.tuning.norm_iterations(chunk_len) + finishing <= MAX_LOOP_ITERATIONS
    }

    /// Returns the largest of [`WORKGROUPS`] that the device supports.
    fn largest_workgroup(&self) -> u32 {
        let limits = self.device.limits();
        let fits = |workgroup: &&u32| {
            limits.max_compute_invocations_per_workgroup >= **workgroup
                && limits.max_compute_workgroup_size_x >= **workgroup
                && limits.max_compute_workgroup_storage_size >= 16 * (**workgroup + 8)
        };
        WORKGROUPS.iter().filter(fits).max().map_or(self.tuning.workgroup, |largest| *largest)
    }

    /// Prepares the `norm_finish` dispatch. It uses the tuning's workgroup size, or the device's largest if the
    /// tuning's would exceed [`MAX_LOOP_ITERATIONS`].
    pub(super) fn prepare_finish(
        &self,
        norm: &NormPlan,
        partials: &wgpu::Buffer,
    ) -> Result<PreparedDispatch, EngineError> {
        let kernel = norm.of.finish();
        let specialisation =
            Specialisation { kernel, width: Width::Wide, buffer_sets: BufferSets::SINGLE };
        let own = self.tuning.workgroup;
        let workgroup = match finish_iterations(own, norm.partials, norm.of.added()) {
            iterations if iterations <= MAX_LOOP_ITERATIONS => own,
            _ => self.largest_workgroup(),
        };
        let (pipeline, layout) = self.pipelines.get_sized(specialisation, workgroup)?;
        let bind_group = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(kernel.stage().entry_point()),
            layout: &layout,
            entries: &[whole_buffer(layout::PARTIALS.number, partials)],
        });
        Ok(PreparedDispatch {
            pipeline,
            bind_group,
            grid: [norm.scopes, 1],
            kernel,
            page: 0,
            count: 0,
        })
    }
}

/// Returns the partial sums of each of `norms` norms that a `norm_finish` with workgroups of this size can
/// add within [`MAX_LOOP_ITERATIONS`].
fn max_finished_partials(workgroup: u32, norms: u64) -> u64 {
    let fits = |each: u64| {
        finish_iterations(workgroup, each * u64::from(workgroup), norms) <= MAX_LOOP_ITERATIONS
    };
    let (mut fitting, mut beyond) = (0, MAX_LOOP_ITERATIONS);
    while beyond - fitting > 1 {
        let middle = fitting.midpoint(beyond);
        if fits(middle) {
            fitting = middle;
        } else {
            beyond = middle;
        }
    }
    fitting * u64::from(workgroup)
}
