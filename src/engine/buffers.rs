//! The engine's own buffers, and the search for buffers of another device.

use super::dispatch::buffer_range;
use super::error::EngineError;
use super::memory::{create_buffer, create_buffer_with, with_error_scopes};
use super::options::InvScale;
use super::pipelines;
use super::recorder::Engine;
use super::rows::TensorRow;
use super::slice::Role;
use crate::layout::{Chunk, Coefficients, Kernel, Norms, StepOn, column};
use std::sync::PoisonError;

impl Engine {
    /// Creates the norms buffer of a step with `inv_scale` in it. If `inv_scale` is on the device, returns its
    /// buffer too, to be copied from.
    pub(crate) fn norms_buffer<'a>(
        &self,
        inv_scale: InvScale<'a>,
    ) -> Result<(wgpu::Buffer, Option<&'a wgpu::Buffer>), EngineError> {
        inv_scale.check()?;
        let (value, source) = inv_scale.parts();
        let norms = Norms { inv_scale: value as f32, ..Default::default() };
        let usage = wgpu::BufferUsages::STORAGE
            | wgpu::BufferUsages::UNIFORM
            | wgpu::BufferUsages::COPY_SRC
            | wgpu::BufferUsages::COPY_DST;
        let buffer =
            create_buffer_with(&self.device, "wsam.norms", bytemuck::bytes_of(&norms), usage)?;
        Ok((buffer, source))
    }

    /// Creates the buffer of a phase's coefficients.
    pub(super) fn coefficients_buffer(&self) -> Result<wgpu::Buffer, EngineError> {
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::UNIFORM;
        let size = size_of::<Coefficients>() as u64;
        create_buffer(&self.device, "wsam.coefficients", size, usage)
    }

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
                    let role = role(kernel, place, row.has_master());
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

/// Returns the role of the slice in a column of a kernel's chunk table.
fn role(kernel: Kernel, column: usize, has_master: bool) -> Role {
    match column {
        column::WEIGHT => Role::Weight,
        column::ANCHOR if has_master => Role::Master,
        column::ANCHOR if matches!(kernel, Kernel::LeanDescent { .. }) => Role::SecondPassWeight,
        column::ANCHOR => Role::Anchor,
        column::GRAD => Role::Grad,
        column::GRAD_PERTURBED if matches!(kernel, Kernel::MethodDescent { on, .. } if on == StepOn::Corrected) => {
            Role::MethodState
        }
        column::GRAD_PERTURBED => Role::GradPerturbed,
        column::WEIGHT_COPY
            if matches!(
                kernel,
                Kernel::Ascent { in_place: true, .. }
                    | Kernel::AscentWithState { in_place: true, .. }
            ) =>
        {
            Role::Anchor
        }
        column::WEIGHT_COPY if matches!(kernel, Kernel::MethodDescent { .. }) => Role::MethodState,
        column::STATE if matches!(kernel, Kernel::AscentWithState { .. }) => Role::MethodState,
        column::WEIGHT_COPY => Role::Perturbed,
        state => Role::State((state - column::STATE) as u32),
    }
}
