//! Steps over tensors that stay in the same buffers: everything that does not change from step to step is made
//! once, so that recording a step takes a time that does not depend on the number of tensors.

use super::checks::check_wsam;
use super::columns::any_anchored;
use super::constants::Constants;
use super::encode::{Places, StepBuffers, StepGroups, append_constants};
use super::error::EngineError;
use super::memory::{create_buffer, create_buffer_with, with_error_scopes};
use super::method_constants::PhaseKind;
use super::options::{AscentOptions, BlendSource, InvScale, Rounding};
use super::param_classes::ParamClasses;
use super::phase::Reduction;
use super::plan::Plan;
use super::record::{NormsSource, PhaseSpec};
use super::recorder::{ALIGNMENT, Engine};
use super::stats::StepStats;
use super::step::{ascent_spec, descent_spec};
use super::tensors::{AscentTensor, DescentTensor};
use crate::layout::{Kernel, Norms};
use crate::method::{Blend, Hyperparameters, validate_lr};
use std::mem::size_of;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// What changes from one step of a [`PreparedStep`] to the next, besides the hyperparameters.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct StepValues {
    /// The learning rate. A group's factor is applied to it.
    pub lr: f64,
    /// Number of steps that were taken since the step was prepared. It is added to the step count of each tensor.
    pub steps_taken: u64,
    /// One blend for all tensors; `None` for the method's.
    pub blend: Option<Blend>,
    /// The factor that unscales both gradients.
    pub inv_scale: f64,
    /// How `w + e_w` is rounded to half precision. Whether it is stochastic must not change.
    pub rounding: Rounding,
}

impl StepValues {
    /// Creates the values of a step with the method's blend, without a loss scale and with the rounding to
    /// nearest.
    pub fn new(lr: f64, steps_taken: u64) -> Self {
        Self { lr, steps_taken, blend: None, inv_scale: 1.0, rounding: Rounding::Nearest }
    }
}

/// A step over certain tensors, made by [`Engine::prepare`].
///
/// It keeps the tensors' buffers alive. Each step overwrites the [norms](Self::norms) of the step before.
pub struct PreparedStep {
    device: wgpu::Device,
    track_norms: bool,
    ascent: Phase,
    descent: Phase,
    norms: wgpu::Buffer,
    uniforms: wgpu::Buffer,
    /// The norms and the uniforms of the step being recorded.
    bytes: Vec<u8>,
    staging: Vec<Staging>,
    is_ascended: bool,
}

/// One phase of a prepared step.
struct Phase {
    label: &'static str,
    reduction: Reduction,
    kernel: Kernel,
    classes: ParamClasses,
    plan: Arc<Plan>,
    places: Places,
    groups: StepGroups,
}

/// A buffer that the host writes and the device copies from. wgpu maps it again after each copy.
struct Staging {
    buffer: wgpu::Buffer,
    is_mapped: Arc<AtomicBool>,
}

/// Why only WSAM's steps are prepared, and what to do.
const NOT_PREPARED: &str =
    "only WSAM's steps can be prepared: call ascent and descent in each step";

/// Start of the uniforms in the staged bytes, behind the norms.
const UNIFORMS: usize = (size_of::<Norms>() as u64).next_multiple_of(ALIGNMENT) as usize;

impl std::fmt::Debug for PreparedStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PreparedStep").field("norms", &self.norms).finish_non_exhaustive()
    }
}

impl PreparedStep {
    /// Returns the device buffer with the [`Norms`] of the step recorded last.
    pub fn norms(&self) -> &wgpu::Buffer {
        &self.norms
    }
}

