//! The base optimizer's step alone, for the part of a training that goes without WSAM: one gradient, and
//! the same state.

use super::Engine;
use super::constants::step_constants;
use super::error::EngineError;
use super::half::{Half, HalfNorm};
use super::record::Constants;
use super::slices::{BaseTensor, check_slices, classes};
use super::stats::StepStats;
use super::step::{BlendSource, stats};
use crate::layout::{Kernel, NormOf, Norms};
use crate::method::{Hyperparameters, validate_lr};
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
    pub fn base_step(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        hyper: &Hyperparameters,
        lr: f64,
        track_norms: bool,
        tensors: &[BaseTensor],
    ) -> Result<BaseStep, EngineError> {
        let start = Instant::now();
        hyper.validate()?;
        validate_lr(lr)?;
        let states = hyper.base.state_names().len();
        let each = tensors.iter().map(|tensor| (tensor.state.as_slice(), tensor.step));
        let (classes, steps) = classes(each, states)?;
        let anchored = tensors.iter().any(|tensor| tensor.anchor.is_some());
        let half = Half {
            norm: (hyper.clips_gradient() || track_norms).then_some(HalfNorm {
                of: NormOf::Gradient,
                perturbed: false,
                slots_plain: Norms::GRADIENT,
                slots_scaled: 0,
            }),
            kernel: Kernel::Descent { states: states as u32, anchored, alone: true },
        };
        let rows = tensors
            .iter()
            .zip(&classes)
            .map(|(tensor, class)| (*class, tensor.weight.len, tensor.columns(anchored)));
        let plan = self.plan(half, rows, || check_slices(tensors))?;
        let steps = steps.iter().map(|step| step_constants(hyper, lr, *step)).collect();
        let constants = Constants { hyper, blend: BlendSource::Method, steps };
        let norms = self.norms_buffer();
        self.record(encoder, "wsam.base_step", &plan.0, &constants, &norms)?;
        Ok(BaseStep { norms, stats: stats(&plan.0, plan.1, start) })
    }
}
