//! The two halves of a step.

use super::Engine;
use super::checks::{check_ascent, check_slices};
use super::error::EngineError;
use super::half::{Half, HalfNorm};
use super::kinds::{Kinds, Rates, check_partners, check_states};
use super::record::Recording;
use super::slices::{AscentTensor, DescentTensor, Placement};
use super::stats::StepStats;
use crate::layout::{Kernel, NormOf, Norms, Scaling};
use crate::method::{Blend, Hyperparameters};
use std::time::Instant;

/// Choices of an ascent that are not the method's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AscentOptions {
    /// Where the perturbed weights go.
    pub placement: Placement,
    /// Compute `||g||` and `||g~||` even where the step has no use for them: 4 bytes more a
    /// parameter in the descent.
    pub track_norms: bool,
}

/// Where a descent takes its blend from.
#[derive(Clone, Copy, Debug)]
pub enum BlendSource<'a> {
    /// The method's own: [`Hyperparameters::blend`], and those of groups with a gamma of their own.
    Method,
    /// Another blend for all tensors, chosen by the host.
    Host(Blend),
    /// A device buffer with `BufferUsages::UNIFORM` that holds a
    /// [`BlendUniforms`](crate::layout::BlendUniforms), so that a kernel may choose the blend.
    Device(&'a wgpu::Buffer),
}

/// A recorded ascent, to be handed to its [`descent`](Engine::descent).
#[derive(Debug)]
#[must_use = "weights stay perturbed until the descent"]
pub struct Ascent {
    norms: wgpu::Buffer,
    tensors: usize,
    track_norms: bool,
    stats: StepStats,
}

impl Ascent {
    /// Device buffer with the step's [`Norms`]; complete once the descent has run.
    pub fn norms(&self) -> &wgpu::Buffer {
        &self.norms
    }

    /// What the ascent cost.
    pub fn stats(&self) -> StepStats {
        self.stats
    }

    pub(crate) fn tensors(&self) -> usize {
        self.tensors
    }

    pub(crate) fn track_norms(&self) -> bool {
        self.track_norms
    }
}

impl Engine {
    /// Records the ascent: the global norm of `g` and the climb to `w + e_w`.
    ///
    /// `tensors` are all tensors of the model: the norm is one number over them. Empty tensors and
    /// an empty list are allowed.
    ///
    /// # Errors
    ///
    /// An [`EngineError`] that names the tensor; nothing was recorded then.
    pub fn ascent(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        hyper: &Hyperparameters,
        options: AscentOptions,
        tensors: &[AscentTensor],
    ) -> Result<Ascent, EngineError> {
        let start = Instant::now();
        hyper.validate()?;
        let AscentOptions { placement, track_norms } = options;
        let half = Half {
            norm: Some(ascent_norm(hyper, track_norms)),
            kernel: Kernel::Ascent {
                scaling: scaling(hyper),
                in_place: placement == Placement::InPlace,
            },
        };
        let kinds = Kinds::of_groups(hyper, tensors.iter().map(|tensor| tensor.group))?;
        check_partners(&kinds, tensors.iter().map(|tensor| tensor.partner.is_some()))?;
        let norms = self.norms_buffer();
        let recording = Recording {
            label: "wsam.ascent",
            start,
            half,
            kinds: &kinds,
            constants: kinds.constants(hyper, BlendSource::Method),
            norms: &norms,
        };
        let each = tensors.iter().map(|tensor| (tensor.weight.len, tensor.columns()));
        let stats = self.run(encoder, &recording, each, || check_ascent(tensors, placement))?;
        Ok(Ascent { norms, tensors: tensors.len(), track_norms, stats })
    }

    /// Records the descent: restoration of `w`, blend, base step.
    ///
    /// `tensors` are those of `ascent`, in any order; `rates` is one learning rate, or one for each
    /// tensor. Returns what the descent cost.
    ///
    /// # Errors
    ///
    /// An [`EngineError`] that names the tensor; nothing was recorded then.
    pub fn descent<'a>(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        hyper: &Hyperparameters,
        rates: impl Into<Rates<'a>>,
        blend: BlendSource<'_>,
        ascent: &Ascent,
        tensors: &[DescentTensor],
    ) -> Result<StepStats, EngineError> {
        let start = Instant::now();
        hyper.validate()?;
        let rates = rates.into();
        rates.check(tensors.len())?;
        same_count(ascent.tensors, tensors.len())?;
        let states = hyper.base.state_names().len();
        check_states(tensors.iter().map(|tensor| (tensor.state.as_slice(), tensor.step)), states)?;
        let each = tensors.iter().map(|tensor| (tensor.group, tensor.step));
        let kinds = Kinds::of_steps(hyper, each, rates)?;
        // Every tensor or none: a plan has one kernel.
        let anchored = tensors.iter().any(|tensor| tensor.anchor.is_some());
        let half = Half {
            norm: descent_norm(hyper, ascent.track_norms),
            kernel: Kernel::Descent { states: states as u32, anchored, alone: false },
        };
        let recording = Recording {
            label: "wsam.descent",
            start,
            half,
            kinds: &kinds,
            constants: kinds.constants(hyper, blend),
            norms: &ascent.norms,
        };
        let each = tensors.iter().map(|tensor| (tensor.weight.len, tensor.columns(anchored)));
        self.run(encoder, &recording, each, || check_slices(tensors))
    }

    /// A fresh buffer for the norms, zero as wgpu makes it.
    pub(crate) fn norms_buffer(&self) -> wgpu::Buffer {
        self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("wsam.norms"),
            size: size_of::<Norms>() as u64,
            usage: wgpu::BufferUsages::STORAGE
                | wgpu::BufferUsages::UNIFORM
                | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        })
    }
}

/// How a model's perturbation scales with its weights.
pub(crate) fn scaling(hyper: &Hyperparameters) -> Scaling {
    if hyper.perturbs_by_gradient_norm() {
        Scaling::Plain
    } else if hyper.perturbs_unevenly() {
        Scaling::ByKind
    } else {
        Scaling::Adaptive
    }
}

/// The norms that an ascent takes, all in one reading.
pub(crate) fn ascent_norm(hyper: &Hyperparameters, track_norms: bool) -> HalfNorm {
    let (of, slots) = match scaling(hyper) {
        Scaling::Plain => (NormOf::Gradient, Norms::PERTURBATION | Norms::GRADIENT),
        scaling if hyper.clips_gradient() || track_norms => {
            (NormOf::Both(scaling), Norms::GRADIENT)
        }
        scaling => (NormOf::Perturbation(scaling), 0),
    };
    HalfNorm { of, perturbed: false, slots }
}

/// The norm of `g~`, where something needs it.
pub(crate) fn descent_norm(hyper: &Hyperparameters, track_norms: bool) -> Option<HalfNorm> {
    (hyper.clip.is_some() || track_norms).then_some(HalfNorm {
        of: NormOf::Gradient,
        perturbed: true,
        slots: Norms::PERTURBED,
    })
}

pub(crate) fn same_count(ascent: usize, descent: usize) -> Result<(), EngineError> {
    if ascent == descent { Ok(()) } else { Err(EngineError::TensorCount { ascent, descent }) }
}
