//! Reading buffers back to the host. Only these functions, and `read_times`, wait for the device.

use super::error::EngineError;
use super::memory::{create_buffer, with_error_scopes};
use super::recorder::Engine;
use crate::layout::Norms;
use std::sync::mpsc;

impl Engine {
    /// Reads the norms of a step, and whether its gradients were finite, from its norms buffer, for example
    /// [`Ascent::norms`](super::Ascent::norms).
    ///
    /// Blocks until the queue has run everything submitted so far. Avoid it in every step of a training loop.
    ///
    /// # Errors
    ///
    /// [`EngineError::Readback`] if the device was lost or waiting for it failed.
    pub fn read_norms(&self, norms: &wgpu::Buffer) -> Result<Norms, EngineError> {
        norms_of(&self.read_buffer(norms)?)
    }

    /// Reads a whole buffer that has `BufferUsages::COPY_SRC`. Blocks like
    /// [`read_norms`](Engine::read_norms).
    ///
    /// # Errors
    ///
    /// [`EngineError::Readback`] if the device was lost or waiting for it failed.
    pub fn read_buffer(&self, buffer: &wgpu::Buffer) -> Result<Vec<u8>, EngineError> {
        let mut encoder = self.device.create_command_encoder(&Default::default());
        let staging = self.send(&mut encoder, buffer)?;
        let submission = self.queue.submit([encoder.finish()]);
        self.receive(&staging, submission)
    }

    /// Records a copy of a whole buffer to a staging buffer, which the host can map once the submission has run.
    pub(crate) fn send(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        buffer: &wgpu::Buffer,
    ) -> Result<wgpu::Buffer, EngineError> {
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let staging = create_buffer(&self.device, "wsam.readback", buffer.size(), usage)?;
        encoder.copy_buffer_to_buffer(buffer, 0, &staging, 0, buffer.size());
        Ok(staging)
    }

    /// Waits for the submission that contains the copy, but not for later ones, and returns the bytes.
    pub(crate) fn receive(
        &self,
        staging: &wgpu::Buffer,
        submission: wgpu::SubmissionIndex,
    ) -> Result<Vec<u8>, EngineError> {
        let failed =
            |reason: &dyn std::fmt::Display| EngineError::Readback { reason: reason.to_string() };
        let (sender, receiver) = mpsc::channel();
        // On a lost device wgpu returns invalid buffers, and mapping one is a validation error.
        with_error_scopes(&self.device, "wsam.readback", || {
            staging.slice(..).map_async(wgpu::MapMode::Read, move |result| {
                // Sending fails only if the function below has returned early; the result is then unused.
                let _ = sender.send(result);
            });
        })
        .map_err(|error| failed(&error))?;
        let wait = wgpu::PollType::Wait { submission_index: Some(submission), timeout: None };
        self.device.poll(wait).map_err(|e| failed(&e))?;
        receiver.recv().map_err(|e| failed(&e))?.map_err(|e| failed(&e))?;
        let view = staging.slice(..).get_mapped_range().map_err(|e| failed(&e))?;
        Ok(view.to_vec())
    }
}

/// Decodes a step's norms from the bytes of its norms buffer.
pub(crate) fn norms_of(bytes: &[u8]) -> Result<Norms, EngineError> {
    match bytes.get(..size_of::<Norms>()) {
        Some(bytes) => Ok(bytemuck::pod_read_unaligned(bytes)),
        None => {
            let (found, needed) = (bytes.len(), size_of::<Norms>());
            let reason = format!("the buffer has {found} bytes, but a norms buffer has {needed}");
            Err(EngineError::Readback { reason })
        }
    }
}
