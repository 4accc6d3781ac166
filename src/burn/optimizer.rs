//! The optimizer: one step in two halves, or in one call.

use super::ascended::Ascended;
use super::config::RoutePolicy;
use super::error::{Rejected, WsamError};
#[cfg(feature = "fused-wsam")]
use super::fused::{Fused, FusedClimb};
use super::report::StepReport;
use super::route::{Route, TensorOpsReason};
use super::slots::{Slot, assign, collect, collect_perturbed, perturbed_copy};
use super::state::OptimizerState;
use super::tensor_ops::{TensorNorms, TensorOps};
use crate::method::{Hyperparameters, validate_lr};
use burn::module::{Module, ParamId};
use burn::optim::{GradientsParams, LearningRate};
use burn::tensor::{DType, Device, Tensor};
use std::collections::HashMap;
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
    device: Device,
    route: Route,
    runner: Runner,
    identity: u64,
}

#[derive(Debug)]
enum Runner {
    TensorOps(TensorOps),
    #[cfg(feature = "fused-wsam")]
    Fused(Fused),
}

/// What an ascent leaves for its descent and for the report.
#[derive(Debug)]
pub(crate) enum Climb {
    TensorOps(Box<TensorNorms>),
    #[cfg(feature = "fused-wsam")]
    Fused(Box<FusedClimb>),
}

impl Climb {
    pub(crate) fn gradient_norm(&self) -> Result<Option<f64>, WsamError> {
        match self {
            Climb::TensorOps(norms) => Ok(norms.gradient.as_ref().map(scalar)),
            #[cfg(feature = "fused-wsam")]
            Climb::Fused(climb) => climb.gradient_norm(),
        }
    }

    pub(crate) fn perturbed_gradient_norm(&self) -> Result<Option<f64>, WsamError> {
        match self {
            Climb::TensorOps(norms) => Ok(norms.perturbed.as_ref().map(scalar)),
            #[cfg(feature = "fused-wsam")]
            Climb::Fused(climb) => climb.perturbed_gradient_norm(),
        }
    }
}

fn scalar(tensor: &Tensor<1>) -> f64 {
    tensor.clone().into_scalar::<f64>()
}

/// Counts optimizers, so that an ascent finds its own again.
static IDENTITIES: AtomicU64 = AtomicU64::new(0);

impl Wsam {
    pub(crate) fn new(
        hyper: Hyperparameters,
        policy: RoutePolicy,
        track_norms: bool,
        device: &Device,
    ) -> Result<Self, WsamError> {
        let device = device.clone().without_autodiff();
        let (runner, route) = choose(policy, &device)?;
        log::info!("WSAM around {}: {route}", hyper.base.name());
        let identity = IDENTITIES.fetch_add(1, Ordering::Relaxed);
        Ok(Self { hyper, track_norms, device, route, runner, identity })
    }

    /// Which way the steps run, and why.
    pub fn route(&self) -> &Route {
        &self.route
    }

    /// The method's hyperparameters.
    pub fn hyperparameters(&self) -> &Hyperparameters {
        &self.hyper
    }

    /// What the last whole step cost; `None` before the first one and in tensor operations.
    #[cfg(feature = "fused-wsam")]
    pub fn last_step(&self) -> Option<crate::engine::StepStats> {
        match &self.runner {
            Runner::TensorOps(_) => None,
            Runner::Fused(fused) => fused.last_step(),
        }
    }

