//! The only place where the engine waits for the device: when somebody asks for a number.

use super::{Engine, EngineError};
use crate::layout::Norms;
use std::sync::mpsc;

impl Engine {
    /// Reads the norms of a step, from the buffer that its ascent names. Blocks until the queue has run everything submitted so far, so
    /// it has no place in a training loop's hot path.
    ///
    /// # Errors
    ///
    /// [`EngineError::Readback`] if the device was lost or could not be waited for.
    pub fn read_norms(&self, norms: &wgpu::Buffer) -> Result<Norms, EngineError> {
        let bytes = self.read_buffer(norms)?;
        match bytes.get(..size_of::<Norms>()) {
            Some(bytes) => Ok(bytemuck::pod_read_unaligned(bytes)),
            None => {
                let reason = format!("a buffer of {} bytes is not a step's norms", bytes.len());
                Err(EngineError::Readback { reason })
            }
        }
    }

    /// Reads a whole buffer that has `BufferUsages::COPY_SRC`. Blocks like
    /// [`read_norms`](Engine::read_norms).
    ///
    /// # Errors
    ///
    /// [`EngineError::Readback`] if the device was lost or could not be waited for.
    pub fn read_buffer(&self, buffer: &wgpu::Buffer) -> Result<Vec<u8>, EngineError> {
        let failed =
            |reason: &dyn std::fmt::Display| EngineError::Readback { reason: reason.to_string() };
        let staging = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("wsam.readback"),
            size: buffer.size(),
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let mut encoder = self.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(buffer, 0, &staging, 0, buffer.size());
        self.queue.submit([encoder.finish()]);
        let (sender, receiver) = mpsc::channel();
        staging.slice(..).map_async(wgpu::MapMode::Read, move |result| {
            // The receiver outlives the wait below; if it does not, nobody wants the answer.
            let _ = sender.send(result);
        });
        self.device.poll(wgpu::PollType::wait_indefinitely()).map_err(|e| failed(&e))?;
        receiver.recv().map_err(|e| failed(&e))?.map_err(|e| failed(&e))?;
        let view = staging.slice(..).get_mapped_range().map_err(|e| failed(&e))?;
        Ok(view.to_vec())
    }
}
