//! The step in lean mode: the base optimizer steps in the ascent, and `g` is free before the second
//! pass.
//!
//! For the decoupled form alone, whose base step needs `w`, `g` and the state only:
//!
//! ```text
//! ascent     perturbed = w + e_w,    u = base_step(w, g) + lr alpha g
//! descent    w = u - lr alpha g~
//! ```
//!
//! The bytes are those of the ordinary step. The peak falls: through the second pass live `w + e_w`,
//! `u` and the state, where the ordinary step keeps `w + e_w`, `w`, `g` and the state. The price: `u`
//! takes the place of `w`, and the state has advanced, before `g~` is known. A step given up half
//! way cannot be taken back.

use super::Engine;
use super::constants::step_constants;
use super::error::EngineError;
use super::half::Half;
use super::record::Constants;
use super::slices::{LeanAscentTensor, LeanDescentTensor, check_slices, classes};
use super::stats::StepStats;
use super::step::{BlendSource, ascent_norm, descent_norm, same_count, stats};
use crate::layout::Kernel;
use crate::method::{Coupling, Hyperparameters, validate_lr};
use std::time::Instant;

/// A recorded lean ascent, to be handed to its [`lean_descent`](Engine::lean_descent).
#[derive(Debug)]
#[must_use = "the step is half taken until the descent"]
pub struct LeanAscent {
    norms: wgpu::Buffer,
    tensors: usize,
    track_norms: bool,
    hyper: Hyperparameters,
    lr: f64,
    stats: StepStats,
}

impl LeanAscent {
    /// Device buffer with the step's [`Norms`](crate::layout::Norms); complete once the descent has
    /// run.
    pub fn norms(&self) -> &wgpu::Buffer {
        &self.norms
    }

    /// What the ascent cost.
    pub fn stats(&self) -> StepStats {
        self.stats
    }
}

impl Engine {
    /// Records a lean ascent: the global norm of `g`, the climb to `w + e_w`, and the base step.
    ///
    /// `g` may be freed once it has run. `track_norms` is that of
    /// [`AscentOptions`](super::AscentOptions).
    ///
    /// # Errors
    ///
    /// [`EngineError::LeanCoupled`] for the coupled form, and those of
    /// [`ascent`](Engine::ascent) and [`descent`](Engine::descent); nothing was recorded then.
    pub fn lean_ascent(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        hyper: &Hyperparameters,
        lr: f64,
        track_norms: bool,
        tensors: &[LeanAscentTensor],
    ) -> Result<LeanAscent, EngineError> {
        let start = Instant::now();
        hyper.validate()?;
        validate_lr(lr)?;
        if hyper.coupling == Coupling::Coupled {
            return Err(EngineError::LeanCoupled);
        }
        let states = hyper.base.state_names().len();
        let each = tensors.iter().map(|tensor| (tensor.state.as_slice(), tensor.step));
        let (classes, steps) = classes(each, states)?;
        let anchored = tensors.iter().any(|tensor| tensor.anchor.is_some());
        let half = Half {
            norm: Some(ascent_norm(hyper, track_norms)),
            kernel: Kernel::LeanAscent {
                adaptive: hyper.adaptive,
                states: states as u32,
                anchored,
            },
        };
        let rows = tensors
            .iter()
            .zip(&classes)
            .map(|(tensor, class)| (*class, tensor.weight.len, tensor.columns(anchored)));
        let plan = self.plan(half, rows, || check_slices(tensors))?;
        let steps = steps.iter().map(|step| step_constants(hyper, lr, *step)).collect();
        let constants = Constants { hyper, blend: BlendSource::Method, steps };
        let norms = self.norms_buffer();
        self.record(encoder, "wsam.lean_ascent", &plan.0, &constants, &norms)?;
        Ok(LeanAscent {
            norms,
            tensors: tensors.len(),
            track_norms,
            hyper: *hyper,
            lr,
            stats: stats(&plan.0, plan.1, start),
        })
    }

    /// Records what is left of the step: `w = u - lr alpha g~`.
    ///
    /// `tensors` are those of `ascent`, in any order; hyperparameters and learning rate are the
    /// ascent's. Returns what the descent cost.
    ///
    /// # Errors
    ///
    /// An [`EngineError`] that names the tensor; nothing was recorded then.
    pub fn lean_descent(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        ascent: &LeanAscent,
        tensors: &[LeanDescentTensor],
    ) -> Result<StepStats, EngineError> {
        let start = Instant::now();
        let LeanAscent { hyper, lr, .. } = ascent;
        same_count(ascent.tensors, tensors.len())?;
        let half =
            Half { norm: descent_norm(hyper, ascent.track_norms), kernel: Kernel::LeanDescent };
        let rows = tensors.iter().map(|tensor| (0, tensor.weight.len, tensor.columns()));
        let plan = self.plan(half, rows, || check_slices(tensors))?;
        // Clipping and the learning rate are all it takes from them.
        let steps = vec![step_constants(hyper, *lr, 1)];
        let constants = Constants { hyper, blend: BlendSource::Method, steps };
        self.record(encoder, "wsam.lean_descent", &plan.0, &constants, &ascent.norms)?;
        Ok(stats(&plan.0, plan.1, start))
    }
}
