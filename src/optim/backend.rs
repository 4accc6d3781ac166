//! The backend of the chosen route. This file alone distinguishes the routes.

use super::burn_base::{self, BurnBase};
use super::error::WsamError;
#[cfg(feature = "fused-wsam")]
use super::fused::Fused;
use super::module_steps::{self, AscendedModels, PendingStep};
use super::momentum_steps;
use super::pass_schedule::StepKind;
use super::pending::ResolvedOutcome;
use super::rates::Rates;
use super::report::Norms;
use super::route::{Route, RoutePolicy, TensorOpsReason};
use super::state::{LoadedState, OptimizerState};
use super::state_store::{MethodStates, StateStore};
use super::step_backend::{OnePassUpdate, StepBackend, StepContext};
use super::tensor_ops::TensorOps;
use crate::method::Hyperparameters;
use burn::module::{Module, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{Bool, Device, Tensor};

/// The backend of the chosen route, with its state.
#[derive(Debug)]
pub(crate) enum RouteBackend {
    TensorOps(TensorOps),
    #[cfg(feature = "fused-wsam")]
    Fused(Fused),
}

/// State between an ascent and its descent, by route.
#[derive(Debug)]
pub(crate) enum AscentHandle {
    TensorOps(Box<PendingStep<<TensorOps as StepBackend>::AscentState>>),
    #[cfg(feature = "fused-wsam")]
    Fused(Box<PendingStep<<Fused as StepBackend>::AscentState>>),
    /// Momentum-SAM's.
    MomentumTensorOps(<TensorOps as StepBackend>::MomentumState),
    /// Momentum-SAM's.
    #[cfg(feature = "fused-wsam")]
    MomentumFused(Box<<Fused as StepBackend>::MomentumState>),
}

impl AscentHandle {
    pub(crate) fn kind(&self) -> StepKind {
        match self {
            Self::TensorOps(_) => StepKind::TwoPasses,
            #[cfg(feature = "fused-wsam")]
            Self::Fused(_) => StepKind::TwoPasses,
            Self::MomentumTensorOps(_) => StepKind::AlongMomentum,
            #[cfg(feature = "fused-wsam")]
            Self::MomentumFused(_) => StepKind::AlongMomentum,
        }
    }

    /// Returns the model with its weights as they were before the ascent.
    pub(crate) fn restore<M: Module>(&self, models: AscendedModels<M>) -> M {
        match self {
            Self::MomentumTensorOps(_) => models.1,
            #[cfg(feature = "fused-wsam")]
            Self::MomentumFused(_) => models.1,
            Self::TensorOps(step) => module_steps::restore::<TensorOps, M>(models, step),
            #[cfg(feature = "fused-wsam")]
            Self::Fused(step) => module_steps::restore::<Fused, M>(models, step),
        }
    }
}

/// State between a lean ascent and its descent, by route.
#[derive(Debug)]
pub(crate) enum LeanAscentHandle {
    TensorOps(Box<PendingStep<<TensorOps as StepBackend>::LeanAscentState>>),
    #[cfg(feature = "fused-wsam")]
    Fused(Box<PendingStep<<Fused as StepBackend>::LeanAscentState>>),
}

/// Evaluates an expression with the backend of either route.
macro_rules! with_route {
    ($backend:expr, $route:ident => $value:expr) => {
        match $backend {
            RouteBackend::TensorOps($route) => $value,
            #[cfg(feature = "fused-wsam")]
            RouteBackend::Fused($route) => $value,
        }
    };
}

/// Chooses the route for a device, as far as the policy leaves a choice.
pub(crate) fn choose(
    policy: RoutePolicy,
    device: &Device,
) -> Result<(RouteBackend, Route), WsamError> {
    let reason = match policy {
        RoutePolicy::TensorOps => TensorOpsReason::Requested,
        RoutePolicy::Auto | RoutePolicy::Fused => match fused(device)? {
            Ok(fused) => return Ok(fused),
            Err(reason) => reason,
        },
    };
    if policy == RoutePolicy::Fused {
        return Err(WsamError::NotFused { reason: reason.to_string() });
    }
    Ok((RouteBackend::TensorOps(TensorOps::default()), Route::TensorOps(reason)))
}

type Fallible<T, E> = Result<Result<T, E>, WsamError>;

/// The fused route on a device, or the reason why the device does not allow it.
#[cfg(feature = "fused-wsam")]
fn fused(device: &Device) -> Fallible<(RouteBackend, Route), TensorOpsReason> {
    Ok(match super::device::shared(device) {
        Ok(shared) => Ok((RouteBackend::Fused(Fused::new(&shared)?), shared.route())),
        Err(reason) => Err(reason),
    })
}

#[cfg(not(feature = "fused-wsam"))]
fn fused(_device: &Device) -> Fallible<(RouteBackend, Route), TensorOpsReason> {
    Ok(Err(TensorOpsReason::FeatureOff))
}

/// The phases of a step. On an error those that take a model by value return it unchanged.
impl RouteBackend {
    /// `in_place` allows the ascent to move the model's tensors.
    #[allow(clippy::type_complexity)]
    pub(crate) fn ascend<M: Module>(
        &mut self,
        context: StepContext<'_>,
        model: M,
        grads: GradientsParams,
        in_place: bool,
    ) -> Result<(AscendedModels<M>, AscentHandle), (M, WsamError)> {
        match self {
            Self::TensorOps(ops) => module_steps::ascend(ops, context, model, grads, in_place)
                .map(|(models, step)| (models, AscentHandle::TensorOps(Box::new(step)))),
            #[cfg(feature = "fused-wsam")]
            Self::Fused(fused) => module_steps::ascend(fused, context, model, grads, in_place)
                .map(|(models, step)| (models, AscentHandle::Fused(Box::new(step)))),
        }
    }

    pub(crate) fn ascend_along_momentum<M: Module>(
        &mut self,
        context: StepContext<'_>,
        model: &M,
    ) -> Result<(M, AscentHandle), WsamError> {
        match self {
            Self::TensorOps(ops) => momentum_steps::ascend(ops, context, model)
                .map(|(perturbed, state)| (perturbed, AscentHandle::MomentumTensorOps(state))),
            #[cfg(feature = "fused-wsam")]
            Self::Fused(fused) => momentum_steps::ascend(fused, context, model)
                .map(|(model, state)| (model, AscentHandle::MomentumFused(Box::new(state)))),
        }
    }

    pub(crate) fn descend<M: Module>(
        &mut self,
        base: Option<&mut BurnBase>,
        context: StepContext<'_>,
        rates: &Rates,
        models: AscendedModels<M>,
        ascent: AscentHandle,
        grads: GradientsParams,
    ) -> Result<(M, Norms), (M, WsamError)> {
        match (self, ascent) {
            (Self::TensorOps(ops), AscentHandle::MomentumTensorOps(state)) => {
                momentum_steps::descend(ops, context, rates, state, models, grads)
            }
            #[cfg(feature = "fused-wsam")]
            (Self::Fused(fused), AscentHandle::MomentumFused(state)) => {
                momentum_steps::descend(fused, context, rates, *state, models, grads)
            }
            (Self::TensorOps(ops), AscentHandle::TensorOps(step)) => {
                descend(ops, base, context, rates, models, *step, grads)
            }
            #[cfg(feature = "fused-wsam")]
            (Self::Fused(fused), AscentHandle::Fused(step)) => {
                descend(fused, base, context, rates, models, *step, grads)
            }
            // Unreachable: an optimizer's route never changes, and this optimizer made the ascent.
            #[cfg(feature = "fused-wsam")]
            _ => Err((models.1, WsamError::ForeignAscent)),
        }
    }

    #[allow(clippy::type_complexity)]
    pub(crate) fn lean_ascend<M: Module>(
        &mut self,
        context: StepContext<'_>,
        rates: &Rates,
        model: M,
        grads: GradientsParams,
    ) -> Result<(AscendedModels<M>, LeanAscentHandle), (M, WsamError)> {
        match self {
            Self::TensorOps(ops) => module_steps::lean_ascend(ops, context, rates, model, grads)
                .map(|(models, step)| (models, LeanAscentHandle::TensorOps(Box::new(step)))),
            #[cfg(feature = "fused-wsam")]
            Self::Fused(fused) => module_steps::lean_ascend(fused, context, rates, model, grads)
                .map(|(models, step)| (models, LeanAscentHandle::Fused(Box::new(step)))),
        }
    }

    pub(crate) fn lean_descend<M: Module>(
        &mut self,
        context: StepContext<'_>,
        models: AscendedModels<M>,
        ascent: LeanAscentHandle,
        grads: GradientsParams,
    ) -> Result<(M, Norms), (M, WsamError)> {
        match (self, ascent) {
            (Self::TensorOps(ops), LeanAscentHandle::TensorOps(step)) => {
                module_steps::lean_descend(ops, context, models, *step, grads)
            }
            #[cfg(feature = "fused-wsam")]
            (Self::Fused(fused), LeanAscentHandle::Fused(step)) => {
                module_steps::lean_descend(fused, context, models, *step, grads)
            }
            // Unreachable, as in `descend`.
            #[cfg(feature = "fused-wsam")]
            _ => Err((models.1, WsamError::ForeignAscent)),
        }
    }

    pub(crate) fn one_pass_step<M: Module>(
        &mut self,
        base: Option<&mut BurnBase>,
        context: StepContext<'_>,
        update: OnePassUpdate,
        rates: &Rates,
        model: M,
        grads: GradientsParams,
    ) -> Result<(M, Norms), (M, WsamError)> {
        with_route!(self, route => match base {
            None => module_steps::one_pass_step(route, context, update, rates, model, grads),
            Some(base) => {
                burn_base::one_pass_step(route, base, context, update, rates, model, grads)
            }
        })
    }

    /// Copies the model's parameters to separate memory, where the route has placed them in an arena.
    pub(crate) fn copy_to_own_memory<M: Module>(&mut self, model: M) -> M {
        match self {
            Self::TensorOps(_) => model,
            #[cfg(feature = "fused-wsam")]
            Self::Fused(fused) => {
                fused.forget_places();
                super::copies::copy_to_own_memory(model)
            }
        }
    }

    /// Cost of the last step; `None` in tensor operations.
    #[cfg(feature = "fused-wsam")]
    pub(crate) fn last_step_stats(&self) -> Option<crate::engine::StepStats> {
        match self {
            Self::TensorOps(_) => None,
            Self::Fused(fused) => fused.last_step_stats(),
        }
    }
}

fn descend<R: StepBackend, M: Module>(
    route: &mut R,
    base: Option<&mut BurnBase>,
    context: StepContext<'_>,
    rates: &Rates,
    models: AscendedModels<M>,
    step: PendingStep<R::AscentState>,
    grads: GradientsParams,
) -> Result<(M, Norms), (M, WsamError)> {
    match base {
        None => module_steps::descend(route, context, rates, models, step, grads),
        Some(base) => burn_base::descend(route, base, context, rates, models, step, grads),
    }
}

/// States and outcomes, as [`StateStore`].
impl RouteBackend {
    pub(crate) fn state(
        &self,
        hyper: &Hyperparameters,
        id: ParamId,
    ) -> Result<Option<OptimizerState>, WsamError> {
        with_route!(self, route => route.state(hyper, id))
    }

    #[cfg(feature = "train")]
    pub(crate) fn has_state(&self, id: ParamId) -> bool {
        with_route!(self, route => route.has_state(id))
    }

    pub(crate) fn replace_states(
        &mut self,
        device: &Device,
        ids: &[ParamId],
        loaded: Vec<LoadedState>,
    ) -> Result<(), WsamError> {
        with_route!(self, route => route.replace_states(device, ids, loaded))
    }

    pub(crate) fn method_states(&self, hyper: &Hyperparameters) -> Result<MethodStates, WsamError> {
        with_route!(self, route => route.method_states(hyper))
    }

    pub(crate) fn awaits_outcome(&self) -> bool {
        with_route!(self, route => route.awaits_outcome())
    }

    pub(crate) fn forget(&mut self, is_dropped: &dyn Fn(ParamId) -> bool) {
        with_route!(self, route => route.forget(is_dropped))
    }

    /// Number of skipped steps that the optimizer's step count still includes. Waits for pending steps.
    pub(crate) fn overcount(&self) -> Result<u64, WsamError> {
        with_route!(self, route => route.overcount(None))
    }

    pub(crate) fn skipped_flag(&self) -> Result<Option<Tensor<1, Bool>>, WsamError> {
        with_route!(self, route => route.skipped_flag())
    }

    pub(crate) fn latest_outcome(&self) -> Result<Option<ResolvedOutcome>, WsamError> {
        with_route!(self, route => route.latest_outcome())
    }

    pub(crate) fn decided_outcomes(&self) -> Result<Vec<ResolvedOutcome>, WsamError> {
        with_route!(self, route => route.decided_outcomes())
    }

    pub(crate) fn resolve_outcomes(&mut self) -> Result<Vec<ResolvedOutcome>, WsamError> {
        with_route!(self, route => route.resolve_outcomes())
    }
}
