//! The base optimizer's step without a perturbation, for training steps that do not use WSAM. It takes one
//! gradient and shares the state with WSAM steps.

use super::columns::any_anchored;
use super::error::EngineError;
use super::options::{GradientOptions, Rates};
use super::phase::gradient_reduction;
use super::record::{NormsSource, PhaseSpec};
use super::recorder::Engine;
use super::stats::StepStats;
use super::tensors::BaseTensor;
use crate::layout::Kernel;
use crate::method::Hyperparameters;

/// A recorded base step.
#[derive(Debug)]
pub struct BaseStep {
    pub(super) norms: wgpu::Buffer,
    pub(super) stats: StepStats,
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
    /// `||g||` is computed if `g` is clipped or [norms are tracked](GradientOptions::track_norms).
    ///
    /// # Errors
    ///
    /// Those of [`descent`](Engine::descent). On an error nothing is recorded.
    pub fn base_step<'a>(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        hyper: &Hyperparameters,
        rates: impl Into<Rates<'a>>,
        options: GradientOptions<'_>,
        tensors: &[BaseTensor],
    ) -> Result<BaseStep, EngineError> {
        let states = hyper.base.state_names().len();
        let anchored = any_anchored(tensors);
        let kernel = Kernel::Descent { states: states as u32, anchored, alone: true };
        let takes_norm = hyper.clips_gradient() || options.track_norms;
        let reduction = gradient_reduction(hyper, takes_norm, false);
        let norms = NormsSource::New(options.inv_scale);
        let spec = PhaseSpec {
            rates: rates.into(),
            states,
            ..PhaseSpec::new("wsam.base_step", hyper, (reduction, kernel), norms)
        };
        let recorded = self.record(encoder, &spec, tensors)?;
        Ok(BaseStep { norms: recorded.norms, stats: recorded.stats })
    }
}
