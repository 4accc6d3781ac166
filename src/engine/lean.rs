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

use super::Engine;
use super::checks::{check_method, check_slices};
use super::error::EngineError;
use super::kinds::{Kinds, Rates, check_partners, check_states};
use super::plan::{Phase, Reduction};
use super::record::PhaseInputs;
use super::scale::GradientOptions;
use super::slices::{LeanAscentTensor, LeanDescentTensor};
use super::stats::StepStats;
use super::step::{BlendSource, ascent_reduction, check_tensor_count, descent_reduction, scaling};
use crate::layout::Kernel;
use crate::method::{Coupling, Hyperparameters};
use std::time::Instant;

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
    /// `g` may be freed after the ascent has run. `options` may be a `bool`, which sets `track_norms`.
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
        options: impl Into<GradientOptions<'a>>,
        tensors: &[LeanAscentTensor],
    ) -> Result<LeanAscent, EngineError> {
        let start = Instant::now();
        hyper.validate()?;
        check_method(hyper)?;
        let GradientOptions { track_norms, inv_scale, rounding } = options.into();
        let rates = rates.into();
        rates.check(tensors.len())?;
        if hyper.coupling == Coupling::Coupled {
            return Err(EngineError::LeanCoupled);
        }
        let states = hyper.base.state_names().len();
        check_states(tensors.iter().map(|tensor| (tensor.state.as_slice(), tensor.step)), states)?;
        let each = tensors.iter().map(|tensor| (tensor.group, tensor.step));
        let kinds = Kinds::of_steps(hyper, each, rates)?;
        check_partners(&kinds, tensors.iter().map(|tensor| tensor.partner.is_some()))?;
        let anchored = tensors.iter().any(|tensor| tensor.anchor.is_some());
        let phase = Phase {
            reduction: Reduction::Norm(ascent_reduction(hyper, track_norms)),
            kernel: Kernel::LeanAscent {
                scaling: scaling(hyper),
                states: states as u32,
                anchored,
                stochastic: rounding.is_stochastic(),
            },
        };
        let (norms, scale) = self.norms_buffer(inv_scale)?;
        let inputs = PhaseInputs {
            label: "wsam.lean_ascent",
            start,
            phase,
            kinds: &kinds,
            constants: kinds.constants(hyper, BlendSource::Method),
            norms: &norms,
            scale,
            seed: rounding.seed(),
        };
        let each = tensors.iter().map(|tensor| (tensor.weight.len, tensor.columns(anchored)));
        let stats = self.record_phase(encoder, &inputs, each, || check_slices(tensors))?;
        Ok(LeanAscent {
            norms,
            tensors: tensors.len(),
            track_norms,
            hyper: hyper.clone(),
            rates: match rates {
                Rates::Same(rate) => vec![rate],
                Rates::Each(rates) => rates.to_vec(),
            },
            stats,
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
        let start = Instant::now();
        let LeanAscent { hyper, rates, .. } = ascent;
        check_tensor_count(ascent.tensors, tensors.len())?;
        let rates = match rates.as_slice() {
            [rate] => Rates::Same(*rate),
            rates => Rates::Each(rates),
        };
        // If one tensor has an anchor all get one, because a plan has one kernel.
        let anchored = hyper.non_finite.checks_gradients()
            && tensors.iter().any(|tensor| tensor.ran_on.is_some());
        let phase = Phase {
            reduction: descent_reduction(hyper, ascent.track_norms),
            kernel: Kernel::LeanDescent { anchored },
        };
        // The descent uses the blend, clipping and learning rate only, so the step count may be 1.
        let kinds = Kinds::of_steps(hyper, tensors.iter().map(|tensor| (tensor.group, 1)), rates)?;
        let inputs = PhaseInputs {
            label: "wsam.lean_descent",
            start,
            phase,
            kinds: &kinds,
            constants: kinds.constants(hyper, BlendSource::Method),
            norms: &ascent.norms,
            scale: None,
            seed: 0,
        };
        let each = tensors.iter().map(|tensor| (tensor.weight.len, tensor.columns(anchored)));
        self.record_phase(encoder, &inputs, each, || check_slices(tensors))
    }
}
