//! Makes the plan of a phase: its dispatches and the buffers that they bind.
//!
//! A plan is cached and reused while the tensors stay in the same buffers at the same offsets. Only the
//! constants are uploaded again for each step.

use super::chunking::chunk_tensors;
use super::dispatch::{PreparedDispatch, buffer_range, whole_buffer};
use super::error::EngineError;
use super::memory::with_error_scopes;
use super::phase::{Phase, Reduction};
use super::plan::{Plan, PlanKey};
use super::recorder::{ALIGNMENT, Engine, UNIFORMS};
use super::rows::{TensorRow, gradient};
use super::schedule::{Capacity, Dispatch, pack};
use super::stats::StepStats;
use crate::layout::{self, Access, Chunk, Kernel, Specialisation, Width, column_binding};
use std::collections::HashSet;
use std::sync::{Arc, PoisonError};

/// Plans that an engine caches. A training loop needs two, or four if it alternates between two sets of
/// buffers. Gradients that an allocator moves between memory pages need a few more.
const MAX_PLANS: usize = 16;

impl Engine {
    /// Returns the plan for `rows`, and whether it had to be made.
    ///
    /// `check` is called only if the plan is made: a cached plan's rows were checked when it was made.
    pub(crate) fn plan<'a>(
        &self,
        phase: Phase,
        rows: impl ExactSizeIterator<Item = TensorRow<'a>> + Clone,
        check: impl FnOnce() -> Result<(), EngineError>,
    ) -> Result<(Arc<Plan>, bool), EngineError> {
        let rows = rows.map(move |row| phase.row(row));
        // A poisoned lock is safe to use: entries are inserted and removed whole.
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) =
            plans.iter().position(|(key, _)| key.matches(phase, rows.len(), rows.clone()))
        {
            // Moved to the end: the list is ordered by last use.
            let entry = plans.remove(at);
            let plan = entry.1.clone();
            plans.push(entry);
            return Ok((plan, false));
        }
        check()?;
        let name = phase.kernel.stage().entry_point();
        let made = with_error_scopes(&self.device, name, || self.make_plan(phase, rows.clone()));
        // An error of these outer scopes takes precedence, because it may have caused the error that `make_plan`
        // returned.
        let plan = match made.and_then(|plan| plan) {
            Ok(plan) => Arc::new(plan),
            Err(error) => return Err(self.find_foreign(phase.kernel, rows).unwrap_or(error)),
        };
        if plans.len() == MAX_PLANS {
            plans.remove(0);
        }
        plans.push((PlanKey::new(phase, rows), plan.clone()));
        Ok((plan, true))
    }

    // wgpu hashes and compares a buffer by its identity, which nothing mutates.
    #[allow(clippy::mutable_key_type)]
    fn make_plan<'a>(
        &self,
        phase: Phase,
        rows: impl Iterator<Item = TensorRow<'a>> + Clone,
    ) -> Result<Plan, EngineError> {
        let mut buffers = HashSet::new();
        let mut dispatches = Vec::new();
        let mut overhead = 0;
        let mut finish = None;
        let mut finishes_in_norm = false;
        if let Reduction::CheckFinite { perturbed } = phase.reduction {
            let kernel = Kernel::Check { perturbed };
            let rows =
                rows.clone().map(|row| TensorRow { columns: gradient(&row, perturbed), ..row });
            let buffer_sets =
                chunk_tensors(rows, self.window_limits, u64::from(self.tuning.chunk_len))
                    .buffer_sets;
            for dispatch in pack(buffer_sets, |width| self.capacity(kernel, width)) {
                dispatch.add_costs(&mut buffers, &mut overhead);
                dispatches.push(self.prepare_dispatch(kernel, &dispatch, &self.unused)?);
            }
        }
        for norm in phase.sums() {
            let of = norm.of;
            let norm = self.plan_norm(norm, rows.clone())?;
            overhead += 2 * norm.bytes();
            let partials = self.partials_for(norm.bytes())?;
            let separate = of.kernel(norm.by_lane);
            // The second sums of a phase have the same chunks and scopes, so the first ones' constants serve both.
            finish.get_or_insert(norm.finish);
            let finishing = self.prepare_finish(&norm, &partials)?;
            let packed = |kernel, sets| pack(sets, |width| self.capacity(kernel, width));
            let sets = norm.chunked.buffer_sets;
            let (kernel, packed) = match of.joined().filter(|_| norm.finishes) {
                Some(joined) => {
                    let apart = packed(separate, sets.clone());
                    let together = packed(joined, sets);
                    // `norm_and_finish` binds one more buffer, so it may need more dispatches.
                    finishes_in_norm = together.len() <= apart.len() && !together.is_empty();
                    if finishes_in_norm { (joined, together) } else { (separate, apart) }
                }
                None => (separate, packed(separate, sets)),
            };
            for dispatch in packed {
                dispatch.add_costs(&mut buffers, &mut overhead);
                dispatches.push(self.prepare_dispatch(kernel, &dispatch, &partials)?);
            }
            if !finishes_in_norm {
                dispatches.push(finishing);
            }
        }
        if let Some(kernel) = phase.update.map(Kernel::Update) {
            let rows = rows.clone().filter_map(|row| phase.update_row(row));
            let chunk_len = u64::from(self.tuning.chunk_len);
            let buffer_sets = chunk_tensors(rows, self.window_limits, chunk_len).buffer_sets;
            for dispatch in pack(buffer_sets, |width| self.capacity(kernel, width)) {
                dispatch.add_costs(&mut buffers, &mut overhead);
                dispatches.push(self.prepare_dispatch(kernel, &dispatch, &self.unused)?);
            }
        }
        let processed = rows.clone().filter(|row| phase.processes(row));
        let processed = processed.map(|row| phase.kernel_row(row));
        let buffer_sets =
            chunk_tensors(processed, self.window_limits, u64::from(self.tuning.chunk_len))
                .buffer_sets;
        for dispatch in pack(buffer_sets, |width| self.capacity(phase.kernel, width)) {
            dispatch.add_costs(&mut buffers, &mut overhead);
            dispatches.push(self.prepare_dispatch(phase.kernel, &dispatch, &self.unused)?);
        }
        let mut stats = StepStats {
            dispatches: dispatches.len() as u32,
            overhead_bytes: overhead + 16 * dispatches.len() as u64,
            buffers: buffers.len() as u32,
            ..Default::default()
        };
        for row in rows {
            phase.count(&row, &mut stats);
        }
        Ok(Plan { dispatches, finish, finishes_in_norm, stats })
    }

    fn capacity(&self, kernel: Kernel, width: Width) -> Capacity {
        let limits = self.device.limits();
        let taken = layout::storage_buffers(kernel.stage(), width);
        let spare = limits.max_storage_buffers_per_shader_stage.saturating_sub(taken);
        // Metal limits storage and uniform buffers together.
        let most = limits.max_buffers_and_acceleration_structures_per_shader_stage;
        let spare_of_all = most.saturating_sub(taken + UNIFORMS);
        Capacity {
            spare_buffers: spare.min(spare_of_all),
            max_buffer_sets: self.tuning.max_buffer_sets,
            max_chunks: self.max_table_rows(&limits).min(u64::from(self.max_grid).pow(2)),
        }
    }

    /// Returns the largest number of rows of a chunk table that fit one binding. If a binding may be as
    /// large as a buffer there is no limit here: creating a larger table then fails with an error.
    fn max_table_rows(&self, limits: &wgpu::Limits) -> u64 {
        let binding = self.window_limits.max_binding;
        if binding < limits.max_buffer_size {
            binding / size_of::<Chunk>() as u64
        } else {
            u64::MAX
        }
    }

    fn prepare_dispatch(
        &self,
        kernel: Kernel,
        dispatch: &Dispatch,
        partials: &wgpu::Buffer,
    ) -> Result<PreparedDispatch, EngineError> {
        let Dispatch { page, width, buffer_sets, .. } = *dispatch;
        let specialisation = Specialisation { kernel, width, buffer_sets };
        let (pipeline, group_layout) = self.pipelines.get(specialisation)?;
        let table = self.chunk_table(&dispatch.chunks)?;
        let mut entries = Vec::new();
        for slot in layout::bindings(kernel.stage(), width).iter().filter(|slot| slot.group == 0) {
            match slot.access {
                Access::Table => entries.push(whole_buffer(slot.number, &table)),
                _ if slot.number == layout::PARTIALS.number => {
                    entries.push(whole_buffer(slot.number, partials));
                }
                _ => self.column(slot.number, dispatch, &mut entries),
            }
        }
        let bind_group = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(kernel.stage().entry_point()),
            layout: &group_layout,
            entries: &entries,
        });
        let count = dispatch.chunks.len() as u32;
        Ok(PreparedDispatch { pipeline, bind_group, grid: self.grid(count), kernel, page, count })
    }

    /// Adds the bind group entries, one for each buffer set, of the column whose first binding is `number`.
    fn column<'b>(
        &'b self,
        number: u32,
        dispatch: &'b Dispatch,
        entries: &mut Vec<wgpu::BindGroupEntry<'b>>,
    ) {
        let column = (number - column_binding(0, 0)) as usize;
        let buffer_sets =
            if dispatch.buffer_sets.varies(column) { dispatch.buffer_sets.count } else { 1 };
        for (buffer_set, windows) in (0..buffer_sets).zip(&dispatch.windows) {
            let (buffer, offset, size) = match &windows[column] {
                Some(window) => (&window.buffer, window.offset, window.size),
                // The kernel does not access this column. Each such column binds a separate range, because
                // WebGPU forbids writable bindings that overlap.
                None => (&self.unused, column as u64 * ALIGNMENT, ALIGNMENT),
            };
            entries.push(wgpu::BindGroupEntry {
                binding: column_binding(column, buffer_set),
                resource: buffer_range(buffer, offset, size),
            });
        }
    }

    /// Returns the two-dimensional grid for `workgroups`, which are at most `max_grid` squared.
    fn grid(&self, workgroups: u32) -> [u32; 2] {
        let width = workgroups.clamp(1, self.max_grid);
        [width, workgroups.div_ceil(width).max(1)]
    }

    /// Drops all cached plans, and the handles of the buffers that they keep alive.
    pub fn forget_plans(&self) {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Dispatch {
    /// Adds the buffers that the dispatch binds to `buffers`, and the bytes of its chunk table to `overhead`.
    // wgpu hashes and compares a buffer by its identity, which nothing mutates.
    #[allow(clippy::mutable_key_type)]
    fn add_costs(&self, buffers: &mut HashSet<wgpu::Buffer>, overhead: &mut u64) {
        let windows = self.windows.iter().flatten().flatten();
        buffers.extend(windows.map(|window| window.buffer.clone()));
        *overhead += size_of_val(self.chunks.as_slice()) as u64;
    }
}
