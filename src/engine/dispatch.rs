//! A dispatch that is ready to be recorded, and the bind group entries of buffers.

use crate::layout::Kernel;

/// A dispatch with its pipeline and bind group.
#[derive(Debug)]
pub(crate) struct PreparedDispatch {
    pub(crate) pipeline: wgpu::ComputePipeline,
    pub(crate) bind_group: wgpu::BindGroup,
    pub(crate) grid: [u32; 2],
    pub(crate) kernel: Kernel,
    /// Page of the table of constants.
    pub(crate) page: usize,
    pub(crate) count: u32,
}

pub(super) fn whole_buffer(binding: u32, buffer: &wgpu::Buffer) -> wgpu::BindGroupEntry<'_> {
    wgpu::BindGroupEntry { binding, resource: buffer_range(buffer, 0, buffer.size()) }
}

pub(crate) fn buffer_range(
    buffer: &wgpu::Buffer,
    offset: u64,
    size: u64,
) -> wgpu::BindingResource<'_> {
    wgpu::BindingResource::Buffer(wgpu::BufferBinding {
        buffer,
        offset,
        size: std::num::NonZeroU64::new(size),
    })
}
