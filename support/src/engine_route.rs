//! [`EngineRoute`], the engine as a route of the replay, and helpers for its buffers.

use super::adapters::{Gpu, webgpu_device};
use super::golden::{Tensors, narrow, widen};
use super::replay::Route;
use burn_wsam::engine::{
    Ascent, AscentOptions, AscentTensor, BlendSource, DescentTensor, Engine, EngineError, InvScale,
    Placement, Slice,
};
use burn_wsam::method::{Hyperparameters, NonFinite, Outcome};
use std::sync::Arc;
use wgpu::util::DeviceExt;

/// An engine on a test's adapter.
pub fn engine(gpu: &Gpu) -> Result<Arc<Engine>, String> {
    let (engine, _) = Engine::on_adapter(&gpu.adapter).map_err(|error| error.to_string())?;
    Ok(Arc::new(engine))
}

/// An engine on a device with WebGPU's default limits.
pub fn webgpu_engine(gpu: &Gpu) -> Result<Arc<Engine>, String> {
    let (device, queue) = webgpu_device(gpu)?;
    Engine::new(&device, &queue).map(Arc::new).map_err(|error| error.to_string())
}

/// The same hyperparameters without checks for non-finite gradients.
pub fn propagating(hyper: Hyperparameters) -> Hyperparameters {
    Hyperparameters { non_finite: NonFinite::Propagate, ..hyper }
}

/// A storage buffer with this content.
pub fn buffer(engine: &Engine, values: &[f32]) -> wgpu::Buffer {
    engine.device().create_buffer_init(&wgpu::util::BufferInitDescriptor {
        label: None,
        contents: bytemuck::cast_slice(if values.is_empty() { &[0.0] } else { values }),
        usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC,
    })
}

/// A slice over a buffer of its own.
pub fn slice(engine: &Engine, values: &[f32]) -> Slice {
    Slice::new(&buffer(engine, values), values.len() as u64)
}

/// The slice's content.
pub fn read(engine: &Engine, slice: &Slice) -> Result<Vec<f32>, EngineError> {
    let bytes = engine.read_buffer(&slice.buffer)?;
    let start = slice.offset as usize;
    let end = start + 4 * slice.len as usize;
    Ok(bytemuck::pod_collect_to_vec(&bytes[start..end]))
}

/// Where a test's ascents write `w + e_w`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    OutOfPlace,
    InPlace,
}

impl Placed {
    /// The placement with this slice for `w + e_w`, or in place for `w`; without one, none.
    pub fn with(self, slice: Option<Slice>) -> Placement {
        match (self, slice) {
            (_, None) => Placement::Unperturbed,
            (Self::OutOfPlace, Some(slice)) => Placement::OutOfPlace(slice),
            (Self::InPlace, anchor) => Placement::InPlace { anchor },
        }
    }
}

/// The tensor, with its slice for `w + e_w` in this placement.
pub fn replaced(tensor: AscentTensor, placed: Placed) -> AscentTensor {
    let slice = match &tensor.perturbed {
        Placement::OutOfPlace(slice) => Some(slice.clone()),
        Placement::InPlace { anchor } => anchor.clone(),
        _ => None,
    };
    changed(tensor, |tensor| tensor.perturbed = placed.with(slice))
}

/// A value with some fields set.
pub fn changed<T>(mut value: T, change: impl FnOnce(&mut T)) -> T {
    change(&mut value);
    value
}

/// The engine holding a model, in either placement.
pub struct EngineRoute {
    engine: Arc<Engine>,
    hyper: Hyperparameters,
    placement: Placed,
    weight: Vec<Slice>,
    partner: Vec<Slice>,
    state: Vec<Vec<Slice>>,
    groups: Vec<usize>,
    track_norms: bool,
    /// What gradients are multiplied by before they are handed in, and whether the device holds its
    /// inverse.
    scale: Option<(f64, bool)>,
    pending: Option<(Ascent, Vec<Slice>)>,
    step: u64,
}

/// Whether each tensor is perturbed, by its group.
pub fn perturbed(hyper: &Hyperparameters, groups: &[usize]) -> Vec<bool> {
    let of = |group: &usize| hyper.in_group(*group).expect("a test's group").perturbed;
    groups.iter().map(of).collect()
}

impl EngineRoute {
    pub fn new(
        engine: &Arc<Engine>,
        hyper: Hyperparameters,
        placement: Placed,
        weight: &[Vec<f64>],
    ) -> Self {
        let upload = |tensor: &Vec<f64>| slice(engine, &narrow(tensor));
        // Garbage: the first step must not look at it.
        let garbage = |tensor: &Vec<f64>| slice(engine, &vec![f32::NAN; tensor.len()]);
        let states = hyper.base.state_names().iter();
        Self {
            engine: engine.clone(),
            placement,
            weight: weight.iter().map(upload).collect(),
            partner: weight.iter().map(garbage).collect(),
            state: states.map(|_| weight.iter().map(garbage).collect()).collect(),
            groups: vec![0; weight.len()],
            track_norms: true,
            scale: None,
            pending: None,
            step: 0,
            hyper,
        }
    }

