//! Encoding of a phase: uploads the constants of the step and encodes the plan as one compute pass.

use super::constants::Constants;
use super::dispatch::{PreparedDispatch, buffer_range};
use super::error::EngineError;
use super::memory::{create_buffer_with, with_error_scopes};
use super::pipelines::Pipelines;
use super::plan::Plan;
use super::recorder::{ALIGNMENT, Engine};
use super::timing::timestamp_writes;
use crate::layout::{
    BlendUniforms, COEFFICIENTS, Coefficients, DispatchUniforms, Kernel, NORMS, NormFinishUniforms,
    Norms, PARAM_CLASSES, ParamClassUniforms,
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
    /// Norms buffer to copy the norms from that the perturbation was divided by.
    pub(crate) perturbation: Option<&'a wgpu::Buffer>,
    /// Seed for stochastic rounding.
    pub(crate) seed: u64,
}

/// Offsets of a phase's constants in the buffer of uniforms.
pub(super) struct Places {
    /// Pages of the table of parameter classes.
    pages: Vec<u32>,
    /// Uniforms of `norm_finish`, if the phase takes a norm.
    finish: Option<u32>,
    /// Uniforms of each dispatch.
    heads: Vec<u32>,
}

/// Bind group 1 of a phase, in each of its layouts.
pub(super) struct StepGroups {
    step: wgpu::BindGroup,
    finish: Option<wgpu::BindGroup>,
    norm: Option<wgpu::BindGroup>,
    check: Option<wgpu::BindGroup>,
    coefficients: Option<wgpu::BindGroup>,
}

/// The buffers that bind group 1 of a phase binds.
#[derive(Clone, Copy)]
pub(super) struct StepBuffers<'a> {
    pub(super) uniforms: &'a wgpu::Buffer,
    pub(super) norms: &'a wgpu::Buffer,
    /// The blend, if it comes from the device.
    pub(super) blend: Option<&'a wgpu::Buffer>,
    /// The coefficients, if the phase computes them.
    pub(super) coefficients: Option<&'a wgpu::Buffer>,
}

/// Appends the constants of a phase to `bytes`, at aligned offsets.
pub(super) fn append_constants(
    bytes: &mut Vec<u8>,
    plan: &Plan,
    classes: &[ParamClassUniforms],
    seed: u64,
) -> Places {
    let mut pages = Vec::new();
    for page in classes.chunks(PARAM_CLASSES) {
        let place = append(bytes, cast_slice(page));
        bytes.resize(place as usize + PAGE, 0);
        pages.push(place);
    }
    if pages.is_empty() {
        let place = append(bytes, &[]);
        bytes.resize(place as usize + PAGE, 0);
        pages.push(place);
    }
    let finish = plan.finish.map(|finish| append(bytes, bytes_of(&finish)));
    let mut head = |dispatch: &PreparedDispatch| {
        let (chunk_count, grid_width) = (dispatch.count, dispatch.grid[0]);
        let (seed_0, seed_1) = (seed as u32, (seed >> 32) as u32);
        let head = DispatchUniforms { chunk_count, grid_width, seed_0, seed_1 };
        append(bytes, bytes_of(&head))
    };
    let heads = plan.dispatches.iter().map(&mut head).collect();
    Places { pages, finish, heads }
}

impl Engine {
    /// Encodes `plan` as a compute pass. On an error nothing is recorded.
    pub(super) fn encode(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        plan: &Plan,
        inputs: &PhaseInputs<'_>,
    ) -> Result<(), EngineError> {
        let PhaseInputs { label, constants, norms, scale, perturbation, seed } = inputs;
        let blend = constants.blend.device()?;
        let mut bytes = Vec::with_capacity(PAGE + ALIGNMENT as usize * (plan.dispatches.len() + 1));
        let places = append_constants(&mut bytes, plan, &constants.classes, *seed);
        let uniforms =
            create_buffer_with(&self.device, "wsam.uniforms", &bytes, wgpu::BufferUsages::UNIFORM)?;
        let computes =
            |dispatch: &PreparedDispatch| matches!(dispatch.kernel, Kernel::Coefficients(_));
        let coefficients = match plan.dispatches.iter().any(computes) {
            true => Some(self.coefficients_buffer()?),
            false => None,
        };
        let coefficients = coefficients.as_ref();
        let buffers = StepBuffers { uniforms: &uniforms, norms, blend, coefficients };
        let groups = self.step_groups(label, plan, &places, buffers)?;
        if let Some(scale) = scale {
            let place = offset_of!(Norms, inv_scale) as u64;
            encoder.copy_buffer_to_buffer(scale, 0, norms, place, size_of::<f32>() as u64);
        }
        if let Some(perturbation) = perturbation {
            for (place, size) in [
                (offset_of!(Norms, perturbation), size_of::<f32>()),
                (offset_of!(Norms, own), size_of_val(&Norms::default().own)),
            ] {
                let (place, size) = (place as u64, size as u64);
                encoder.copy_buffer_to_buffer(perturbation, place, norms, place, size);
            }
        }
        self.encode_pass(encoder, label, plan, &places, &groups);
        Ok(())
    }

