//! Conversion to and from half precision, and slices of halves.

use burn_wsam::engine::{Engine, Format, Slice};
use half::{bf16, f16};
use wgpu::util::DeviceExt;

pub const FORMATS: [Format; 2] = [Format::F16, Format::Bf16];

/// Rounds to f32 and then to the nearest half.
pub fn encode(format: Format, x: f64) -> u16 {
    match format {
        Format::Bf16 => bf16::from_f32(x as f32).to_bits(),
        _ => f16::from_f32(x as f32).to_bits(),
    }
}

pub fn decode(format: Format, bits: u16) -> f64 {
    match format {
        Format::Bf16 => bf16::from_bits(bits).to_f64(),
        _ => f16::from_bits(bits).to_f64(),
    }
}

/// Padding after a tensor's end in its last vector, which no kernel may change.
pub const BEHIND: u16 = 0x7e5a;

/// A slice over a buffer of its own.
pub fn upload(engine: &Engine, format: Format, bits: &[u16]) -> Slice {
    let mut contents = bits.to_vec();
    contents.resize(bits.len().next_multiple_of(4).max(4), BEHIND);
    let buffer = engine.device().create_buffer_init(&wgpu::util::BufferInitDescriptor {
        label: None,
        contents: bytemuck::cast_slice(&contents),
        usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC,
    });
    Slice::new(&buffer, bits.len() as u64).with_format(format)
}
