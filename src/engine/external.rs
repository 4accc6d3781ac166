//! The parts of a step around an external base optimizer: the gradient that it receives, and the sharpness
//! step that follows it.
//!
//! All run the descent kernel with other constants. The gradient is a step from zero with `lr = -1`, and
//! the sharpness step has a blend of zero.

use super::base::BaseStep;
use super::checks::check_wsam;
use super::columns::any_anchored;
use super::error::EngineError;
use super::options::{GradientOptions, Rates};
use super::phase::{Reduction, descent_reduction, gradient_reduction};
use super::record::{NormsSource, PhaseSpec};
use super::recorder::Engine;
use super::stats::StepStats;
use super::step::{Ascent, descent_spec};
use super::tensors::{ClipTensor, MixTensor, SharpenTensor};
use crate::layout::{Kernel, ParamClassUniforms};
use crate::method::Hyperparameters;

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
    /// Under GSAM, Friendly-SAM and LookSAM it is the gradient that their base optimizer steps on
    /// ([`Method`](crate::method::Method)), and the method's state is updated.
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
        let spec = descent_spec(hyper, ascent.track_norms(), true, ascent.norms_source())?;
        let spec = PhaseSpec { label: "wsam.mix", change: as_mix, ..spec.without_states() };
        Ok(Mix { stats: self.record(encoder, &spec, tensors)?.stats })
    }

    /// Records the clipping of the gradient in a step without a second pass.
    ///
    /// # Errors
    ///
    /// Those of [`base_step`](Engine::base_step). On an error nothing is recorded.
    pub fn clip(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        hyper: &Hyperparameters,
        options: GradientOptions<'_>,
        tensors: &[ClipTensor],
    ) -> Result<BaseStep, EngineError> {
        let kernel = Kernel::Descent { states: 0, anchored: true, alone: true };
        let takes_norm = hyper.clips_gradient() || options.track_norms;
        let reduction = gradient_reduction(hyper, takes_norm, false);
        let norms = NormsSource::New(options.inv_scale);
        let spec = PhaseSpec {
            change: as_mix,
            ..PhaseSpec::new("wsam.clip", hyper, (reduction, kernel), norms)
        };
        let recorded = self.record(encoder, &spec, tensors)?;
        Ok(BaseStep { norms: recorded.norms, stats: recorded.stats })
    }

    /// Records the sharpness step of the decoupled form, `w <- w - lr sharpness (g~ - g)`, after an external
    /// base optimizer has stepped. `mix` is the same step's [`mix`](Engine::mix), if there was one: then the
    /// norm of `g~` is not computed again.
    ///
    /// # Errors
    ///
    /// Those of [`descent`](Engine::descent), and [`EngineError::Method`] for a method other than WSAM. On an error
    /// nothing is recorded.
    pub fn sharpen<'a>(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        hyper: &Hyperparameters,
        rates: impl Into<Rates<'a>>,
        ascent: &Ascent,
        mix: Option<&Mix>,
        tensors: &[SharpenTensor],
    ) -> Result<StepStats, EngineError> {
        check_wsam(hyper, "sharpen", "it has no sharpness step: leave the call out")?;
        let reduction = match mix {
            Some(_) => Reduction::None,
            None => descent_reduction(hyper, ascent.track_norms()),
        };
        let anchored = any_anchored(tensors);
        let kernel = Kernel::Descent { states: 0, anchored, alone: false };
        let norms = ascent.norms_source();
        let spec = PhaseSpec {
            rates: rates.into(),
            change: as_sharpening,
            ..PhaseSpec::new("wsam.sharpen", hyper, (reduction, kernel), norms)
        };
        Ok(self.record(encoder, &spec, tensors)?.stats)
    }
}

/// Changes the constants of a class so that a descent writes `h = a g + b g~`, as `0 w - (-1) h`.
pub(super) fn as_mix(class: ParamClassUniforms) -> ParamClassUniforms {
    ParamClassUniforms { decay: 0.0, lr: -1.0, weight_decay: 0.0, sharpness: 0.0, ..class }
}

/// Changes the constants of a class so that the descent writes `w - lr sharpness (g~ - g)`.
fn as_sharpening(class: ParamClassUniforms) -> ParamClassUniforms {
    let flags = class.flags & !ParamClassUniforms::BY_DIFFERENCE;
    ParamClassUniforms { flags, decay: 1.0, weight_decay: 0.0, a: 0.0, b: 0.0, ..class }
}