    /// Puts each tensor into a group of the hyperparameters.
    pub fn with_groups(mut self, groups: &[usize]) -> Self {
        self.groups = groups.to_vec();
        self
    }

    /// Takes no norm that the step has no use for.
    pub fn untracked(mut self) -> Self {
        self.track_norms = false;
        self
    }

    /// Hands in gradients of a loss of this scale.
    pub fn scaled(mut self, scale: f64, on_device: bool) -> Self {
        self.scale = Some((scale, on_device));
        self
    }

    fn upload(&self, grad: &[f64]) -> Slice {
        let scale = self.scale.map_or(1.0, |(scale, _)| scale);
        let scaled: Vec<f64> = grad.iter().map(|g| g * scale).collect();
        slice(&self.engine, &narrow(&scaled))
    }

    fn read_all(&self, slices: &[Slice]) -> Result<Tensors, String> {
        let wide = |slice| read(&self.engine, slice).map(|values| widen(&values));
        slices.iter().map(|slice| wide(slice).map_err(|error| error.to_string())).collect()
    }

    fn encoder(&self) -> wgpu::CommandEncoder {
        self.engine.device().create_command_encoder(&Default::default())
    }
}

impl Route for EngineRoute {
    fn ascend(&mut self, grad: &[Vec<f64>]) -> Result<Tensors, String> {
        let grad: Vec<_> = grad.iter().map(|g| self.upload(g)).collect();
        let moved = perturbed(&self.hyper, &self.groups);
        let tensors: Vec<_> = (0..self.weight.len())
            .map(|i| {
                AscentTensor::new(
                    self.weight[i].clone(),
                    grad[i].clone(),
                    self.placement.with(moved[i].then(|| self.partner[i].clone())),
                )
                .in_group(self.groups[i])
            })
            .collect();
        let mut encoder = self.encoder();
        let inverse = self.scale.map_or(1.0, |(scale, _)| 1.0 / scale);
        let held = buffer(&self.engine, &[inverse as f32]);
        let inv_scale = match self.scale {
            Some((_, true)) => InvScale::Device(&held),
            _ => InvScale::Host(inverse),
        };
        let mut options = AscentOptions::default().with_inv_scale(inv_scale);
        options.track_norms = self.track_norms;
        let ascent = self
            .engine
            .ascent(&mut encoder, &self.hyper, options, &tensors)
            .map_err(|error| error.to_string())?;
        self.engine.queue().submit([encoder.finish()]);
        self.pending = Some((ascent, grad));
        match self.placement {
            Placed::InPlace => self.read_all(&self.weight),
            Placed::OutOfPlace => {
                let slices = tensors.into_iter().map(|t| match t.perturbed {
                    Placement::OutOfPlace(perturbed) => perturbed,
                    _ => t.weight,
                });
                self.read_all(&slices.collect::<Vec<_>>())
            }
        }
    }

    fn descend(&mut self, lr: f64, grad_perturbed: &[Vec<f64>]) -> Result<Tensors, String> {
        let (ascent, grad) = self.pending.take().ok_or("no ascent")?;
        self.step += 1;
        let moved = perturbed(&self.hyper, &self.groups);
        let tensors: Vec<_> = (0..self.weight.len())
            .map(|i| {
                DescentTensor::new(
                    self.weight[i].clone(),
                    grad[i].clone(),
                    self.upload(&grad_perturbed[i]),
                )
                .with_anchor(
                    (moved[i] && self.placement == Placed::InPlace)
                        .then(|| self.partner[i].clone()),
                )
                .with_state(self.state.iter().map(|plane| plane[i].clone()).collect(), self.step)
                .in_group(self.groups[i])
            })
            .collect();
        let mut encoder = self.encoder();
        self.engine
            .descent(&mut encoder, &self.hyper, lr, BlendSource::Method, &ascent, &tensors)
            .map_err(|error| error.to_string())?;
        self.engine.queue().submit([encoder.finish()]);
        let norms = self.engine.read_norms(ascent.norms()).map_err(|error| error.to_string())?;
        let (gradient, perturbed) = (norms.gradient_is_finite(), norms.perturbed_is_finite());
        // A skipped step does not advance the step count.
        if self.hyper.non_finite.outcome(false, gradient, perturbed) == Outcome::Skipped {
            self.step -= 1;
        }
        self.read_all(&self.weight)
    }

    fn state(&mut self) -> Result<Vec<Tensors>, String> {
        self.state.iter().map(|plane| self.read_all(plane)).collect()
    }
}
