//! The engine's own buffers, and the search for buffers of another device.

use super::Engine;
use super::error::{EngineError, Role};
use super::memory::{create_buffer, create_buffer_with, with_error_scopes};
use super::pipelines;
use super::plan::{TensorRow, buffer_range};
use crate::layout::{Chunk, Kernel, column};
use std::sync::PoisonError;

impl Engine {
    pub(crate) fn chunk_table(&self, chunks: &[Chunk]) -> Result<wgpu::Buffer, EngineError> {
        let bytes = bytemuck::cast_slice(chunks);
        create_buffer_with(&self.device, "wsam.chunks", bytes, wgpu::BufferUsages::STORAGE)
    }

    /// Finds the first slice in a buffer of another device, and returns the error that names it.
    ///
    /// wgpu does not tell a buffer's device, so each buffer is bound once on its own.
    pub(crate) fn find_foreign<'a>(
        &self,
        kernel: Kernel,
        rows: impl Iterator<Item = TensorRow<'a>>,
    ) -> Option<EngineError> {
        let layout = with_error_scopes(&self.device, "a buffer", || {
            self.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
                label: None,
                entries: &[pipelines::storage_entry(0)],
            })
        });
        let layout = layout.ok()?;
        let is_foreign = |buffer: &wgpu::Buffer| {
            let resource = buffer_range(buffer, 0, buffer.size() - buffer.size() % 4);
            let entries = [wgpu::BindGroupEntry { binding: 0, resource }];
            let (label, layout) = (None, &layout);
            let descriptor = wgpu::BindGroupDescriptor { label, layout, entries: &entries };
            with_error_scopes(&self.device, "a buffer", || {
                self.device.create_bind_group(&descriptor)
            })
            .is_err()
        };
        let max = self.device.limits().max_storage_buffer_binding_size;
        for (tensor, row) in rows.enumerate() {
            for (place, slice) in row.columns.iter().enumerate() {
                let Some(slice) = slice.filter(|slice| slice.buffer.size() <= max) else {
                    continue;
                };
                if is_foreign(&slice.buffer) {
                    let role = match kernel {
                        // In an ascent the anchor's column holds master weights only.
                        Kernel::Ascent { in_place: true, .. } if place == column::ANCHOR => {
                            Role::Partner
                        }
                        Kernel::Ascent { .. } if place == column::ANCHOR => Role::Weight,
                        _ => Role::of_column(place),
                    };
                    return Some(EngineError::Foreign { tensor, role });
                }
            }
        }
        None
    }

    /// Returns a scratch buffer of at least `need` bytes, and replaces the current one if it is smaller. Plans
    /// made before keep the buffer they bind.
    pub(crate) fn partials_for(&self, need: u64) -> Result<wgpu::Buffer, EngineError> {
        let mut partials = self.partials.lock().unwrap_or_else(PoisonError::into_inner);
        if partials.size() < need {
            // `need` fits one binding: `plan_norm` limits the number of partial sums.
            let size = need.next_power_of_two().min(self.max_binding().max(need));
            *partials =
                create_buffer(&self.device, "wsam.partials", size, wgpu::BufferUsages::STORAGE)?;
        }
        Ok(partials.clone())
    }
}
