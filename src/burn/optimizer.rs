//! The optimizer: one step in two halves, or in one call.

mod lean;
mod passes;

pub use passes::Perturbation;
#[cfg(feature = "train")]
pub(super) use passes::copied;

use super::ascended::Ascended;
use super::config::RoutePolicy;
use super::error::{Rejected, WsamError};
#[cfg(feature = "fused-wsam")]
use super::fused::Fused;
use super::record::Loaded;
use super::report::Norms;
use super::route::{Route, TensorOpsReason};
use super::runner::{self, Context, Pending, Runner};
use super::state::OptimizerState;
use super::tensor_ops::TensorOps;
use crate::method::{Coupling, Hyperparameters, validate_lr};
use burn::module::{Module, ParamId};
use burn::optim::{GradientsParams, LearningRate};
use burn::tensor::Device;
use std::sync::atomic::{AtomicU64, Ordering};

/// WSAM around a base optimizer, for any Burn module. Made by
/// [`WsamConfig::init`](crate::WsamConfig::init).
///
/// One step takes two gradients, so it takes either a closure that computes the loss
/// ([`step`](Wsam::step)) or two calls ([`ascend`](Wsam::ascend), [`descend`](Wsam::descend)):
///
/// ```
/// use burn::nn::{Linear, LinearConfig};
/// use burn::optim::GradientsParams;
/// use burn::tensor::{Device, Distribution, Tensor};
/// use burn_wsam::{SgdBaseConfig, WsamConfig, WsamError};
///
/// # fn main() -> Result<(), WsamError> {
/// let device = Device::flex().autodiff();
/// let model = LinearConfig::new(4, 1).init(&device);
/// let mut optim = WsamConfig::new(SgdBaseConfig::new().into()).init(&device)?;
/// let x = Tensor::<2>::random([8, 4], Distribution::Default, &device);
/// let loss = |model: &Linear| model.forward(x.clone()).powi_scalar(2).mean();
///
/// // In one call:
/// let (model, report) = optim.step(0.1, model, loss)?;
/// println!("loss {}, sharpness {}", report.loss(), report.sharpness());
///
/// // In two, with the same effect:
/// let grads = GradientsParams::from_grads(loss(&model).backward(), &model);
/// let ascended = optim.ascend(model, grads)?;
/// let grads = GradientsParams::from_grads(loss(&ascended).backward(), &*ascended);
/// let model = optim.descend(0.1, ascended, grads)?;
/// # let _ = model;
/// # Ok(())
/// # }
/// ```
///
/// The second pass runs on a copy of the model with running statistics of its own: batch
/// normalisation advances once a step, from the unperturbed pass. Dropout draws another mask in
/// each pass.
#[derive(Debug)]
pub struct Wsam {
    hyper: Hyperparameters,
    track_norms: bool,
    lean: bool,
    device: Device,
    route: Route,
    way: Way,
    identity: u64,
}

#[derive(Debug)]
enum Way {
    TensorOps(TensorOps),
    #[cfg(feature = "fused-wsam")]
    Fused(Fused),
}

/// What an ascent leaves for its descent.
#[derive(Debug)]
pub(crate) enum Climb {
    TensorOps(Box<Pending<<TensorOps as Runner>::Kept>>),
    #[cfg(feature = "fused-wsam")]
    Fused(Box<Pending<<Fused as Runner>::Kept>>),
}

/// What a lean ascent leaves for its descent.
#[derive(Debug)]
pub(crate) enum LeanClimb {
    TensorOps(Box<Pending<<TensorOps as Runner>::LeanKept>>),
    #[cfg(feature = "fused-wsam")]
    Fused(Box<Pending<<Fused as Runner>::LeanKept>>),
}

/// Counts optimizers, so that an ascent finds its own again.
static IDENTITIES: AtomicU64 = AtomicU64::new(0);

impl Wsam {
    pub(crate) fn new(
        hyper: Hyperparameters,
        policy: RoutePolicy,
        (track_norms, lean): (bool, bool),
        device: &Device,
    ) -> Result<Self, WsamError> {
        if lean && hyper.coupling == Coupling::Coupled {
            return Err(WsamError::LeanCoupled);
        }
        let device = device.clone().without_autodiff();
        let (way, route) = choose(policy, &device)?;
        log::info!("WSAM around {}: {route}", hyper.base.name());
        let identity = IDENTITIES.fetch_add(1, Ordering::Relaxed);
        Ok(Self { hyper, track_norms, lean, device, route, way, identity })
    }

    /// Which way the steps run, and why.
    pub fn route(&self) -> &Route {
        &self.route
    }

    /// The method's hyperparameters.
    pub fn hyperparameters(&self) -> &Hyperparameters {
        &self.hyper
    }

