//! The base optimizer's step alone, for the part of a training that goes without WSAM: one gradient, and
//! the same state.

use super::Engine;
use super::checks::check_slices;
use super::error::EngineError;
use super::half::{Half, HalfNorm};
use super::kinds::{Kinds, Rates, check_states};
use super::record::Constants;
use super::slices::BaseTensor;
use super::stats::StepStats;
use super::step::{BlendSource, stats};
use crate::layout::{Kernel, NormOf, Norms};
use crate::method::Hyperparameters;
use std::time::Instant;

/// A recorded base step.
#[derive(Debug)]
pub struct BaseStep {
    norms: wgpu::Buffer,
    stats: StepStats,
}

impl BaseStep {
    /// Device buffer with the step's [`Norms`]: `||g||`, if the step needed it.
    pub fn norms(&self) -> &wgpu::Buffer {
        &self.norms
    }

    /// What the step cost.
    pub fn stats(&self) -> StepStats {
        self.stats
    }
}

impl Engine {
    /// Records `w <- base_step(w, g)`, with `g` clipped where the hyperparameters clip it. `||g||` is
    /// computed if they do, or for `track_norms`.
    ///
    /// # Errors
    ///
    /// As [`descent`](Engine::descent); nothing was recorded then.
    pub fn base_step<'a>(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        hyper: &Hyperparameters,
        rates: impl Into<Rates<'a>>,
        track_norms: bool,
        tensors: &[BaseTensor],
    ) -> Result<BaseStep, EngineError> {
        let start = Instant::now();
        hyper.validate()?;
        let rates = rates.into();
        rates.check(tensors.len())?;
        let states = hyper.base.state_names().len();
        check_states(tensors.iter().map(|tensor| (tensor.state.as_slice(), tensor.step)), states)?;
        let each = tensors.iter().map(|tensor| (tensor.group, tensor.step));
        let kinds = Kinds::of_steps(hyper, each, rates)?;
        let anchored = tensors.iter().any(|tensor| tensor.anchor.is_some());
        let half = Half {
            norm: (hyper.clips_gradient() || track_norms).then_some(HalfNorm {
                of: NormOf::Gradient,
                perturbed: false,
                slots: Norms::GRADIENT,
            }),
            kernel: Kernel::Descent { states: states as u32, anchored, alone: true },
        };
        let rows = tensors
            .iter()
            .enumerate()
            .map(|(i, tensor)| kinds.row(i, tensor.weight.len, tensor.columns(anchored)));
        let plan = self.plan(half, rows, || check_slices(tensors))?;
        let blend = BlendSource::Method;
        let constants = Constants { kinds: kinds.uniforms(hyper, blend), blend };
        let norms = self.norms_buffer();
        self.record(encoder, "wsam.base_step", &plan.0, &constants, &norms)?;
        Ok(BaseStep { norms, stats: stats(&plan.0, plan.1, start) })
    }
}
