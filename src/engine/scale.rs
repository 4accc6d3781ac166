//! Loss scaling: the factor that unscales gradients.

use super::Engine;
use super::error::EngineError;
use super::memory::create_buffer_with;
use super::step::Rounding;
use crate::layout::Norms;
use crate::method::InvalidHyperparameter;

/// The inverse of the loss scale, by which every gradient of a step is multiplied before any other operation.
/// Unscaling adds no memory traffic: the kernels fold it into factors that they apply anyway.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum InvScale<'a> {
    /// A number, finite and above 0.
    Host(f64),
    /// One `f32` at the start of a device buffer with `BufferUsages::COPY_SRC`, read when the step's first
    /// phase runs. The value is not checked.
    Device(&'a wgpu::Buffer),
}

impl Default for InvScale<'_> {
    fn default() -> Self {
        Self::Host(1.0)
    }
}

/// Options of a base step, a clip or a lean ascent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GradientOptions<'a> {
    /// Compute norms even where the step does not need them.
    pub track_norms: bool,
    /// The factor that unscales gradients.
    pub inv_scale: InvScale<'a>,
    /// How `w + e_w` is rounded to half precision. A base step does not use it.
    pub rounding: Rounding,
}

impl From<bool> for GradientOptions<'_> {
    /// Sets `track_norms`.
    fn from(track_norms: bool) -> Self {
        Self { track_norms, ..Self::default() }
    }
}

impl Engine {
    /// Creates the norms buffer of a step with `inv_scale` in it. If `inv_scale` is on the device, returns its
    /// buffer too, to be copied from.
    pub(crate) fn norms_buffer<'a>(
        &self,
        inv_scale: InvScale<'a>,
    ) -> Result<(wgpu::Buffer, Option<&'a wgpu::Buffer>), EngineError> {
        let (value, source) = match inv_scale {
            InvScale::Host(value) => (value, None),
            InvScale::Device(buffer) => (1.0, Some(buffer)),
        };
        let normal = f64::from(f32::MIN_POSITIVE)..=f64::from(f32::MAX);
        if !normal.contains(&value) {
            let expected = "finite and above 0";
            return Err(InvalidHyperparameter { name: "inv_scale", value, expected }.into());
        }
        if let Some(buffer) = source {
            let (usage, size) = (buffer.usage(), buffer.size());
            if !usage.contains(wgpu::BufferUsages::COPY_SRC) || size < 4 {
                return Err(EngineError::ScaleBuffer { usage, size });
            }
        }
        let norms = Norms { inv_scale: value as f32, ..Default::default() };
        let usage = wgpu::BufferUsages::STORAGE
            | wgpu::BufferUsages::UNIFORM
            | wgpu::BufferUsages::COPY_SRC
            | wgpu::BufferUsages::COPY_DST;
        let buffer =
            create_buffer_with(&self.device, "wsam.norms", bytemuck::bytes_of(&norms), usage)?;
        Ok((buffer, source))
    }
}
