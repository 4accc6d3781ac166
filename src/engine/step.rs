//! The two halves of a step.

use super::Engine;
use super::checks::{check_ascent, check_slices};
use super::error::EngineError;
use super::kinds::{Kinds, Rates, check_partners, check_states};
use super::plan::{NormReduction, Phase, Reduction};
use super::record::PhaseInputs;
use super::scale::InvScale;
use super::slices::{AscentTensor, DescentTensor, Placement};
use super::stats::StepStats;
use crate::layout::{Kernel, NormOf, Norms, Scaling};
use crate::method::{Blend, Hyperparameters};
use std::time::Instant;

/// Choices of an ascent that are not the method's.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct AscentOptions<'a> {
    /// Where the perturbed weights go.
    pub placement: Placement,
    /// Compute `||g||` and `||g~||` even where the step has no use for them: 4 bytes more a
    /// parameter in the descent.
    pub track_norms: bool,
    /// What both gradients of the step are multiplied by.
    pub inv_scale: InvScale<'a>,
    /// How `w + e_w` becomes half precision.
    pub rounding: Rounding,
}

/// How `w + e_w` is rounded to half precision; single precision takes no notice.
///
/// To the nearest, an element whose perturbation is less than half of its last place is not perturbed
/// at all. By chance every element is, on average: it goes to either neighbour, the nearer the likelier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rounding {
    /// To the nearest, ties to even.
    #[default]
    Nearest,
    /// By chance. The seed and an element's place among those of all tensors decide, and nothing else:
    /// give each step a seed of its own.
    Stochastic {
        /// The same seed gives the same bits.
        seed: u64,
    },
}

impl Rounding {
    pub(crate) fn is_stochastic(self) -> bool {
        matches!(self, Self::Stochastic { .. })
    }

    pub(crate) fn seed(self) -> u64 {
        match self {
            Self::Nearest => 0,
            Self::Stochastic { seed } => seed,
        }
    }
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

    /// The descent is for so many tensors fewer, which stay as they are.
    #[cfg(feature = "burn")]
    pub(crate) fn leave_out(&mut self, tensors: usize) {
        self.tensors = self.tensors.saturating_sub(tensors);
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
        let AscentOptions { placement, track_norms, inv_scale, rounding } = options;
        let phase = Phase {
            reduction: Reduction::Norm(ascent_reduction(hyper, track_norms)),
            kernel: Kernel::Ascent {
                scaling: scaling(hyper),
                in_place: placement == Placement::InPlace,
                stochastic: rounding.is_stochastic(),
            },
        };
        let kinds = Kinds::of_groups(hyper, tensors.iter().map(|tensor| tensor.group))?;
        check_partners(&kinds, tensors.iter().map(|tensor| tensor.partner.is_some()))?;
        let (norms, scale) = self.norms_buffer(inv_scale)?;
        let inputs = PhaseInputs {
            label: "wsam.ascent",
            start,
            phase,
            kinds: &kinds,
            constants: kinds.constants(hyper, BlendSource::Method),
            norms: &norms,
            scale,
            seed: rounding.seed(),
        };
        let each = tensors.iter().map(|tensor| (tensor.weight.len, tensor.columns()));
        let stats =
            self.record_phase(encoder, &inputs, each, || check_ascent(tensors, placement))?;
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
        check_tensor_count(ascent.tensors, tensors.len())?;
        let states = hyper.base.state_names().len();
        check_states(tensors.iter().map(|tensor| (tensor.state.as_slice(), tensor.step)), states)?;
        let each = tensors.iter().map(|tensor| (tensor.group, tensor.step));
        let kinds = Kinds::of_steps(hyper, each, rates)?;
        // Every tensor or none: a plan has one kernel.
        let anchored = tensors.iter().any(|tensor| tensor.anchor.is_some());
        let phase = Phase {
            reduction: descent_reduction(hyper, ascent.track_norms),
            kernel: Kernel::Descent { states: states as u32, anchored, alone: false },
        };
        let inputs = PhaseInputs {
            label: "wsam.descent",
            start,
            phase,
            kinds: &kinds,
            constants: kinds.constants(hyper, blend),
            norms: &ascent.norms,
            scale: None,
            seed: 0,
        };
        let each = tensors.iter().map(|tensor| (tensor.weight.len, tensor.columns(anchored)));
        self.record_phase(encoder, &inputs, each, || check_slices(tensors))
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
pub(crate) fn ascent_reduction(hyper: &Hyperparameters, track_norms: bool) -> NormReduction {
    // What is not perturbed is in no norm but that of `g`.
    let unseen = hyper.non_finite.looks() && hyper.groups.iter().any(|group| !group.perturbed);
    let (of, slots) = match scaling(hyper) {
        Scaling::Plain => (NormOf::Gradient, Norms::PERTURBATION | Norms::GRADIENT),
        scaling if hyper.clips_gradient() || track_norms || unseen => {
            (NormOf::Both(scaling), Norms::GRADIENT)
        }
        scaling => (NormOf::Perturbation(scaling), 0),
    };
    NormReduction { of, perturbed: false, slots }
}

/// What a descent looks at: the norm of `g~` where something needs it, else whether it is finite.
pub(crate) fn descent_reduction(hyper: &Hyperparameters, track_norms: bool) -> Reduction {
    gradient_reduction(hyper, hyper.clip.is_some() || track_norms, true)
}

/// A norm of `g` or `g~` if it is wanted, else whether that is finite, if that matters.
pub(crate) fn gradient_reduction(
    hyper: &Hyperparameters,
    norm: bool,
    perturbed: bool,
) -> Reduction {
    let slots = if perturbed { Norms::PERTURBED } else { Norms::GRADIENT };
    if norm {
        Reduction::Norm(NormReduction { of: NormOf::Gradient, perturbed, slots })
    } else if hyper.non_finite.looks() {
        Reduction::CheckFinite { perturbed }
    } else {
        Reduction::None
    }
}

pub(crate) fn check_tensor_count(ascent: usize, descent: usize) -> Result<(), EngineError> {
    if ascent == descent { Ok(()) } else { Err(EngineError::TensorCount { ascent, descent }) }
}
