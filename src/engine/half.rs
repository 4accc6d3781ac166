//! Half a step, planned: which dispatches it takes and over which buffers. A plan is kept while
//! tensors stay where they are; only constants are filled in anew.

use super::error::EngineError;
use super::plan::cut;
use super::schedule::{Capacity, Dispatch, pack};
use super::slices::{Columns, Slice};
use super::stats::StepStats;
use super::{ALIGNMENT, Engine, UNIFORMS};
use crate::layout::{
    self, Access, COLUMNS, Chunk, Frames, Kernel, NormOf, Specialisation, Width, column,
    column_binding,
};
use std::collections::HashSet;
use std::sync::{Arc, PoisonError};

/// Plans an engine keeps. A training loop has two; ping-ponging buffers make it four, and gradients
/// that move between a few pages a few more.
const KEPT_PLANS: usize = 16;

/// What half a step does, whatever the tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Half {
    pub(crate) norm: Option<HalfNorm>,
    pub(crate) kernel: Kernel,
}

/// The norm in front of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HalfNorm {
    pub(crate) of: NormOf,
    /// Of `g~` instead of `g`.
    pub(crate) perturbed: bool,
    /// Fields of [`layout::Norms`] that take it, as bits.
    pub(crate) slots_plain: u32,
    pub(crate) slots_scaled: u32,
}

/// One tensor of a half: its class of equal uniforms, its length, its slices.
pub(crate) type Row<'a> = (usize, u64, Columns<'a>);

type OwnedRow = (usize, u64, [Option<Slice>; COLUMNS]);

/// Every input of a plan but what an engine never changes.
#[derive(Debug)]
pub(crate) struct Key {
    half: Half,
    rows: Vec<OwnedRow>,
}

impl Key {
    fn new<'a>(half: Half, rows: impl Iterator<Item = Row<'a>>) -> Self {
        let own =
            |(class, len, columns): Row<'a>| (class, len, columns.map(|slice| slice.cloned()));
        Self { half, rows: rows.map(own).collect() }
    }

    fn fits<'a>(&self, half: Half, count: usize, mut rows: impl Iterator<Item = Row<'a>>) -> bool {
        let same = |(class, len, columns): Row<'a>, own: &OwnedRow| {
            let equal = |(slice, own): (&Option<&Slice>, &Option<Slice>)| *slice == own.as_ref();
            (class, len) == (own.0, own.1) && columns.iter().zip(&own.2).all(equal)
        };
        self.half == half
            && self.rows.len() == count
            && self.rows.iter().all(|own| rows.next().is_some_and(|row| same(row, own)))
    }
}

/// A dispatch with its device objects.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) pipeline: wgpu::ComputePipeline,
    pub(crate) group: wgpu::BindGroup,
    pub(crate) grid: [u32; 2],
    pub(crate) kernel: Kernel,
    pub(crate) class: usize,
    pub(crate) count: u32,
}

#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) norm: Option<HalfNorm>,
    pub(crate) ready: Vec<Ready>,
    /// All but submissions, plans made and time.
    pub(crate) stats: StepStats,
}