    /// Sets the radius of the perturbation, for a schedule. Call it between steps.
    ///
    /// # Errors
    ///
    /// [`WsamError::Hyperparameter`] for a value outside its domain; nothing has changed then.
    pub fn set_rho(&mut self, rho: f64) -> Result<(), WsamError> {
        self.set(Hyperparameters { rho, ..self.hyper })
    }

    /// Sets the weight of the sharpness, for a schedule. Call it between steps: an ordinary descent
    /// takes the one that is set when it runs, a lean one that of its ascent.
    ///
    /// # Errors
    ///
    /// As [`set_rho`](Self::set_rho).
    pub fn set_gamma(&mut self, gamma: f64) -> Result<(), WsamError> {
        self.set(Hyperparameters { gamma, ..self.hyper })
    }

    fn set(&mut self, hyper: Hyperparameters) -> Result<(), WsamError> {
        hyper.validate()?;
        self.hyper = hyper;
        Ok(())
    }

    /// What the last whole step cost; `None` before the first one and in tensor operations.
    #[cfg(feature = "fused-wsam")]
    pub fn last_step(&self) -> Option<crate::engine::StepStats> {
        match &self.way {
            Way::TensorOps(_) => None,
            Way::Fused(fused) => fused.last_step(),
        }
    }

    /// State of a parameter, read back; `None` before its first step. Waits for the device.
    ///
    /// # Errors
    ///
    /// [`WsamError`] if the device was lost.
    pub fn state(&self, id: ParamId) -> Result<Option<OptimizerState>, WsamError> {
        match &self.way {
            Way::TensorOps(ops) => ops.state(&self.hyper.base, id),
            #[cfg(feature = "fused-wsam")]
            Way::Fused(fused) => fused.state(&self.hyper.base, id),
        }
    }

    /// Gives the model back in memory of its own, with the same values.
    ///
    /// The fused route keeps the weights of a model side by side in one arena, which lives as long as
    /// any of them does: call this before keeping a small part of a large model for long. The next
    /// step moves the weights into an arena again. In tensor operations the model is returned as it
    /// is.
    pub fn detach<M: Module>(&mut self, model: M) -> M {
        match &mut self.way {
            Way::TensorOps(_) => model,
            #[cfg(feature = "fused-wsam")]
            Way::Fused(fused) => {
                fused.forget();
                super::slots::detach(model)
            }
        }
    }

    /// The first half of a step: climbs to `w + e_w`.
    ///
    /// `grads` is the gradient at `model`. The result dereferences to the perturbed model, for the
    /// second pass; then call [`descend`](Self::descend).
    ///
    /// # Errors
    ///
    /// [`Rejected`] with the model unharmed: gradients of another model, another device, an element
    /// type the route does not take.
    #[doc(alias = "first_step")]
    pub fn ascend<M: Module>(
        &mut self,
        model: M,
        grads: GradientsParams,
    ) -> Result<Ascended<M>, Rejected<M>> {
        let (way, context, _) = self.parts();
        let ascended = match way {
            Way::TensorOps(ops) => runner::ascend(ops, context, &model, grads)
                .map(|(perturbed, pending)| (perturbed, Climb::TensorOps(Box::new(pending)))),
            #[cfg(feature = "fused-wsam")]
            Way::Fused(fused) => runner::ascend(fused, context, &model, grads)
                .map(|(perturbed, pending)| (perturbed, Climb::Fused(Box::new(pending)))),
        };
        match ascended {
            Ok((perturbed, climb)) => {
                Ok(Ascended { perturbed, anchor: model, climb, optimizer: self.identity })
            }
            Err(error) => Err(Rejected::new(model, error)),
        }
    }

    /// The second half: returns to `w` and takes the base optimizer's step.
    ///
    /// `grads` is the gradient at the perturbed model, `lr` the learning rate.
    ///
    /// # Errors
    ///
    /// [`Rejected`] with the model as it was before the ascent, and the optimizer's state as it
    /// was: a learning rate that is not finite, a parameter whose second gradient is missing, an
    /// ascent of another optimizer.
    #[doc(alias = "second_step")]
    pub fn descend<M: Module>(
        &mut self,
        lr: LearningRate,
        ascended: Ascended<M>,
        grads: GradientsParams,
    ) -> Result<M, Rejected<M>> {
        self.descend_reported(lr, ascended, grads).map(|(model, _)| model)
    }

