//! The parts of a descent around an external base optimizer: the gradient that it receives, and the sharpness
//! step that follows it.
//!
//! Both run the descent kernel with other constants. The gradient is a step from zero with `lr = -1`, and
//! the sharpness step has a blend of zero.

use super::Engine;
use super::base::BaseStep;
use super::checks::{check_method, check_slices};
use super::error::EngineError;
use super::kinds::{Kinds, Rates};
use super::plan::{Phase, Reduction};
use super::record::PhaseInputs;
use super::scale::GradientOptions;
use super::slices::{BaseTensor, DescentTensor, Slice};
use super::stats::StepStats;
use super::step::{Ascent, BlendSource, check_tensor_count, descent_reduction};
use crate::layout::{Kernel, KindUniforms};
use crate::method::Hyperparameters;
use std::time::Instant;

/// One tensor of a [`mix`](Engine::mix). All slices have one length.
#[derive(Clone, Debug)]
pub struct MixTensor {
    /// The blended gradient. Written.
    pub mixed: Slice,
    /// The gradient `g`, unclipped. Read.
    pub grad: Slice,
    /// The perturbed gradient `g~`. Read.
    pub grad_perturbed: Slice,
    /// The parameter group, as in [`DescentTensor::group`].
    pub group: usize,
}

/// A recorded [`mix`](Engine::mix). It includes the norm of `g~` if the step needs it.
#[derive(Debug)]
pub struct Mix {
    stats: StepStats,
}

impl Mix {
    /// Returns the costs of the mix.
    pub fn stats(&self) -> StepStats {
        self.stats
    }
}

impl Engine {
    /// Records `mixed = a g + b g~`, the gradient for an external base optimizer. Both gradients are clipped if
    /// the hyperparameters clip them. In the decoupled form `mixed` is the clipped `g`.
    ///
    /// # Errors
    ///
    /// Those of [`descent`](Engine::descent). On an error nothing is recorded.
    pub fn mix(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        hyper: &Hyperparameters,
        ascent: &Ascent,
        tensors: &[MixTensor],
    ) -> Result<Mix, EngineError> {
        let start = Instant::now();
        let reduction = descent_reduction(hyper, ascent.track_norms());
        let tensors: Vec<_> = tensors
            .iter()
            .map(|tensor| DescentTensor {
                weight: tensor.mixed.clone(),
                // The kernel reads w and multiplies it by zero, so any initialised tensor will do.
                anchor: Some(tensor.grad.clone()),
                grad: tensor.grad.clone(),
                grad_perturbed: tensor.grad_perturbed.clone(),
                state: Vec::new(),
                step: 1,
                group: tensor.group,
            })
            .collect();
        let stats = self.record_blend(
            encoder,
            hyper,
            Rates::Same(0.0),
            reduction,
            ascent,
            &tensors,
            as_mix,
        )?;
        Ok(Mix { stats: StepStats { recording: start.elapsed(), ..stats } })
    }

    /// Records the clipping of the gradient in a step without a second pass. The result is written to each
    /// tensor's `weight`; `anchor`, `state` and `step` are ignored.
    ///
    /// # Errors
    ///
    /// Those of [`base_step`](Engine::base_step). On an error nothing is recorded.
    pub fn clip(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        hyper: &Hyperparameters,
        options: GradientOptions<'_>,
        tensors: &[BaseTensor],
    ) -> Result<BaseStep, EngineError> {
        let tensors: Vec<_> = tensors
            .iter()
            .map(|tensor| BaseTensor {
                anchor: Some(tensor.grad.clone()),
                state: Vec::new(),
                step: 1,
                ..tensor.clone()
            })
            .collect();
        let how = (Rates::Same(0.0), options, 0);
        self.record_single_gradient(encoder, "wsam.clip", hyper, how, &tensors, as_mix)
    }

    /// Records the sharpness step of the decoupled form, `w <- w - lr sharpness (g~ - g)`, after an external
    /// base optimizer has stepped. The tensors' `state` and `step` are ignored. `mix` is the same step's
    /// [`mix`](Engine::mix), if there was one: then the norm of `g~` is not computed again.
    ///
    /// # Errors
    ///
    /// Those of [`descent`](Engine::descent). On an error nothing is recorded.
    #[allow(clippy::too_many_arguments)]
    pub fn sharpen<'a>(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        hyper: &Hyperparameters,
        rates: impl Into<Rates<'a>>,
        ascent: &Ascent,
        mix: Option<&Mix>,
        tensors: &[DescentTensor],
    ) -> Result<StepStats, EngineError> {
        let reduction = match mix {
            Some(_) => Reduction::None,
            None => descent_reduction(hyper, ascent.track_norms()),
        };
        let stateless: Vec<_> = tensors
            .iter()
            .map(|tensor| DescentTensor { state: Vec::new(), ..tensor.clone() })
            .collect();
        self.record_blend(
            encoder,
            hyper,
            rates.into(),
            reduction,
            ascent,
            &stateless,
            as_sharpening,
        )
    }

    #[allow(clippy::too_many_arguments)]
    fn record_blend(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        hyper: &Hyperparameters,
        rates: Rates<'_>,
        reduction: Reduction,
        ascent: &Ascent,
        tensors: &[DescentTensor],
        with: fn(KindUniforms) -> KindUniforms,
    ) -> Result<StepStats, EngineError> {
        let start = Instant::now();
        hyper.validate()?;
        check_method(hyper)?;
        rates.check(tensors.len())?;
        check_tensor_count(ascent.tensors(), tensors.len())?;
        let anchored = tensors.iter().any(|tensor| tensor.anchor.is_some());
        let phase =
            Phase { reduction, kernel: Kernel::Descent { states: 0, anchored, alone: false } };
        let kinds = Kinds::of_steps(hyper, tensors.iter().map(|tensor| (tensor.group, 1)), rates)?;
        let inputs = PhaseInputs {
            label: "wsam.mix",
            start,
            phase,
            kinds: &kinds,
            constants: kinds.constants(hyper, BlendSource::Method).with(with),
            norms: ascent.norms(),
            scale: None,
            seed: 0,
        };
        let each = tensors.iter().map(|tensor| (tensor.weight.len, tensor.columns(anchored)));
        self.record_phase(encoder, &inputs, each, || check_slices(tensors))
    }
}

/// Changes a kind's constants so that the descent writes `h = a g + b g~`, as `0 w - (-1) h`.
fn as_mix(kind: KindUniforms) -> KindUniforms {
    KindUniforms { decay: 0.0, lr: -1.0, weight_decay: 0.0, sharpness: 0.0, ..kind }
}

/// Changes a kind's constants so that the descent writes `w - lr sharpness (g~ - g)`.
fn as_sharpening(kind: KindUniforms) -> KindUniforms {
    let flags = kind.flags & !KindUniforms::BY_DIFFERENCE;
    KindUniforms { flags, decay: 1.0, weight_decay: 0.0, a: 0.0, b: 0.0, ..kind }
}