impl Engine {
    /// The plan for `rows`, kept or made. `check` is called if it must be made: rows that fit a
    /// plan were checked when it was.
    pub(crate) fn plan<'a>(
        &self,
        half: Half,
        rows: impl ExactSizeIterator<Item = Row<'a>> + Clone,
        check: impl FnOnce() -> Result<(), EngineError>,
    ) -> Result<(Arc<Plan>, bool), EngineError> {
        // A panic elsewhere cannot leave a half-written list: its entries are replaced whole.
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = plans.iter().position(|(key, _)| key.fits(half, rows.len(), rows.clone()))
        {
            // The most recently used one last.
            let entry = plans.remove(at);
            let plan = entry.1.clone();
            plans.push(entry);
            return Ok((plan, false));
        }
        check()?;
        let plan = Arc::new(self.make_plan(half, rows.clone())?);
        if plans.len() == KEPT_PLANS {
            plans.remove(0);
        }
        plans.push((Key::new(half, rows), plan.clone()));
        Ok((plan, true))
    }

    // wgpu hashes and compares a buffer by its identity, which nothing mutates.
    #[allow(clippy::mutable_key_type)]
    fn make_plan<'a>(
        &self,
        half: Half,
        rows: impl Iterator<Item = Row<'a>> + Clone,
    ) -> Result<Plan, EngineError> {
        let elements = rows.clone().map(|(_, len, _)| len).sum::<u64>();
        let mut buffers = HashSet::new();
        let mut ready = Vec::new();
        let mut overhead = 0;
        let scope = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        if let Some(norm) = half.norm {
            let rows = rows.clone().map(|(_, len, columns)| (0, len, norm.columns(&columns)));
            let groups = cut(rows, self.window_limits, self.tuning.norm_chunk_len(elements));
            let chunks: usize = groups.iter().map(|group| group.chunks.len()).sum();
            let by_lane = self.by_lane(elements, chunks as u64);
            let lanes = if by_lane { self.tuning.workgroup } else { 1 };
            let count = chunks as u32 * lanes;
            let bytes = 16 * norm.of.count() * u64::from(count);
            overhead += 2 * bytes;
            let partials = self.partials_for(bytes);
            let kernel = Kernel::Norm { of: norm.of, by_lane };
            for dispatch in pack(groups, self.capacity(kernel)) {
                dispatch.note(&mut buffers, &mut overhead);
                ready.push(self.ready(kernel, &dispatch, &partials)?);
            }
            ready.push(self.finish(norm.of, count, &partials)?);
        }
        let groups = cut(rows, self.window_limits, u64::from(self.tuning.chunk_len));
        for dispatch in pack(groups, self.capacity(half.kernel)) {
            dispatch.note(&mut buffers, &mut overhead);
            ready.push(self.ready(half.kernel, &dispatch, &self.unused)?);
        }
        if let Some(error) = pollster::block_on(scope.pop()) {
            let kernel = half.kernel.stage().entry_point().to_owned();
            return Err(EngineError::Pipeline { kernel, reason: error.to_string() });
        }
        let (reads, writes) = half.accesses();
        let uniforms = 16 * ready.len() as u64;
        let stats = StepStats {
            dispatches: ready.len() as u32,
            bytes_read: 4 * elements * reads,
            bytes_written: 4 * elements * writes,
            overhead_bytes: overhead + uniforms,
            buffers: buffers.len() as u32,
            extra_bytes: if matches!(half.kernel, Kernel::Ascent { .. }) {
                4 * elements
            } else {
                0
            },
            ..Default::default()
        };
        Ok(Plan { norm: half.norm, ready, stats })
    }

    /// Whether a norm keeps a partial for each invocation: written and read, 32 bytes each, they must
    /// stay far below what the norm itself reads.
    fn by_lane(&self, elements: u64, chunks: u64) -> bool {
        let partials = chunks * u64::from(self.tuning.workgroup);
        self.tuning.partials_by_lane && 32 * partials * 20 < 4 * elements
    }

    fn capacity(&self, kernel: Kernel) -> Capacity {
        let limits = self.device.limits();
        let taken = layout::storage_buffers(kernel.stage());
        let spare = limits.max_storage_buffers_per_shader_stage.saturating_sub(taken);
        // Metal counts buffers of all kinds together.
        let most = limits.max_buffers_and_acceleration_structures_per_shader_stage;
        let spare_of_all = most.saturating_sub(taken + UNIFORMS);
        Capacity {
            spare_buffers: spare.min(spare_of_all),
            max_frames: self.tuning.max_frames,
            max_chunks: u64::from(self.max_grid).pow(2),
        }
    }

    fn ready(
        &self,
        kernel: Kernel,
        dispatch: &Dispatch,
        partials: &wgpu::Buffer,
    ) -> Result<Ready, EngineError> {
        let Dispatch { class, width, frames, .. } = *dispatch;
        let specialisation = Specialisation { kernel, width, frames };
        let (pipeline, group_layout) = self.pipelines.get(specialisation)?;
        let table = self.table(&dispatch.chunks);
        let mut entries = Vec::new();
        for slot in layout::bindings(kernel.stage()).iter().filter(|slot| slot.group == 0) {
            match slot.access {
                Access::Table => entries.push(whole(slot.number, &table)),
                _ if slot.number == layout::PARTIALS.number => {
                    entries.push(whole(slot.number, partials));
                }
                _ => self.column(slot.number, dispatch, &mut entries),
            }
        }
        let group = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(kernel.stage().entry_point()),
            layout: &group_layout,
            entries: &entries,
        });
        let count = dispatch.chunks.len() as u32;
        Ok(Ready { pipeline, group, grid: self.grid(count), kernel, class, count })
    }

    /// Entries of the column whose first binding is `number`.
    fn column<'b>(
        &'b self,
        number: u32,
        dispatch: &'b Dispatch,
        entries: &mut Vec<wgpu::BindGroupEntry<'b>>,
    ) {
        let column = (number - column_binding(0, 0)) as usize;
        let frames = if dispatch.frames.varies(column) { dispatch.frames.count } else { 1 };
        for (frame, windows) in (0..frames).zip(&dispatch.windows) {
            let (buffer, offset, size) = match &windows[column] {
                Some(window) => (&window.buffer, window.offset, window.size),
                // The kernel has no use for it: a range of its own for each column.
                None => (&self.unused, column as u64 * ALIGNMENT, ALIGNMENT),
            };
            entries.push(wgpu::BindGroupEntry {
                binding: column_binding(column, frame),
                resource: range(buffer, offset, size),
            });
        }
    }

    fn finish(
        &self,
        of: NormOf,
        count: u32,
        partials: &wgpu::Buffer,
    ) -> Result<Ready, EngineError> {
        let kernel = Kernel::NormFinish(of);
        let specialisation = Specialisation { kernel, width: Width::Wide, frames: Frames::SINGLE };
        let (pipeline, layout) = self.pipelines.get(specialisation)?;
        let group = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(kernel.stage().entry_point()),
            layout: &layout,
            entries: &[whole(layout::PARTIALS.number, partials)],
        });
        Ok(Ready { pipeline, group, grid: [1, 1], kernel, class: 0, count })
    }

    /// The 2-D grid for so many workgroups, which fit.
    fn grid(&self, workgroups: u32) -> [u32; 2] {
        let width = workgroups.clamp(1, self.max_grid);
        [width, workgroups.div_ceil(width).max(1)]
    }

    fn table(&self, chunks: &[Chunk]) -> wgpu::Buffer {
        use wgpu::util::DeviceExt;
        self.device.create_buffer_init(&wgpu::util::BufferInitDescriptor {
            label: Some("wsam.chunks"),
            contents: bytemuck::cast_slice(chunks),
            usage: wgpu::BufferUsages::STORAGE,
        })
    }

    /// The scratch buffer, grown if need be; an older one lives on in the plans made with it.
    fn partials_for(&self, need: u64) -> wgpu::Buffer {
        let mut partials = self.partials.lock().unwrap_or_else(PoisonError::into_inner);
        if partials.size() < need {
            *partials = self.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("wsam.partials"),
                size: need.next_power_of_two(),
                usage: wgpu::BufferUsages::STORAGE,
                mapped_at_creation: false,
            });
        }
        partials.clone()
    }

    /// Forgets all plans, and with them the buffers that they keep alive.
    pub fn forget_plans(&self) {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Dispatch {
    /// Adds what it binds and the bytes of its table.
    // wgpu hashes and compares a buffer by its identity, which nothing mutates.
    #[allow(clippy::mutable_key_type)]
    fn note(&self, buffers: &mut HashSet<wgpu::Buffer>, overhead: &mut u64) {
        let windows = self.windows.iter().flatten().flatten();
        buffers.extend(windows.map(|window| window.buffer.clone()));
        *overhead += size_of_val(self.chunks.as_slice()) as u64;
    }
}

impl HalfNorm {
    /// The norm's columns, from the half's.
    fn columns<'a>(&self, from: &Columns<'a>) -> Columns<'a> {
        let mut columns = [None; COLUMNS];
        let grad = if self.perturbed { column::GRAD_PERTURBED } else { column::GRAD };
        columns[column::GRAD] = from[grad];
        if self.of.reads_weight() {
            columns[column::WEIGHT] = from[column::ANCHOR].or(from[column::WEIGHT]);
        }
        columns
    }
}

