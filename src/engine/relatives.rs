//! The steps over one gradient of WSAM's relatives: LookSAM between its SAM steps, and Momentum-SAM.

use super::base::BaseStep;
use super::columns::any_anchored;
use super::error::EngineError;
use super::external::as_mix;
use super::method_constants::PhaseKind;
use super::momentum_tensor::MomentumTensor;
use super::options::{GradientOptions, InvScale, Rates, Rounding};
use super::phase::{Reduction, gradient_reduction, length_reduction};
use super::record::{NormsSource, PhaseSpec};
use super::recorder::Engine;
use super::relative_specs::refused;
use super::step::Ascent;
use super::sums::{Sums, SumsReduction};
use super::tensors::{BaseTensor, ClipTensor, Placement};
use crate::layout::{Kernel, Moments, Scaling, StepOn};
use crate::method::{Hyperparameters, Method};

impl Engine {
    /// Records LookSAM's step over one gradient, between its SAM steps: the base optimizer steps on
    /// `g + alpha ||g|| h`, where `h` is the [method state](BaseTensor::method_state). With
    /// [`MethodState::Unset`](super::MethodState::Unset) `h` is zero.
    ///
    /// # Errors
    ///
    /// [`EngineError::Method`] for a method other than LookSAM, and those of [`base_step`](Engine::base_step). On an error
    /// nothing is recorded.
    pub fn one_pass_step<'a>(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        hyper: &Hyperparameters,
        rates: impl Into<Rates<'a>>,
        options: GradientOptions<'_>,
        tensors: &[BaseTensor],
    ) -> Result<BaseStep, EngineError> {
        let spec = one_pass_spec(hyper, options, any_anchored(tensors), "one_pass_step")?;
        let spec = PhaseSpec { rates: rates.into(), ..spec };
        let recorded = self.record(encoder, &spec, tensors)?;
        Ok(BaseStep { norms: recorded.norms, stats: recorded.stats })
    }

    /// Records `g + alpha ||g|| h`, clipped, as the gradient for an external base optimizer: the counterpart of
    /// [`one_pass_step`](Engine::one_pass_step).
    ///
    /// # Errors
    ///
    /// Those of [`one_pass_step`](Engine::one_pass_step). On an error nothing is recorded.
    pub fn one_pass_mix(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        hyper: &Hyperparameters,
        options: GradientOptions<'_>,
        tensors: &[ClipTensor],
    ) -> Result<BaseStep, EngineError> {
        let spec = one_pass_spec(hyper, options, true, "one_pass_mix")?;
        let spec = PhaseSpec { label: "wsam.one_pass_mix", change: as_mix, ..spec };
        let recorded = self.record(encoder, &spec.without_states(), tensors)?;
        Ok(BaseStep { norms: recorded.norms, stats: recorded.stats })
    }

    /// Records Momentum-SAM's ascent, which begins its step: `w + e_w` with `e_w = -rho m / (||m|| + epsilon)` and the
    /// momentum `m` of the last step. The step's only gradient is then taken at `w + e_w`.
    ///
    /// The [norms](Ascent::norms) of this ascent hold `||m||`. Whether the step is taken is in those of
    /// [`momentum_step`](Engine::momentum_step).
    ///
    /// # Errors
    ///
    /// [`EngineError::Method`] for another method, [`EngineError::Incompatible`] for SGD without momentum, and those of
    /// [`ascent`](Engine::ascent). On an error nothing is recorded.
    pub fn momentum_ascent(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        hyper: &Hyperparameters,
        rounding: Rounding,
        tensors: &[MomentumTensor],
    ) -> Result<Ascent, EngineError> {
        check_momentum(hyper, "momentum_ascent")?;
        let of = Sums::Moments(Moments::Momentum);
        let sums = SumsReduction { of, perturbed: false, slots: 0 };
        let kernel = Kernel::AscentWithState {
            scaling: Scaling::Plain,
            in_place: Placement::all_in_place(tensors.iter().map(|tensor| &tensor.perturbed))?,
            stochastic: rounding.is_stochastic(),
            alone: true,
        };
        // The momentum is not scaled by a loss scale.
        let norms = NormsSource::New(InvScale::default());
        let spec = PhaseSpec {
            kind: PhaseKind::Ascent,
            seed: rounding.seed(),
            ..PhaseSpec::new("wsam.ascent", hyper, (Reduction::Norm(sums), kernel), norms)
        };
        let recorded = self.record(encoder, &spec, tensors)?;
        let (norms, stats) = (recorded.norms, recorded.stats);
        Ok(Ascent { norms, tensors: tensors.len(), track_norms: false, stats })
    }

    /// Records the rest of Momentum-SAM's step: the base optimizer's step from `w` on the gradient at `w + e_w`, which is
    /// each tensor's `grad`. An L2 penalty is that of `w + e_w`.
    ///
    /// `tensors` are the tensors of `ascent`, in any order. After an ascent in place each has the
    /// [anchor](BaseTensor::anchor) that `w` was saved to.
    ///
    /// # Errors
    ///
    /// [`EngineError::Method`] for another method, [`EngineError::TensorCount`], and those of
    /// [`base_step`](Engine::base_step). On an error nothing is recorded.
    pub fn momentum_step<'a>(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        hyper: &Hyperparameters,
        rates: impl Into<Rates<'a>>,
        options: GradientOptions<'_>,
        ascent: &Ascent,
        tensors: &[BaseTensor],
    ) -> Result<BaseStep, EngineError> {
        check_momentum(hyper, "momentum_step")?;
        ascent.norms_source().check(tensors.len())?;
        let takes_norm = hyper.clip.is_some() || options.track_norms;
        let states = hyper.base.state_names().len();
        let kernel = Kernel::MethodDescent {
            states: states as u32,
            anchored: any_anchored(tensors),
            on: StepOn::AtMomentum,
        };
        let reduction = gradient_reduction(hyper, takes_norm, false);
        let norms = NormsSource::New(options.inv_scale);
        let spec = PhaseSpec {
            rates: rates.into(),
            states,
            kind: PhaseKind::OnePass,
            perturbation: Some(&ascent.norms),
            ..PhaseSpec::new("wsam.momentum_step", hyper, (reduction, kernel), norms)
        };
        let recorded = self.record(encoder, &spec, tensors)?;
        Ok(BaseStep { norms: recorded.norms, stats: recorded.stats })
    }
}

