//! Turns planned dispatches into commands: one metadata buffer, one compute pass.

use super::error::EngineError;
use super::plan::Window;
use super::stats::StepStats;
use super::{ALIGNMENT, Engine};
use crate::layout::{self, Chunk, Specialisation, Stage};

/// A dispatch that is ready but for its device objects.
pub(crate) struct Planned<'a> {
    pub(crate) specialisation: Specialisation,
    pub(crate) grid: [u32; 2],
    pub(crate) uniforms: Vec<u8>,
    pub(crate) chunks: &'a [Chunk],
    /// In the order of [`layout::bindings`].
    pub(crate) bindings: Vec<Bound<'a>>,
}

/// What a binding is filled with.
pub(crate) enum Bound<'a> {
    Uniforms,
    Chunks,
    /// A column's window, or this column's range of the unused buffer.
    Column(usize, Option<&'a Window>),
    Whole(&'a wgpu::Buffer),
}

impl Engine {
    /// The 2-D grid for so many workgroups.
    pub(crate) fn grid(&self, workgroups: usize) -> Result<[u32; 2], EngineError> {
        let (workgroups, max) = (workgroups as u64, u64::from(self.max_grid));
        let width = workgroups.clamp(1, max);
        let height = workgroups.div_ceil(width);
        if height > max {
            return Err(EngineError::Limit {
                name: "max_compute_workgroups_per_dimension",
                granted: max,
                needed: workgroups.isqrt() + 1,
            });
        }
        // Both fit: max is a u32.
        Ok([width as u32, height as u32])
    }

    /// Records `planned` as one compute pass. On an error nothing is recorded.
    pub(crate) fn record(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        label: &str,
        planned: &[Planned<'_>],
    ) -> Result<StepStats, EngineError> {
        let mut metadata = Vec::new();
        let places: Vec<_> = planned
            .iter()
            .map(|dispatch| {
                let uniforms = append(&mut metadata, &dispatch.uniforms);
                let chunks = append(&mut metadata, bytemuck::cast_slice(dispatch.chunks));
                (uniforms, chunks)
            })
            .collect();
        let mut ready = Vec::with_capacity(planned.len());
        let scope = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let buffer = self.metadata_buffer(&metadata);
        for (dispatch, (uniforms, chunks)) in planned.iter().zip(places) {
            let pipeline = self.pipelines.get(dispatch.specialisation)?;
            let group = self.bind_group(dispatch, &buffer, uniforms, chunks);
            ready.push((pipeline, group, dispatch.grid));
        }
        if let Some(error) = pollster::block_on(scope.pop()) {
            return Err(EngineError::Pipeline {
                kernel: label.to_owned(),
                reason: error.to_string(),
            });
        }

        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
            label: Some(label),
            timestamp_writes: None,
        });
        for (pipeline, group, [width, height]) in &ready {
            pass.set_pipeline(pipeline);
            pass.set_bind_group(0, group, &[]);
            pass.dispatch_workgroups(*width, *height, 1);
        }
        Ok(StepStats {
            dispatches: ready.len() as u32,
            overhead_bytes: planned.iter().map(overhead).sum(),
            ..Default::default()
        })
    }

    fn metadata_buffer(&self, metadata: &[u8]) -> wgpu::Buffer {
        use wgpu::util::DeviceExt;
        self.device.create_buffer_init(&wgpu::util::BufferInitDescriptor {
            label: Some("wsam.metadata"),
            contents: metadata,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::STORAGE,
        })
    }

    fn bind_group(
        &self,
        dispatch: &Planned<'_>,
        metadata: &wgpu::Buffer,
        uniforms: u64,
        chunks: u64,
    ) -> wgpu::BindGroup {
        let stage = dispatch.specialisation.stage();
        let binding = |buffer, offset, size| {
            wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                buffer,
                offset,
                size: std::num::NonZeroU64::new(size),
            })
        };
        let entries: Vec<_> = layout::bindings(stage)
            .iter()
            .zip(&dispatch.bindings)
            .map(|(slot, bound)| wgpu::BindGroupEntry {
                binding: slot.number,
                resource: match bound {
                    Bound::Uniforms => binding(metadata, uniforms, dispatch.uniforms.len() as u64),
                    Bound::Chunks => binding(metadata, chunks, size_of_val(dispatch.chunks) as u64),
                    Bound::Column(_, Some(window)) => {
                        binding(&window.buffer, window.offset, window.size)
                    }
                    Bound::Column(column, None) => {
                        binding(&self.unused, *column as u64 * ALIGNMENT, ALIGNMENT)
                    }
                    Bound::Whole(buffer) => binding(buffer, 0, buffer.size()),
                },
            })
            .collect();
        self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(stage.entry_point()),
            layout: self.pipelines.bind_group_layout(stage),
            entries: &entries,
        })
    }
}

/// Appends `bytes` at the next aligned place and returns the place.
fn append(metadata: &mut Vec<u8>, bytes: &[u8]) -> u64 {
    let place = metadata.len().next_multiple_of(ALIGNMENT as usize);
    metadata.resize(place, 0);
    metadata.extend_from_slice(bytes);
    place as u64
}

fn overhead(dispatch: &Planned<'_>) -> u64 {
    let partials = match dispatch.specialisation.stage() {
        Stage::Norm => 16 * dispatch.chunks.len(),
        _ => 0,
    };
    (dispatch.uniforms.len() + size_of_val(dispatch.chunks) + partials) as u64
}