impl Half {
    /// Tensors read and written, in times the parameters.
    fn accesses(&self) -> (u64, u64) {
        let norm = self.norm.map_or(0, |norm| 1 + u64::from(norm.of.reads_weight()));
        let (reads, writes) = match self.kernel {
            Kernel::Norm { .. } | Kernel::NormFinish(_) => (0, 0),
            Kernel::Ascent { in_place, .. } => (2, 1 + u64::from(in_place)),
            Kernel::Descent { states, alone, .. } => {
                (3 - u64::from(alone) + u64::from(states), 1 + u64::from(states))
            }
            Kernel::LeanAscent { states, .. } => (2 + u64::from(states), 2 + u64::from(states)),
            Kernel::LeanDescent => (2, 1),
        };
        (norm + reads, writes)
    }
}

fn whole(binding: u32, buffer: &wgpu::Buffer) -> wgpu::BindGroupEntry<'_> {
    wgpu::BindGroupEntry { binding, resource: range(buffer, 0, buffer.size()) }
}

pub(crate) fn range(buffer: &wgpu::Buffer, offset: u64, size: u64) -> wgpu::BindingResource<'_> {
    wgpu::BindingResource::Buffer(wgpu::BufferBinding {
        buffer,
        offset,
        size: std::num::NonZeroU64::new(size),
    })
}