fn check_momentum(hyper: &Hyperparameters, call: &'static str) -> Result<(), EngineError> {
    if hyper.method != Method::MomentumSam {
        return Err(refused(hyper, call, "only Momentum-SAM perturbs along the momentum"));
    }
    hyper.validate_pairs()?;
    Ok(())
}

/// Returns the spec of LookSAM's step over one gradient.
fn one_pass_spec<'a>(
    hyper: &'a Hyperparameters,
    options: GradientOptions<'a>,
    anchored: bool,
    call: &'static str,
) -> Result<PhaseSpec<'a>, EngineError> {
    hyper.validate_pairs()?;
    if !matches!(hyper.method, Method::LookSam { .. }) {
        let reason = match hyper.method {
            Method::MomentumSam => "call momentum_ascent and momentum_step",
            _ => "its steps take two gradients: call ascent and descent, or base_step",
        };
        return Err(refused(hyper, call, reason));
    }
    let states = hyper.base.state_names().len();
    let kernel = Kernel::MethodDescent { states: states as u32, anchored, on: StepOn::Corrected };
    let reduction = Reduction::Norm(length_reduction(hyper, options.track_norms));
    let norms = NormsSource::New(options.inv_scale);
    Ok(PhaseSpec {
        states,
        kind: PhaseKind::OnePass,
        method_state: true,
        ..PhaseSpec::new("wsam.one_pass_step", hyper, (reduction, kernel), norms)
    })
}