impl Engine {
    /// Prepares a step over tensors that stay in the same buffers.
    ///
    /// `descents` are the tensors of `ascents`, in any order. The step count of each is that of the first step.
    /// Of `options` only `track_norms` and whether the rounding is stochastic count: the other values are given
    /// with each step.
    ///
    /// # Errors
    ///
    /// Those of [`ascent`](Engine::ascent) and [`descent`](Engine::descent).
    pub fn prepare(
        &self,
        hyper: &Hyperparameters,
        options: AscentOptions<'_>,
        ascents: &[AscentTensor],
        descents: &[DescentTensor],
    ) -> Result<PreparedStep, EngineError> {
        check_wsam(hyper, "prepare", NOT_PREPARED)?;
        let (ascent, descent) = (ascents.len(), descents.len());
        if ascent != descent {
            return Err(EngineError::TensorCount { ascent, descent });
        }
        let usage = wgpu::BufferUsages::STORAGE
            | wgpu::BufferUsages::UNIFORM
            | wgpu::BufferUsages::COPY_SRC
            | wgpu::BufferUsages::COPY_DST;
        let size = size_of::<Norms>() as u64;
        let norms = create_buffer(&self.device, "wsam.norms", size, usage)?;
        let in_place = AscentTensor::all_in_place(ascents)?;
        let up = ascent_spec(hyper, options, in_place)?;
        let anchored = any_anchored(descents);
        let source = NormsSource::Ascent(&norms, descents.len());
        let down = descent_spec(hyper, options.track_norms, anchored, source)?;
        let (up_classes, up_plan, _) = self.check_and_plan(&up, ascents)?;
        let (down_classes, down_plan, _) = self.check_and_plan(&down, descents)?;
        let mut bytes = Vec::new();
        let rows = |classes: &ParamClasses| {
            classes.constants(hyper, BlendSource::Method, PhaseKind::Plain).classes
        };
        let up_places = append_constants(&mut bytes, &up_plan, &rows(&up_classes), 0);
        let down_places = append_constants(&mut bytes, &down_plan, &rows(&down_classes), 0);
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT as usize), 0);
        let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let uniforms = create_buffer_with(&self.device, "wsam.uniforms", &bytes, usage)?;
        let phase = |spec: &PhaseSpec<'_>, classes, plan: Arc<Plan>, places: Places| {
            let buffers =
                StepBuffers { uniforms: &uniforms, norms: &norms, blend: None, coefficients: None };
            let groups = self.step_groups(spec.label, &plan, &places, buffers)?;
            let PhaseSpec { label, reduction, kernel, .. } = *spec;
            Ok::<_, EngineError>(Phase { label, reduction, kernel, classes, plan, places, groups })
        };
        let ascent = phase(&up, up_classes, up_plan, up_places)?;
        let descent = phase(&down, down_classes, down_plan, down_places)?;
        Ok(PreparedStep {
            device: self.device.clone(),
            track_norms: options.track_norms,
            ascent,
            descent,
            norms: norms.clone(),
            uniforms,
            bytes,
            staging: Vec::new(),
            is_ascended: false,
        })
    }
}