    /// One step of the base optimizer alone, for the part of a training that goes without WSAM: one
    /// gradient, no perturbation, and the state that WSAM's steps carry on. It is WSAM's step at
    /// `gamma = 0`, without its second pass.
    ///
    /// # Errors
    ///
    /// [`Rejected`] with the model unharmed, as [`ascend`](Self::ascend), and for a learning rate that
    /// is not finite.
    pub fn base_step<M: Module>(
        &mut self,
        lr: LearningRate,
        model: M,
        grads: GradientsParams,
    ) -> Result<M, Rejected<M>> {
        if let Err(error) = validate_lr(lr) {
            return Err(Rejected::new(model, error.into()));
        }
        let (way, context, _) = self.parts();
        let stepped = match way {
            Way::TensorOps(ops) => runner::base_step(ops, context, lr, model, grads),
            #[cfg(feature = "fused-wsam")]
            Way::Fused(fused) => runner::base_step(fused, context, lr, model, grads),
        };
        stepped.map_err(rejected)
    }

    #[cfg(feature = "train")]
    pub(super) fn is_lean(&self) -> bool {
        self.lean
    }

    #[cfg(feature = "train")]
    pub(super) fn device(&self) -> &Device {
        &self.device
    }

    /// Whether [`state`](Self::state) has one, without a wait.
    #[cfg(feature = "train")]
    pub(super) fn has_state(&self, id: ParamId) -> bool {
        match &self.way {
            Way::TensorOps(ops) => ops.has_state(id),
            #[cfg(feature = "fused-wsam")]
            Way::Fused(fused) => fused.has_state(id),
        }
    }

    pub(super) fn replace_states(
        &mut self,
        ids: &[ParamId],
        loaded: Vec<Loaded>,
    ) -> Result<(), WsamError> {
        match &mut self.way {
            Way::TensorOps(ops) => ops.replace_states(&self.device, ids, loaded),
            #[cfg(feature = "fused-wsam")]
            Way::Fused(fused) => fused.replace_states(&self.device, ids, loaded),
        }
    }

    fn parts(&mut self) -> (&mut Way, Context<'_>, u64) {
        let Self { hyper, track_norms, device, way, identity, .. } = self;
        (way, Context { hyper, track_norms: *track_norms, device }, *identity)
    }

    pub(super) fn descend_reported<M: Module>(
        &mut self,
        lr: LearningRate,
        ascended: Ascended<M>,
        grads: GradientsParams,
    ) -> Result<(M, Norms), Rejected<M>> {
        let Ascended { perturbed, anchor, climb, optimizer } = ascended;
        let (way, context, identity) = self.parts();
        if optimizer != identity {
            return Err(Rejected::new(anchor, WsamError::ForeignAscent));
        }
        if let Err(error) = validate_lr(lr) {
            return Err(Rejected::new(anchor, error.into()));
        }
        let models = (perturbed, anchor);
        let descended = match (way, climb) {
            (Way::TensorOps(ops), Climb::TensorOps(pending)) => {
                runner::descend(ops, context, lr, models, *pending, grads)
            }
            #[cfg(feature = "fused-wsam")]
            (Way::Fused(fused), Climb::Fused(pending)) => {
                runner::descend(fused, context, lr, models, *pending, grads)
            }
            // An optimizer's route never changes, and the ascent is this optimizer's own.
            #[cfg(feature = "fused-wsam")]
            _ => Err((models.1, WsamError::ForeignAscent)),
        };
        descended.map_err(rejected)
    }
}

fn rejected<M>((model, error): (M, WsamError)) -> Rejected<M> {
    Rejected::new(model, error)
}

#[cfg(feature = "fused-wsam")]
fn choose(policy: RoutePolicy, device: &Device) -> Result<(Way, Route), WsamError> {
    let reason = match policy {
        RoutePolicy::TensorOps => TensorOpsReason::Requested,
        RoutePolicy::Auto | RoutePolicy::Fused => match super::device::shared(device) {
            Ok(shared) => {
                let route = shared.route();
                return Ok((Way::Fused(Fused::new(&shared)), route));
            }
            Err(reason) => reason,
        },
    };
    fall_back(policy, reason)
}

#[cfg(not(feature = "fused-wsam"))]
fn choose(policy: RoutePolicy, _device: &Device) -> Result<(Way, Route), WsamError> {
    let reason = match policy {
        RoutePolicy::TensorOps => TensorOpsReason::Requested,
        RoutePolicy::Auto | RoutePolicy::Fused => TensorOpsReason::FeatureOff,
    };
    fall_back(policy, reason)
}

fn fall_back(policy: RoutePolicy, reason: TensorOpsReason) -> Result<(Way, Route), WsamError> {
    if policy == RoutePolicy::Fused {
        return Err(WsamError::NotFused { reason: reason.to_string() });
    }
    Ok((Way::TensorOps(TensorOps::default()), Route::TensorOps(reason)))
}
