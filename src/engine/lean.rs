//! The step in lean mode: the ascent also takes the base step, so that `g` can be freed before the second
//! pass.
//!
//! Lean mode requires the decoupled form, whose base step needs only `w`, `g` and the state:
//!
//! ```text
//! ascent     perturbed = w + e_w,    u = base_step(w, g) + lr alpha g
//! descent    w = u - lr alpha g~
//! ```
//!
//! The step moves as many bytes as the ordinary step, but its peak memory is lower: during the second pass
//! it holds `w + e_w`, `u` and the state, where the ordinary step holds `w + e_w`, `w`, `g` and the state.
//! In exchange, `u` replaces `w` and the state advances before `g~` is known: a step that stops after the
//! ascent cannot be undone.

use super::checks::check_wsam;
use super::columns::any_anchored;
use super::error::EngineError;
use super::options::{GradientOptions, Rates};
use super::phase::{Reduction, ascent_reduction, descent_reduction, scaling};
use super::record::{NormsSource, PhaseSpec};
use super::recorder::Engine;
use super::stats::StepStats;
use super::tensors::{LeanAscentTensor, LeanDescentTensor};
use crate::layout::Kernel;
use crate::method::{Coupling, Hyperparameters};

/// A recorded lean ascent, the input of [`lean_descent`](Engine::lean_descent).
#[derive(Debug)]
#[must_use = "the step is incomplete until its lean descent"]
pub struct LeanAscent {
    norms: wgpu::Buffer,
    tensors: usize,
    track_norms: bool,
    hyper: Hyperparameters,
    /// One learning rate for each tensor, or one for all.
    rates: Vec<f64>,
    stats: StepStats,
}

impl LeanAscent {
    /// Returns the device buffer with the step's [`Norms`](crate::layout::Norms), complete after the descent has run.
    pub fn norms(&self) -> &wgpu::Buffer {
        &self.norms
    }

    /// Returns the costs of the ascent.
    pub fn stats(&self) -> StepStats {
        self.stats
    }
}

impl Engine {
    /// Records a lean ascent: the global norm of `g`, the perturbation to `w + e_w`, and the base step.
    ///
    /// `g` may be freed after the ascent has run.
    ///
    /// # Errors
    ///
    /// [`EngineError::LeanCoupled`] for the coupled form, and those of [`ascent`](Engine::ascent) and
    /// [`descent`](Engine::descent). On an error nothing is recorded.
    pub fn lean_ascent<'a>(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        hyper: &Hyperparameters,
        rates: impl Into<Rates<'a>>,
        options: GradientOptions<'_>,
        tensors: &[LeanAscentTensor],
    ) -> Result<LeanAscent, EngineError> {
        let reason = "its base step needs both gradients, or it takes one: use the ordinary step";
        check_wsam(hyper, "lean_ascent", reason)?;
        let GradientOptions { track_norms, inv_scale, rounding } = options;
        if hyper.coupling == Coupling::Coupled {
            hyper.validate()?;
            return Err(EngineError::LeanCoupled);
        }
        let rates = rates.into();
        let states = hyper.base.state_names().len();
        let kernel = Kernel::LeanAscent {
            scaling: scaling(hyper),
            states: states as u32,
            anchored: any_anchored(tensors),
            stochastic: rounding.is_stochastic(),
        };
        let reduction = Reduction::Norm(ascent_reduction(hyper, track_norms));
        let norms = NormsSource::New(inv_scale);
        let spec = PhaseSpec {
            rates,
            states,
            seed: rounding.seed(),
            ..PhaseSpec::new("wsam.lean_ascent", hyper, (reduction, kernel), norms)
        };
        let recorded = self.record(encoder, &spec, tensors)?;
        Ok(LeanAscent {
            norms: recorded.norms,
            tensors: tensors.len(),
            track_norms,
            hyper: hyper.clone(),
            rates: match rates {
                Rates::Same(rate) => vec![rate],
                Rates::Each(rates) => rates.to_vec(),
            },
            stats: recorded.stats,
        })
    }

    /// Records the rest of the step, `w = u - lr alpha g~`, and returns its costs.
    ///
    /// `tensors` are the tensors of `ascent`, in the same order if each has its own learning rate. The
    /// hyperparameters and learning rates are the ascent's.
    ///
    /// # Errors
    ///
    /// An [`EngineError`] that names the tensor. On an error nothing is recorded.
    pub fn lean_descent(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        ascent: &LeanAscent,
        tensors: &[LeanDescentTensor],
    ) -> Result<StepStats, EngineError> {
        let LeanAscent { hyper, rates, .. } = ascent;
        // Without the check of `g~` the kernel never restores weights.
        let anchored = hyper.non_finite.checks_gradients() && any_anchored(tensors);
        let kernel = Kernel::LeanDescent { anchored };
        let reduction = descent_reduction(hyper, ascent.track_norms);
        let norms = NormsSource::Ascent(&ascent.norms, ascent.tensors);
        // Before the rates, which are the ascent's.
        norms.check(tensors.len())?;
        let spec = PhaseSpec {
            rates: match rates.as_slice() {
                [rate] => Rates::Same(*rate),
                rates => Rates::Each(rates),
            },
            ..PhaseSpec::new("wsam.lean_descent", hyper, (reduction, kernel), norms)
        };
        Ok(self.record(encoder, &spec, tensors)?.stats)
    }
}
