//! The two phases of a step: ascent and descent.

use super::columns::any_anchored;
use super::error::EngineError;
use super::options::{AscentOptions, BlendSource, Rates};
use super::phase::{Reduction, ascent_reduction, descent_reduction, scaling};
use super::record::{NormsSource, PhaseSpec};
use super::recorder::Engine;
use super::relative_specs::{check_blend, relative_ascent, relative_descent};
use super::stats::StepStats;
use super::tensors::{AscentTensor, DescentTensor};
use crate::layout::Kernel;
use crate::method::{Hyperparameters, Method};

/// A recorded ascent, the input of [`descent`](Engine::descent).
#[derive(Debug)]
#[must_use = "weights stay perturbed until the descent"]
pub struct Ascent {
    pub(super) norms: wgpu::Buffer,
    pub(super) tensors: usize,
    pub(super) track_norms: bool,
    pub(super) stats: StepStats,
}

impl Ascent {
    /// Returns the device buffer with the step's [`Norms`](crate::layout::Norms), complete after the descent has run.
    pub fn norms(&self) -> &wgpu::Buffer {
        &self.norms
    }

    /// Returns the costs of the ascent.
    pub fn stats(&self) -> StepStats {
        self.stats
    }

    /// Sets the number of tensors that the step after this ascent expects.
    #[cfg(feature = "burn")]
    pub(crate) fn expect_tensors(&mut self, tensors: usize) {
        self.tensors = tensors;
    }

    /// Reduces the number of tensors that the descent expects. The tensors that it omits are not updated.
    #[cfg(feature = "burn")]
    pub(crate) fn leave_out(&mut self, tensors: usize) {
        self.tensors = self.tensors.saturating_sub(tensors);
    }

    pub(super) fn norms_source(&self) -> NormsSource<'_> {
        NormsSource::Ascent(&self.norms, self.tensors)
    }

    pub(super) fn track_norms(&self) -> bool {
        self.track_norms
    }
}

impl Engine {
    /// Records the ascent: the global norm of `g` and the perturbation to `w + e_w`.
    ///
    /// Under Friendly-SAM the direction is not `g`, so each perturbed tensor needs a
    /// [method state](AscentTensor::method_state). Momentum-SAM has an ascent of its own,
    /// [`momentum_ascent`](Engine::momentum_ascent).
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
        options: AscentOptions<'_>,
        tensors: &[AscentTensor],
    ) -> Result<Ascent, EngineError> {
        let track_norms = options.track_norms;
        let spec = ascent_spec(hyper, options, AscentTensor::all_in_place(tensors)?)?;
        let recorded = self.record(encoder, &spec, tensors)?;
        let tensors = tensors.len();
        Ok(Ascent { norms: recorded.norms, tensors, track_norms, stats: recorded.stats })
    }

    /// Records the descent: it restores `w`, blends the two gradients and takes the base step. Returns the costs.
    ///
    /// Under [another method](crate::method::Method) than WSAM the base optimizer steps on that method's gradient, `blend`
    /// must be [`BlendSource::Method`], and the [method state](DescentTensor::method_state) of perturbed tensors is
    /// updated.
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
        let (anchored, norms) = (any_anchored(tensors), ascent.norms_source());
        check_blend(hyper, blend)?;
        let spec = descent_spec(hyper, ascent.track_norms, anchored, norms)?;
        let spec = PhaseSpec { rates: rates.into(), blend, ..spec };
        Ok(self.record(encoder, &spec, tensors)?.stats)
    }
}

/// Returns the spec of an ascent.
pub(super) fn ascent_spec<'a>(
    hyper: &'a Hyperparameters,
    AscentOptions { track_norms, inv_scale, rounding }: AscentOptions<'a>,
    in_place: bool,
) -> Result<PhaseSpec<'a>, EngineError> {
    let norms = NormsSource::New(inv_scale);
    let stochastic = rounding.is_stochastic();
    let kernel = Kernel::Ascent { scaling: scaling(hyper), in_place, stochastic };
    let reduction = Reduction::Norm(ascent_reduction(hyper, track_norms));
    let spec = PhaseSpec::new("wsam.ascent", hyper, (reduction, kernel), norms);
    let spec = PhaseSpec { seed: rounding.seed(), ..spec };
    match hyper.method {
        Method::Wsam => Ok(spec),
        _ => relative_ascent(spec),
    }
}

/// Returns the spec of a descent with the method's blend.
pub(super) fn descent_spec<'a>(
    hyper: &'a Hyperparameters,
    track_norms: bool,
    anchored: bool,
    norms: NormsSource<'a>,
) -> Result<PhaseSpec<'a>, EngineError> {
    let states = hyper.base.state_names().len();
    let kernel = Kernel::Descent { states: states as u32, anchored, alone: false };
    let reduction = descent_reduction(hyper, track_norms);
    let spec = PhaseSpec::new("wsam.descent", hyper, (reduction, kernel), norms);
    let spec = PhaseSpec { states, ..spec };
    match hyper.method {
        Method::Wsam => Ok(spec),
        _ => relative_descent(spec),
    }
}