impl PreparedStep {
    /// Records the ascent, and uploads the constants of both phases. `engine` is the one that prepared the step.
    ///
    /// # Errors
    ///
    /// [`EngineError::Prepared`] if the hyperparameters need other kernels or norms than those that the step was
    /// prepared with, or the engine is on another device, and [`EngineError::Hyperparameter`]. On an error nothing is recorded.
    pub fn ascent(
        &mut self,
        engine: &Engine,
        encoder: &mut wgpu::CommandEncoder,
        hyper: &Hyperparameters,
        values: StepValues,
    ) -> Result<StepStats, EngineError> {
        let start = Instant::now();
        check_wsam(hyper, "a prepared step", NOT_PREPARED)?;
        hyper.validate()?;
        validate_lr(values.lr)?;
        InvScale::Host(values.inv_scale).check()?;
        let norms = Norms { inv_scale: values.inv_scale as f32, ..Default::default() };
        let options = AscentOptions { track_norms: self.track_norms, ..Default::default() };
        let options = AscentOptions { rounding: values.rounding, ..options };
        let in_place = matches!(self.ascent.kernel, Kernel::Ascent { in_place: true, .. });
        let source = NormsSource::Ascent(&self.norms, 0);
        let up = ascent_spec(hyper, options, in_place)?;
        let anchored = self.descent.kernel.is_anchored();
        let down = descent_spec(hyper, self.track_norms, anchored, source)?;
        let same = |phase: &Phase, spec: &PhaseSpec<'_>| {
            (phase.reduction, phase.kernel) == (spec.reduction, spec.kernel)
        };
        let is_own = engine.device == self.device;
        if !is_own || !same(&self.ascent, &up) || !same(&self.descent, &down) {
            return Err(EngineError::Prepared);
        }
        let blend = values.blend.map_or(BlendSource::Method, BlendSource::Host);
        let StepValues { lr, steps_taken, .. } = values;
        let seed = values.rounding.seed();
        // The ascent uses neither the learning rate nor the step count.
        let (up, down) = (
            self.ascent.classes.at(hyper, 0.0, 0)?,
            self.descent.classes.at(hyper, lr, steps_taken)?,
        );
        let up = up.constants(hyper, BlendSource::Method, PhaseKind::Plain);
        let down = down.constants(hyper, blend, PhaseKind::Plain);
        self.bytes.clear();
        for (phase, Constants { classes, .. }, seed) in
            [(&self.ascent, up, seed), (&self.descent, down, 0)]
        {
            append_constants(&mut self.bytes, &phase.plan, &classes, seed);
        }
        self.upload(engine, encoder, &norms)?;
        let Phase { label, plan, places, groups, .. } = &self.ascent;
        engine.encode_pass(encoder, label, plan, places, groups);
        self.is_ascended = true;
        Ok(StepStats { recording: start.elapsed(), uploads: 1, ..plan.stats })
    }

    /// Records the descent of the ascent recorded last.
    ///
    /// # Errors
    ///
    /// [`EngineError::NoAscent`] if there was no ascent since the last descent, and [`EngineError::Prepared`] if the
    /// engine is on another device.
    pub fn descent(
        &mut self,
        engine: &Engine,
        encoder: &mut wgpu::CommandEncoder,
    ) -> Result<StepStats, EngineError> {
        let start = Instant::now();
        if engine.device != self.device {
            return Err(EngineError::Prepared);
        }
        if !std::mem::take(&mut self.is_ascended) {
            return Err(EngineError::NoAscent);
        }
        let Phase { label, plan, places, groups, .. } = &self.descent;
        engine.encode_pass(encoder, label, plan, places, groups);
        Ok(StepStats { recording: start.elapsed(), uploads: 0, ..plan.stats })
    }

    /// Records the upload of the norms and the uniforms.
    ///
    /// The copies are commands of the encoder, so that steps may be recorded before earlier ones are submitted.
    fn upload(
        &mut self,
        engine: &Engine,
        encoder: &mut wgpu::CommandEncoder,
        norms: &Norms,
    ) -> Result<(), EngineError> {
        let size = self.uniforms.size();
        let staging = match self.staging.iter().find(|one| one.is_mapped.load(Ordering::Acquire)) {
            Some(staging) => staging,
            None => {
                let total = UNIFORMS as u64 + size;
                self.staging.push(Staging::new(engine, total)?);
                &self.staging[self.staging.len() - 1]
            }
        };
        let lost = |error: wgpu::MapRangeError| EngineError::Lost { reason: error.to_string() };
        let mut range = staging.buffer.get_mapped_range_mut(..).map_err(lost)?;
        range.slice(..size_of::<Norms>()).copy_from_slice(bytemuck::bytes_of(norms));
        range.slice(UNIFORMS..UNIFORMS + self.bytes.len()).copy_from_slice(&self.bytes);
        drop(range);
        staging.buffer.unmap();
        staging.is_mapped.store(false, Ordering::Release);
        encoder.copy_buffer_to_buffer(&staging.buffer, 0, &self.norms, 0, self.norms.size());
        encoder.copy_buffer_to_buffer(&staging.buffer, UNIFORMS as u64, &self.uniforms, 0, size);
        let is_mapped = staging.is_mapped.clone();
        encoder.map_buffer_on_submit(&staging.buffer, wgpu::MapMode::Write, .., move |result| {
            is_mapped.store(result.is_ok(), Ordering::Release);
        });
        Ok(())
    }
}

impl Staging {
    fn new(engine: &Engine, size: u64) -> Result<Self, EngineError> {
        let buffer = with_error_scopes(&engine.device, "wsam.staging", || {
            engine.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("wsam.staging"),
                size,
                usage: wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: true,
            })
        })?;
        Ok(Self { buffer, is_mapped: Arc::new(AtomicBool::new(true)) })
    }
}
