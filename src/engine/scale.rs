//! Loss scaling: what brings scaled gradients back.

use super::Engine;
use super::error::EngineError;
use super::memory::create_buffer_with;
use super::step::Rounding;
use crate::layout::Norms;
use crate::method::InvalidHyperparameter;

/// What every gradient of a step is multiplied by before anything else: the inverse of the factor that
/// its loss was multiplied by. It costs nothing: the kernels fold it into factors that they have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum InvScale<'a> {
    /// A number: finite and above 0.
    Host(f64),
    /// One `f32` at the start of a device buffer with `BufferUsages::COPY_SRC`, as it is when the step's
    /// first half runs. Nobody checks it.
    Device(&'a wgpu::Buffer),
}

impl Default for InvScale<'_> {
    fn default() -> Self {
        Self::Host(1.0)
    }
}

/// Choices of a step that has one gradient at hand, or is lean.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GradientOptions<'a> {
    /// Compute norms even where the step has no use for them.
    pub track_norms: bool,
    /// What gradients are multiplied by.
    pub inv_scale: InvScale<'a>,
    /// How `w + e_w` becomes half precision; a base step has none.
    pub rounding: Rounding,
}

impl From<bool> for GradientOptions<'_> {
    /// Whether to track norms.
    fn from(track_norms: bool) -> Self {
        Self { track_norms, ..Self::default() }
    }
}

impl Engine {
    /// A fresh buffer for a step's norms, with its scale, or the buffer to copy that from.
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
