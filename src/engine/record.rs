//! Fills a plan with the constants of a step and records it as one compute pass.

use super::error::EngineError;
use super::half::{Plan, Ready, range};
use super::step::BlendSource;
use super::timing::around;
use super::{ALIGNMENT, Engine};
use crate::layout::{
    AscentUniforms, BlendUniforms, DescentUniforms, Kernel, NORMS, NormFinishUniforms,
    NormUniforms, StepUniforms,
};
use crate::method::Hyperparameters;
use bytemuck::bytes_of;
use wgpu::util::DeviceExt;

/// What changes from step to step.
pub(crate) struct Constants<'a> {
    pub(crate) hyper: &'a Hyperparameters,
    pub(crate) blend: BlendSource<'a>,
    /// By class. A half without a base step has none.
    pub(crate) steps: Vec<StepUniforms>,
}

impl Engine {
    /// Records `plan`. On an error nothing is recorded.
    pub(crate) fn record(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        label: &str,
        plan: &Plan,
        constants: &Constants<'_>,
        norms: &wgpu::Buffer,
    ) -> Result<(), EngineError> {
        let device_blend = constants.blend.device()?;
        // The blend, the steps of the classes, the dispatches' own: each in its place.
        let mut bytes = Vec::with_capacity(ALIGNMENT as usize * (plan.ready.len() + 3));
        append(&mut bytes, bytes_of(&constants.blend.uniforms(constants.hyper)));
        let none = [StepUniforms::default()];
        let steps = if constants.steps.is_empty() { &none[..] } else { &constants.steps };
        let steps: Vec<_> = steps.iter().map(|step| append(&mut bytes, bytes_of(step))).collect();
        let heads: Vec<_> = plan
            .ready
            .iter()
            .map(|ready| append(&mut bytes, &head(ready, plan, constants.hyper)))
            .collect();

        let scope = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let uniforms = self.device.create_buffer_init(&wgpu::util::BufferInitDescriptor {
            label: Some("wsam.uniforms"),
            contents: &bytes,
            usage: wgpu::BufferUsages::UNIFORM,
        });
        let entry = |binding, resource| wgpu::BindGroupEntry { binding, resource };
        let head = || range(&uniforms, 0, size_of::<AscentUniforms>() as u64);
        let blend_size = size_of::<BlendUniforms>() as u64;
        let step = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(label),
            layout: &self.pipelines.step_layout,
            entries: &[
                entry(0, head()),
                entry(1, range(norms, 0, norms.size())),
                entry(2, range(device_blend.unwrap_or(&uniforms), 0, blend_size)),
                entry(3, range(&uniforms, 0, size_of::<StepUniforms>() as u64)),
            ],
        });
        let finish = plan.norm.map(|_| {
            self.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(label),
                layout: &self.pipelines.finish_layout,
                entries: &[entry(4, head()), entry(NORMS.number, range(norms, 0, norms.size()))],
            })
        });
        if let Some(error) = pollster::block_on(scope.pop()) {
            let kernel = label.to_owned();
            return Err(EngineError::Pipeline { kernel, reason: error.to_string() });
        }

        let times = self.note_times(plan);
        let begin = |encoder: &'_ mut wgpu::CommandEncoder, index| {
            let timestamp_writes = times.as_ref().and_then(|queries| around(queries, index));
            let descriptor = wgpu::ComputePassDescriptor { label: Some(label), timestamp_writes };
            encoder.begin_compute_pass(&descriptor).forget_lifetime()
        };
        let mut pass = begin(encoder, 0);
        for (index, (ready, head)) in plan.ready.iter().zip(heads).enumerate() {
            if index > 0 && times.is_some() {
                drop(pass);
                pass = begin(encoder, index);
            }
            pass.set_pipeline(&ready.pipeline);
            pass.set_bind_group(0, &ready.group, &[]);
            match (&finish, ready.kernel) {
                (Some(finish), Kernel::NormFinish(_)) => pass.set_bind_group(1, finish, &[head]),
                _ => {
                    let class = ready.class.min(steps.len() - 1);
                    pass.set_bind_group(1, &step, &[head, steps[class]]);
                }
            }
            pass.dispatch_workgroups(ready.grid[0], ready.grid[1], 1);
        }
        Ok(())
    }
}

impl BlendSource<'_> {
    /// The device's blend, if that is where it is.
    fn device(&self) -> Result<Option<&wgpu::Buffer>, EngineError> {
        let BlendSource::Device(buffer) = self else { return Ok(None) };
        let (usage, size) = (buffer.usage(), buffer.size());
        let need = size_of::<BlendUniforms>() as u64;
        if !usage.contains(wgpu::BufferUsages::UNIFORM) || size < need {
            return Err(EngineError::BlendBuffer { usage, size, need });
        }
        Ok(Some(buffer))
    }

    fn uniforms(&self, hyper: &Hyperparameters) -> BlendUniforms {
        let blend = match self {
            BlendSource::Host(blend) => *blend,
            BlendSource::Method | BlendSource::Device(_) => hyper.blend(),
        };
        BlendUniforms {
            a: blend.a as f32,
            b: blend.b as f32,
            sharpness: blend.sharpness as f32,
            padding: 0.0,
        }
    }
}

/// A dispatch's own uniforms; all are of one size.
fn head(ready: &Ready, plan: &Plan, hyper: &Hyperparameters) -> [u8; 16] {
    let (chunk_count, grid_width) = (ready.count, ready.grid[0]);
    match ready.kernel {
        Kernel::Norm { .. } => {
            let rest = NormUniforms::default();
            bytemuck::cast(NormUniforms { chunk_count, grid_width, ..rest })
        }
        Kernel::NormFinish(_) => {
            let slots = plan.norm.map_or((0, 0), |norm| (norm.slots_plain, norm.slots_scaled));
            bytemuck::cast(NormFinishUniforms {
                partial_count: ready.count,
                slots_plain: slots.0,
                slots_scaled: slots.1,
                padding: 0,
            })
        }
        Kernel::Ascent { .. } | Kernel::LeanAscent { .. } => bytemuck::cast(AscentUniforms {
            chunk_count,
            grid_width,
            rho: hyper.rho as f32,
            epsilon: hyper.epsilon as f32,
        }),
        Kernel::Descent { .. } | Kernel::LeanDescent => {
            let rest = DescentUniforms::default();
            bytemuck::cast(DescentUniforms { chunk_count, grid_width, ..rest })
        }
    }
}

/// Appends `part` at the next aligned place and returns the place.
fn append(bytes: &mut Vec<u8>, part: &[u8]) -> u32 {
    let place = bytes.len().next_multiple_of(ALIGNMENT as usize);
    bytes.resize(place, 0);
    bytes.extend_from_slice(part);
    // A dispatch takes one place; there are far fewer than 2^24.
    place as u32
}