    /// Creates bind group 1 of a phase.
    pub(super) fn step_groups(
        &self,
        label: &str,
        plan: &Plan,
        places: &Places,
        StepBuffers { uniforms, norms, blend, coefficients }: StepBuffers<'_>,
    ) -> Result<StepGroups, EngineError> {
        let entry = |binding, resource| wgpu::BindGroupEntry { binding, resource };
        let group = |layout, entries: &[_]| {
            let label = Some(label);
            self.device.create_bind_group(&wgpu::BindGroupDescriptor { label, layout, entries })
        };
        let head = || entry(0, buffer_range(uniforms, 0, size_of::<DispatchUniforms>() as u64));
        let page = || entry(3, buffer_range(uniforms, 0, PAGE as u64));
        let blend_size = size_of::<BlendUniforms>() as u64;
        let coefficients_size = size_of::<Coefficients>() as u64;
        // WSAM's stages bind the blend, and those of its relatives the coefficients. Where a stage uses neither, any
        // buffer that is large enough will do.
        let blend = match (blend, coefficients) {
            (Some(blend), _) => buffer_range(blend, 0, blend_size),
            (None, Some(coefficients)) => buffer_range(coefficients, 0, coefficients_size),
            (None, None) => buffer_range(uniforms, 0, coefficients_size),
        };
        let blend = entry(2, blend);
        let read_norms = entry(1, buffer_range(norms, 0, norms.size()));
        let written_norms = || entry(NORMS.number, buffer_range(norms, 0, norms.size()));
        let finish = places.finish.map(|place| {
            let size = size_of::<NormFinishUniforms>() as u64;
            entry(4, buffer_range(uniforms, u64::from(place), size))
        });
        let checks = |dispatch: &PreparedDispatch| matches!(dispatch.kernel, Kernel::Check { .. });
        let checks = plan.dispatches.iter().any(checks);
        let Pipelines {
            step_layout,
            finish_layout,
            norm_layout,
            check_layout,
            coefficients_layout,
            ..
        } = &*self.pipelines;
        with_error_scopes(&self.device, label, || StepGroups {
            coefficients: coefficients.zip(finish.clone()).map(|(coefficients, finish)| {
                let rows = buffer_range(coefficients, 0, coefficients_size);
                let rows = entry(COEFFICIENTS.number, rows);
                group(coefficients_layout, &[page(), finish, written_norms(), rows])
            }),
            step: group(step_layout, &[head(), read_norms, blend, page()]),
            finish: (finish.clone().filter(|_| !plan.finishes_in_norm))
                .map(|finish| group(finish_layout, &[finish, written_norms()])),
            norm: (finish.filter(|_| plan.finishes_in_norm))
                .map(|finish| group(norm_layout, &[head(), page(), finish, written_norms()])),
            check: checks.then(|| group(check_layout, &[head(), written_norms()])),
        })
    }

    /// Encodes the dispatches of a phase as one compute pass, or several if they are timed.
    pub(super) fn encode_pass(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        label: &str,
        plan: &Plan,
        Places { pages, heads, .. }: &Places,
        StepGroups { step, finish, norm, check, coefficients }: &StepGroups,
    ) {
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
                Kernel::NormFinish(_) => pass.set_bind_group(1, finish, &[]),
                Kernel::NormAndFinish(_) => pass.set_bind_group(1, norm, &[*head, page]),
                Kernel::Check { .. } => pass.set_bind_group(1, check, &[*head]),
                Kernel::Coefficients(_) => pass.set_bind_group(1, coefficients, &[page]),
                _ => pass.set_bind_group(1, step, &[*head, page]),
            }
            pass.dispatch_workgroups(dispatch.grid[0], dispatch.grid[1], 1);
        }
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
