//! The phases of WSAM's relatives, as far as they differ from WSAM's.

use super::error::EngineError;
use super::method_constants::PhaseKind;
use super::options::BlendSource;
use super::phase::{Reduction, scaling};
use super::record::PhaseSpec;
use super::sums::{Sums, SumsReduction};
use crate::layout::{Kernel, Moments, Norms, StepOn, UpdateOf};
use crate::method::{Hyperparameters, Method, NonFinite};

/// Changes the spec of WSAM's ascent to that of another method.
pub(super) fn relative_ascent(spec: PhaseSpec<'_>) -> Result<PhaseSpec<'_>, EngineError> {
    let hyper = spec.hyper;
    hyper.validate_pairs()?;
    let spec = PhaseSpec { kind: PhaseKind::Ascent, ..spec };
    match hyper.method {
        Method::Wsam | Method::Gsam { .. } | Method::LookSam { .. } => Ok(spec),
        // The direction is `g`.
        Method::FriendlySam { sigma: 0.0, .. } => Ok(PhaseSpec { method_state: true, ..spec }),
        Method::FriendlySam { .. } => {
            let (in_place, stochastic) = match spec.kernel {
                Kernel::Ascent { in_place, stochastic, .. } => (in_place, stochastic),
                _ => (false, false),
            };
            let (scaling, alone) = (scaling(hyper), false);
            let of = Sums::Moments(Moments::Direction(scaling));
            let sums = SumsReduction { of, perturbed: false, slots: Norms::GRADIENT };
            Ok(PhaseSpec {
                reduction: Reduction::Norm(sums),
                kernel: Kernel::AscentWithState { scaling, in_place, stochastic, alone },
                method_state: true,
                ..spec
            })
        }
        Method::MomentumSam => {
            let reason = "it takes one gradient: call momentum_ascent and momentum_step";
            Err(refused(hyper, "ascent", reason))
        }
    }
}

/// Changes the spec of WSAM's descent to that of another method.
pub(super) fn relative_descent(spec: PhaseSpec<'_>) -> Result<PhaseSpec<'_>, EngineError> {
    let hyper = spec.hyper;
    hyper.validate_pairs()?;
    let of = Sums::Moments(Moments::Products);
    let products = SumsReduction { of, perturbed: true, slots: Norms::PERTURBED };
    // Only a step that falls back reads `g`.
    let of_sam = match hyper.non_finite {
        NonFinite::BaseStep => StepOn::Either,
        _ => StepOn::GradPerturbed,
    };
    let spec = PhaseSpec { kind: PhaseKind::Descent, ..spec };
    match hyper.method {
        Method::Wsam => Ok(spec),
        Method::Gsam { .. } => {
            let spec = PhaseSpec { reduction: Reduction::Norm(products), ..spec };
            Ok(stepping_on(spec, StepOn::SurrogateGap))
        }
        Method::FriendlySam { .. } => {
            let update = Some(UpdateOf::Average);
            Ok(stepping_on(PhaseSpec { update, method_state: true, ..spec }, of_sam))
        }
        Method::LookSam { .. } => {
            let (reduction, update) = (Reduction::Norm(products), Some(UpdateOf::Direction));
            Ok(stepping_on(PhaseSpec { reduction, update, method_state: true, ..spec }, of_sam))
        }
        Method::MomentumSam => {
            let reason = "it takes one gradient: call momentum_step";
            Err(refused(hyper, "descent", reason))
        }
    }
}

/// Checks that the blend is the method's own.
pub(super) fn check_blend(
    hyper: &Hyperparameters,
    blend: BlendSource<'_>,
) -> Result<(), EngineError> {
    match (hyper.method, blend) {
        (Method::Wsam, _) | (_, BlendSource::Method) => Ok(()),
        (_, BlendSource::Host(_) | BlendSource::Device(_)) => {
            let reason = "its blend depends on the gradients: pass BlendSource::Method";
            Err(refused(hyper, "a blend from the caller", reason))
        }
    }
}

pub(super) fn refused(
    hyper: &Hyperparameters,
    call: &'static str,
    reason: &'static str,
) -> EngineError {
    EngineError::Method { method: hyper.method.name(), call, reason }
}

fn stepping_on(spec: PhaseSpec<'_>, on: StepOn) -> PhaseSpec<'_> {
    let anchored = spec.kernel.is_anchored();
    let states = spec.states as u32;
    PhaseSpec { kernel: Kernel::MethodDescent { states, anchored, on }, ..spec }
}
