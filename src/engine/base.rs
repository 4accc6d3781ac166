//! The base optimizer's step without a perturbation, for training steps that do not use WSAM. It takes one
//! gradient and shares the state with WSAM steps.

use super::Engine;
use super::checks::check_slices;
use super::error::EngineError;
use super::kinds::{Kinds, Rates, check_states};
use super::plan::Phase;
use super::record::PhaseInputs;
use super::scale::GradientOptions;
use super::slices::BaseTensor;
use super::stats::StepStats;
use super::step::{BlendSource, gradient_reduction};
use crate::layout::{Kernel, KindUniforms};
use crate::method::Hyperparameters;
use std::time::Instant;

/// A recorded base step.
#[derive(Debug)]
pub struct BaseStep {
    norms: wgpu::Buffer,
    stats: StepStats,
}

impl BaseStep {
    /// Returns the device buffer with the step's [`Norms`](crate::layout::Norms). `||g||` is set if the step clips or tracks
    /// norms.
    pub fn norms(&self) -> &wgpu::Buffer {
        &self.norms
    }

    /// Returns the costs of the step.
    pub fn stats(&self) -> StepStats {
        self.stats
    }
}

impl Engine {
    /// Records `w <- base_step(w, g)`, with `g` clipped if the hyperparameters clip it.
    ///
    /// `||g||` is computed if `g` is clipped or [norms are tracked](GradientOptions::track_norms). `options` may
    /// be a `bool`, which sets `track_norms`.
    ///
    /// # Errors
    ///
    /// Those of [`descent`](Engine::descent). On an error nothing is recorded.
    pub fn base_step<'a>(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        hyper: &Hyperparameters,
        rates: impl Into<Rates<'a>>,
        options: impl Into<GradientOptions<'a>>,
        tensors: &[BaseTensor],
    ) -> Result<BaseStep, EngineError> {
        let (rates, options) = (rates.into(), options.into());
        let states = hyper.base.state_names().len();
        self.record_single_gradient(
            encoder,
            "wsam.base_step",
            hyper,
            (rates, options, states),
            tensors,
            |kind| kind,
        )
    }

    /// Records a phase over one gradient. It runs the descent kernel; `with` changes the constants of each kind.
    pub(crate) fn record_single_gradient(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        label: &'static str,
        hyper: &Hyperparameters,
        (rates, options, states): (Rates<'_>, GradientOptions<'_>, usize),
        tensors: &[BaseTensor],
        with: fn(KindUniforms) -> KindUniforms,
    ) -> Result<BaseStep, EngineError> {
        let start = Instant::now();
        hyper.validate()?;
        rates.check(tensors.len())?;
        check_states(tensors.iter().map(|tensor| (tensor.state.as_slice(), tensor.step)), states)?;
        let each = tensors.iter().map(|tensor| (tensor.group, tensor.step));
        let kinds = Kinds::of_steps(hyper, each, rates)?;
        let anchored = tensors.iter().any(|tensor| tensor.anchor.is_some());
        let phase = Phase {
            reduction: gradient_reduction(
                hyper,
                hyper.clips_gradient() || options.track_norms,
                false,
            ),
            kernel: Kernel::Descent { states: states as u32, anchored, alone: true },
        };
        let (norms, scale) = self.norms_buffer(options.inv_scale)?;
        let inputs = PhaseInputs {
            label,
            start,
            phase,
            kinds: &kinds,
            constants: kinds.constants(hyper, BlendSource::Method).with(with),
            norms: &norms,
            scale,
            seed: 0,
        };
        let each = tensors.iter().map(|tensor| (tensor.weight.len, tensor.columns(anchored)));
        let stats = self.record_phase(encoder, &inputs, each, || check_slices(tensors))?;
        Ok(BaseStep { norms, stats })
    }
}
