//! Device objects, with errors as values: wgpu by itself would panic, or go on with nothing.

use super::error::EngineError;

/// Calls `make`; an error of wgpu's within is a value. `what` names it.
pub(crate) fn with_error_scopes<T>(
    device: &wgpu::Device,
    what: &str,
    make: impl FnOnce() -> T,
) -> Result<T, EngineError> {
    let filters = [
        wgpu::ErrorFilter::OutOfMemory,
        wgpu::ErrorFilter::Internal,
        wgpu::ErrorFilter::Validation,
    ];
    let scopes = filters.map(|filter| device.push_error_scope(filter));
    let made = make();
    // The last one first; all of them, for they are a stack.
    let [memory, internal, validation] = scopes;
    let errors = [validation, internal, memory].map(|scope| pollster::block_on(scope.pop()));
    match errors.into_iter().flatten().next() {
        None => Ok(made),
        Some(error) => Err(refused(what, &error)),
    }
}

fn refused(what: &str, error: &wgpu::Error) -> EngineError {
    let (what, reason) = (what.to_owned(), error.to_string());
    match error {
        wgpu::Error::OutOfMemory { .. } => EngineError::OutOfMemory { what, reason },
        _ => EngineError::Pipeline { kernel: what, reason },
    }
}

/// A buffer of so many bytes.
pub(crate) fn create_buffer(
    device: &wgpu::Device,
    label: &str,
    size: u64,
    usage: wgpu::BufferUsages,
) -> Result<wgpu::Buffer, EngineError> {
    let label_here = Some(label);
    let descriptor =
        wgpu::BufferDescriptor { label: label_here, size, usage, mapped_at_creation: false };
    with_error_scopes(device, label, || device.create_buffer(&descriptor))
}

/// A buffer with these bytes, as many as are a multiple of 4. A lost device shows here.
pub(crate) fn create_buffer_with(
    device: &wgpu::Device,
    label: &str,
    bytes: &[u8],
    usage: wgpu::BufferUsages,
) -> Result<wgpu::Buffer, EngineError> {
    let buffer = with_error_scopes(device, label, || {
        device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            // No tensors, no chunks: a buffer all the same.
            size: (bytes.len() as u64).max(4),
            usage,
            mapped_at_creation: true,
        })
    })?;
    let lost = |error: wgpu::MapRangeError| EngineError::Lost { reason: error.to_string() };
    if !bytes.is_empty() {
        let mut range = buffer.get_mapped_range_mut(..).map_err(lost)?;
        range.slice(..bytes.len()).copy_from_slice(bytes);
    }
    buffer.unmap();
    Ok(buffer)
}
