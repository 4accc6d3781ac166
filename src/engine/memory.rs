//! Creation of device objects, with errors as values. Without an error scope wgpu panics, or returns an
//! invalid object.

use super::error::EngineError;

/// Calls `make` within wgpu error scopes and returns the first error that they caught. `what` names the
/// object in the error.
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
    // wgpu keeps the scopes on a stack: all must be popped, the last one first.
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

/// Creates a buffer of `size` bytes.
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

/// Creates a buffer that holds `bytes`, whose length must be a multiple of 4.
///
/// # Errors
///
/// [`EngineError::Lost`] if the device is lost: then the new buffer cannot be mapped.
pub(crate) fn create_buffer_with(
    device: &wgpu::Device,
    label: &str,
    bytes: &[u8],
    usage: wgpu::BufferUsages,
) -> Result<wgpu::Buffer, EngineError> {
    let buffer = with_error_scopes(device, label, || {
        device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            // Without tensors the chunk table is empty, but a binding needs at least 4 bytes.
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