    /// State of a parameter, read back; `None` before its first step. Waits for the device.
    ///
    /// # Errors
    ///
    /// [`WsamError`] if the device was lost.
    pub fn state(&self, id: ParamId) -> Result<Option<OptimizerState>, WsamError> {
        match &self.runner {
            Runner::TensorOps(ops) => Ok(ops.state(&self.hyper.base, id)),
            #[cfg(feature = "fused-wsam")]
            Runner::Fused(fused) => fused.state(&self.hyper.base, id),
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
        match self.climb(&model, grads) {
            Ok((slots, perturbed, climb)) => {
                let ids = slots.iter().map(|slot| slot.id);
                let values: HashMap<_, _> = ids.zip(perturbed).collect();
                Ok(Ascended {
                    perturbed: perturbed_copy(&model, &values),
                    anchor: model,
                    slots,
                    climb,
                    optimizer: self.identity,
                })
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

    /// A whole step: `loss` is called with the model and then with the perturbed model.
    ///
    /// # Errors
    ///
    /// [`Rejected`] with the model unharmed, as [`ascend`](Self::ascend) and
    /// [`descend`](Self::descend), and if `loss` returns a tensor off the autodiff graph.
    pub fn step<M, F>(
        &mut self,
        lr: LearningRate,
        model: M,
        mut loss: F,
    ) -> Result<(M, StepReport), Rejected<M>>
    where
        M: Module,
        F: FnMut(&M) -> Tensor<1>,
    {
        // Before the two expensive passes, not after them.
        if let Err(error) = validate_lr(lr) {
            return Err(Rejected::new(model, error.into()));
        }
        let at_anchor = loss(&model);
        if !at_anchor.is_autodiff() {
            return Err(Rejected::new(model, WsamError::NoAutodiff));
        }
        let grads = GradientsParams::from_grads(at_anchor.backward(), &model);
        let ascended = self.ascend(model, grads)?;
        let at_perturbed = loss(&ascended);
        if !at_perturbed.is_autodiff() {
            return Err(Rejected::new(ascended.restore(), WsamError::NoAutodiff));
        }
        let grads = GradientsParams::from_grads(at_perturbed.backward(), &*ascended);
        let (model, climb) = self.descend_reported(lr, ascended, grads)?;
        let report = StepReport {
            loss: at_anchor.without_autodiff(),
            perturbed_loss: at_perturbed.without_autodiff(),
            climb,
        };
        Ok((model, report))
    }

    fn climb<M: Module>(
        &self,
        model: &M,
        grads: GradientsParams,
    ) -> Result<(Vec<Slot>, Vec<Tensor<1>>, Climb), WsamError> {
        let slots = collect(model, grads, &self.device)?;
        for slot in &slots {
            self.check(slot)?;
        }
        let (perturbed, climb) = match &self.runner {
            Runner::TensorOps(_) => {
                let (perturbed, norms) = TensorOps::ascend(&self.hyper, self.track_norms, &slots);
                (perturbed, Climb::TensorOps(Box::new(norms)))
            }
            #[cfg(feature = "fused-wsam")]
            Runner::Fused(fused) => {
                let (perturbed, climb) = fused.ascend(&self.hyper, self.track_norms, &slots)?;
                (perturbed, Climb::Fused(Box::new(climb)))
            }
        };
        Ok((slots, perturbed, climb))
    }

    fn check(&self, slot: &Slot) -> Result<(), WsamError> {
        let (types, expected, route): (&[DType], _, _) = match &self.runner {
            Runner::TensorOps(_) => (&[DType::F32, DType::F64], "f32 and f64", "tensor-op"),
            #[cfg(feature = "fused-wsam")]
            Runner::Fused(_) => (&[DType::F32], "f32", "fused"),
        };
        let found = slot.weight.dtype();
        if !types.contains(&found) {
            return Err(WsamError::DType { param: slot.path.clone(), found, expected, route });
        }
        let found = slot.weight.dims()[0];
        let state = match &self.runner {
            Runner::TensorOps(ops) => ops.state_len(slot.id),
            #[cfg(feature = "fused-wsam")]
            Runner::Fused(fused) => fused.state_len(slot.id),
        };
        match state {
            Some(state) if state != found => {
                Err(WsamError::State { param: slot.path.clone(), found, state })
            }
            _ => Ok(()),
        }
    }

    fn descend_reported<M: Module>(
        &mut self,
        lr: LearningRate,
        ascended: Ascended<M>,
        grads: GradientsParams,
    ) -> Result<(M, Climb), Rejected<M>> {
        let Ascended { perturbed, anchor, slots, climb, optimizer } = ascended;
        let checked = if optimizer == self.identity {
            validate_lr(lr).map_err(WsamError::from)
        } else {
            Err(WsamError::ForeignAscent)
        };
        let collected =
            checked.and_then(|()| collect_perturbed(&perturbed, grads, &self.device, &slots));
        // Before the new weights are allocated: w + e_w has done its work.
        drop(perturbed);
        let descended =
            collected.and_then(|grads_perturbed| self.fall(lr, &slots, grads_perturbed, climb));
        match descended {
            Ok((updated, climb)) => {
                let values = slots.iter().map(|slot| slot.id).zip(updated).collect();
                Ok((assign(anchor, values), climb))
            }
            Err(error) => Err(Rejected::new(anchor, error)),
        }
    }

    fn fall(
        &mut self,
        lr: f64,
        slots: &[Slot],
        grads_perturbed: Vec<Tensor<1>>,
        climb: Climb,
    ) -> Result<(Vec<Tensor<1>>, Climb), WsamError> {
        let (hyper, track_norms) = (&self.hyper, self.track_norms);
        match (&mut self.runner, climb) {
            (Runner::TensorOps(ops), Climb::TensorOps(mut norms)) => {
                let updated =
                    ops.descend(hyper, track_norms, lr, slots, grads_perturbed, &mut norms);
                Ok((updated, Climb::TensorOps(norms)))
            }
            #[cfg(feature = "fused-wsam")]
            (Runner::Fused(fused), Climb::Fused(climb)) => {
                let updated = fused.descend(hyper, lr, slots, grads_perturbed, &climb)?;
                Ok((updated, Climb::Fused(climb)))
            }
            // An optimizer's route never changes, and the ascent is this optimizer's own.
            #[cfg(feature = "fused-wsam")]
            _ => Err(WsamError::ForeignAscent),
        }
    }
}

#[cfg(feature = "fused-wsam")]
fn choose(policy: RoutePolicy, device: &Device) -> Result<(Runner, Route), WsamError> {
    let reason = match policy {
        RoutePolicy::TensorOps => TensorOpsReason::Requested,
        RoutePolicy::Auto | RoutePolicy::Fused => match super::device::shared(device) {
            Ok(shared) => {
                let route = shared.route();
                return Ok((Runner::Fused(Fused::new(shared)), route));
            }
            Err(reason) => reason,
        },
    };
    fall_back(policy, reason)
}

#[cfg(not(feature = "fused-wsam"))]
fn choose(policy: RoutePolicy, _device: &Device) -> Result<(Runner, Route), WsamError> {
    let reason = match policy {
        RoutePolicy::TensorOps => TensorOpsReason::Requested,
        RoutePolicy::Auto | RoutePolicy::Fused => TensorOpsReason::FeatureOff,
    };
    fall_back(policy, reason)
}

fn fall_back(policy: RoutePolicy, reason: TensorOpsReason) -> Result<(Runner, Route), WsamError> {
    if policy == RoutePolicy::Fused {
        return Err(WsamError::NotFused { reason: reason.to_string() });
    }
    Ok((Runner::TensorOps(TensorOps::default()), Route::TensorOps(reason)))
}
