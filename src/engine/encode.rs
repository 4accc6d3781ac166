//! Encoding of a phase: uploads the constants of the step and encodes the plan as one compute pass.

use super::constants::Constants;
use super::dispatch::buffer_range;
use super::error::EngineError;
use super::memory::{create_buffer_with, with_error_scopes};
use super::pipelines::Pipelines;
use super::plan::Plan;
use super::timing::timestamp_writes;
use super::{ALIGNMENT, Engine};
use crate::layout::{
    BlendUniforms, DispatchUniforms, Kernel, NORMS, NormFinishUniforms, Norms, PARAM_CLASSES,
    ParamClassUniforms,
};
use bytemuck::{bytes_of, cast_slice};
use std::mem::offset_of;

/// Size in bytes of one page of the table of parameter classes.
const PAGE: usize = PARAM_CLASSES * size_of::<ParamClassUniforms>();

/// The inputs of encoding a phase, except its plan.
pub(crate) struct PhaseInputs<'a> {
    pub(crate) label: &'static str,
    pub(crate) constants: Constants<'a>,
    pub(crate) norms: &'a wgpu::Buffer,
    /// Device buffer to copy the inverse loss scale from, unless the host has set it in `norms`.
    pub(crate) scale: Option<&'a wgpu::Buffer>,
    /// Seed for stochastic rounding.
    pub(crate) seed: u64,
}

impl Engine {
    /// Encodes `plan` as a compute pass. On an error nothing is recorded.
    pub(super) fn encode(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        plan: &Plan,
        inputs: &PhaseInputs<'_>,
    ) -> Result<(), EngineError> {
        let PhaseInputs { label, constants, norms, scale, seed } = inputs;
        let device_blend = constants.blend.device()?;
        // One buffer holds all uniforms: the pages of the table of parameter classes, those of `norm_finish` and
        // those of each dispatch, at aligned offsets.
        let mut bytes = Vec::with_capacity(PAGE + ALIGNMENT as usize * (plan.dispatches.len() + 1));
        let mut pages = Vec::new();
        for page in constants.classes.chunks(PARAM_CLASSES) {
            let place = append(&mut bytes, cast_slice(page));
            bytes.resize(place as usize + PAGE, 0);
            pages.push(place);
        }
        if pages.is_empty() {
            bytes.resize(PAGE, 0);
            pages.push(0);
        }
        let finish = plan.finish.map(|finish| append(&mut bytes, bytes_of(&finish)));
        let heads: Vec<_> = plan
            .dispatches
            .iter()
            .map(|dispatch| {
                let (chunk_count, grid_width) = (dispatch.count, dispatch.grid[0]);
                let (seed_0, seed_1) = (*seed as u32, (*seed >> 32) as u32);
                let head = DispatchUniforms { chunk_count, grid_width, seed_0, seed_1 };
                append(&mut bytes, bytes_of(&head))
            })
            .collect();

        let uniforms =
            create_buffer_with(&self.device, "wsam.uniforms", &bytes, wgpu::BufferUsages::UNIFORM)?;
        let entry = |binding, resource| wgpu::BindGroupEntry { binding, resource };
        let head = buffer_range(&uniforms, 0, size_of::<DispatchUniforms>() as u64);
        let blend_size = size_of::<BlendUniforms>() as u64;
        let group = |layout, entries: &[_]| {
            let label = Some(*label);
            self.device.create_bind_group(&wgpu::BindGroupDescriptor { label, layout, entries })
        };
        let all_norms = || buffer_range(norms, 0, norms.size());
        let step_entries = [
            entry(0, head.clone()),
            entry(1, all_norms()),
            entry(2, buffer_range(device_blend.unwrap_or(&uniforms), 0, blend_size)),
            entry(3, buffer_range(&uniforms, 0, PAGE as u64)),
        ];
        let finish_entries = finish.filter(|_| !plan.finishes_in_norm).map(|place| {
            let size = size_of::<NormFinishUniforms>() as u64;
            let own = buffer_range(&uniforms, u64::from(place), size);
            [entry(4, own), entry(NORMS.number, all_norms())]
        });
        let norm_entries = finish.filter(|_| plan.finishes_in_norm).map(|place| {
            let size = size_of::<NormFinishUniforms>() as u64;
            [
                entry(0, head.clone()),
                entry(3, buffer_range(&uniforms, 0, PAGE as u64)),
                entry(4, buffer_range(&uniforms, u64::from(place), size)),
                entry(NORMS.number, all_norms()),
            ]
        });
        let checks =
            plan.dispatches.iter().any(|dispatch| matches!(dispatch.kernel, Kernel::Check { .. }));
        let check_entries = checks.then(|| [entry(0, head), entry(NORMS.number, all_norms())]);
        let Pipelines { step_layout, finish_layout, norm_layout, check_layout, .. } =
            &*self.pipelines;
        let (step, finish, norm, check) = with_error_scopes(&self.device, label, || {
            (
                group(step_layout, &step_entries),
                finish_entries.map(|entries| group(finish_layout, &entries)),
                norm_entries.map(|entries| group(norm_layout, &entries)),
                check_entries.map(|entries| group(check_layout, &entries)),
            )
        })?;

        if let Some(scale) = scale {
            let place = offset_of!(Norms, inv_scale) as u64;
            encoder.copy_buffer_to_buffer(scale, 0, norms, place, size_of::<f32>() as u64);
        }
        let times = self.start_timing(plan);
        let begin = |encoder: &'_ mut wgpu::CommandEncoder, index| {
            let timestamp_writes =
                times.as_ref().and_then(|queries| timestamp_writes(queries, index));
            let descriptor = wgpu::ComputePassDescriptor { label: Some(label), timestamp_writes };
            encoder.begin_compute_pass(&descriptor).forget_lifetime()
        };
        let mut pass = begin(encoder, 0);
        for (index, (dispatch, head)) in plan.dispatches.iter().zip(heads).enumerate() {
            if index > 0 && times.is_some() {
                drop(pass);
                pass = begin(encoder, index);
            }
            pass.set_pipeline(&dispatch.pipeline);
            pass.set_bind_group(0, &dispatch.bind_group, &[]);
            let page = pages[dispatch.page.min(pages.len() - 1)];
            match dispatch.kernel {
                Kernel::NormFinish(_) => pass.set_bind_group(1, &finish, &[]),
                Kernel::NormAndFinish(_) => pass.set_bind_group(1, &norm, &[head, page]),
                Kernel::Check { .. } => pass.set_bind_group(1, &check, &[head]),
                _ => pass.set_bind_group(1, &step, &[head, page]),
            }
            pass.dispatch_workgroups(dispatch.grid[0], dispatch.grid[1], 1);
        }
        Ok(())
    }
}

/// Appends `part` at the next aligned offset and returns this offset.
fn append(bytes: &mut Vec<u8>, part: &[u8]) -> u32 {
    let place = bytes.len().next_multiple_of(ALIGNMENT as usize);
    bytes.resize(place, 0);
    bytes.extend_from_slice(part);
    // Each part takes one aligned slot of 256 bytes; there are far fewer than 2^24.
    place as u32
}
