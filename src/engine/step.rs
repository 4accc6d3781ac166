//! The two phases of a step: ascent and descent.

use super::Engine;
use super::checks::{check_ascent, check_method, check_slices};
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

/// Options of an ascent that are not hyperparameters.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct AscentOptions<'a> {
    /// Where the perturbed weights are written.
    pub placement: Placement,
    /// Compute `||g||` and `||g~||` even where the step does not need them. The descent then reads up to 4 more
    /// bytes a parameter.
    pub track_norms: bool,
    /// The factor that unscales both gradients.
    pub inv_scale: InvScale<'a>,
    /// How `w + e_w` is rounded to half precision.
    pub rounding: Rounding,
}

/// How `w + e_w` is rounded to half precision. It has no effect in single precision.
///
/// Rounding to nearest leaves an element unperturbed if its perturbation is less than half a unit in the last
/// place. Stochastic rounding selects one of the two neighbouring values with a probability that falls with
/// its distance, so that each element is perturbed by the right amount on average.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rounding {
    /// Round to nearest, ties to even.
    #[default]
    Nearest,
    /// Stochastic rounding. The result depends only on the value, the seed and the element's position among all
    /// tensors, so each step needs a different seed.
    Stochastic {
        /// Seed of the random bits. The same seed gives the same bits.
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

/// Source of a descent's blend.
#[derive(Clone, Copy, Debug)]
pub enum BlendSource<'a> {
    /// The hyperparameters: [`Hyperparameters::blend`], and a group's `gamma` where it is set.
    Method,
    /// One blend for all tensors, set by the host.
    Host(Blend),
    /// A device buffer with `BufferUsages::UNIFORM` that holds a
    /// [`BlendUniforms`](crate::layout::BlendUniforms), so that a kernel can compute the blend.
    Device(&'a wgpu::Buffer),
}

/// A recorded ascent, the input of [`descent`](Engine::descent).
#[derive(Debug)]
#[must_use = "weights stay perturbed until the descent"]
pub struct Ascent {
    norms: wgpu::Buffer,
    tensors: usize,
    track_norms: bool,
    stats: StepStats,
}

impl Ascent {
    /// Returns the device buffer with the step's [`Norms`], complete after the descent has run.
    pub fn norms(&self) -> &wgpu::Buffer {
        &self.norms
    }

    /// Returns the costs of the ascent.
    pub fn stats(&self) -> StepStats {
        self.stats
    }

    /// Reduces the number of tensors that the descent expects. The tensors that it omits are not updated.
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
    /// Records the ascent: the global norm of `g` and the perturbation to `w + e_w`.
    ///
    /// `tensors` must contain all tensors of the model, because the norm is taken over all of them. Empty
    /// tensors and an empty list are allowed.
    ///
    /// # Errors
    ///
    /// An [`EngineError`] that names the tensor. On an error nothing is recorded.
    pub fn ascent(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        hyper: &Hyperparameters,
        options: AscentOptions,
        tensors: &[AscentTensor],
    ) -> Result<Ascent, EngineError> {
        let start = Instant::now();
        hyper.validate()?;
        check_method(hyper)?;
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

    /// Records the descent: it restores `w`, blends the two gradients and takes the base step. Returns the costs.
    ///
    /// `tensors` are the tensors of `ascent`, in any order. `rates` is one learning rate, or one for each
    /// tensor.
    ///
    /// # Errors
    ///
    /// An [`EngineError`] that names the tensor. On an error nothing is recorded.
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
        check_method(hyper)?;
        let rates = rates.into();
        rates.check(tensors.len())?;
        check_tensor_count(ascent.tensors, tensors.len())?;
        let states = hyper.base.state_names().len();
        check_states(tensors.iter().map(|tensor| (tensor.state.as_slice(), tensor.step)), states)?;
        let each = tensors.iter().map(|tensor| (tensor.group, tensor.step));
        let kinds = Kinds::of_steps(hyper, each, rates)?;
        // If one tensor has an anchor all get one, because a plan has one kernel.
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

/// Returns how the perturbation scales with the weights, over all groups.
pub(crate) fn scaling(hyper: &Hyperparameters) -> Scaling {
    if hyper.perturbs_by_gradient_norm() {
        Scaling::Plain
    } else if hyper.perturbs_unevenly() {
        Scaling::ByKind
    } else {
        Scaling::Adaptive
    }
}

/// Returns the norms that an ascent takes. All are computed in one pass over `g`.
pub(crate) fn ascent_reduction(hyper: &Hyperparameters, track_norms: bool) -> NormReduction {
    // Only the norm of `g` covers the tensors that are not perturbed, so it has to check them.
    let unseen =
        hyper.non_finite.checks_gradients() && hyper.groups.iter().any(|group| !group.perturbed);
    let (of, slots) = match scaling(hyper) {
        Scaling::Plain => (NormOf::Gradient, Norms::PERTURBATION | Norms::GRADIENT),
        scaling if hyper.clips_gradient() || track_norms || unseen => {
            (NormOf::Both(scaling), Norms::GRADIENT)
        }
        scaling => (NormOf::Perturbation(scaling), 0),
    };
    NormReduction { of, perturbed: false, slots }
}

/// Returns the reduction of a descent: the norm of `g~` if clipping or tracking needs it, else the check that
/// `g~` is finite.
pub(crate) fn descent_reduction(hyper: &Hyperparameters, track_norms: bool) -> Reduction {
    gradient_reduction(hyper, hyper.clip.is_some() || track_norms, true)
}

/// Returns the reduction over `g`, or `g~` if `perturbed`: its norm if `norm` is set, else the check that it is
/// finite if the method checks gradients.
pub(crate) fn gradient_reduction(
    hyper: &Hyperparameters,
    norm: bool,
    perturbed: bool,
) -> Reduction {
    let slots = if perturbed { Norms::PERTURBED } else { Norms::GRADIENT };
    if norm {
        Reduction::Norm(NormReduction { of: NormOf::Gradient, perturbed, slots })
    } else if hyper.non_finite.checks_gradients() {
        Reduction::CheckFinite { perturbed }
    } else {
        Reduction::None
    }
}

pub(crate) fn check_tensor_count(ascent: usize, descent: usize) -> Result<(), EngineError> {
    if ascent == descent { Ok(()) } else { Err(EngineError::TensorCount { ascent, descent }) }
}
