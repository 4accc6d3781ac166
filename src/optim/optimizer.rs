//! The optimizer: one step in two halves, or in one call.

mod backend;
mod forget;
mod lean;
mod outcome;
mod passes;
mod settings;

pub(crate) use backend::{AscentHandle, LeanAscentHandle};
pub use passes::Perturbation;
pub(super) use passes::check_loss;
#[cfg(feature = "train")]
pub(super) use passes::{check_loss_shape, copied};

use super::ascended::Ascended;
use super::config::RoutePolicy;
use super::error::{Rejected, WsamError};
use super::external::{self, External};
use super::loss_scale::LossScale;
use super::masks::Masks;
use super::missing::MissingGradientPolicy;
use super::rates::Rates;
use super::record::LoadedState;
use super::report::Norms;
use super::route::Route;
use super::state::OptimizerState;
use super::step_backend::{self, StepBackend, StepContext};
use crate::method::{Coupling, Hyperparameters, Outcome};
use backend::{RouteBackend, choose};
use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::module::{Module, ParamGroup, ParamId};
use burn::optim::{GradientsParams, ModuleOptimizer, OptimizerRecord};
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
/// use burn::optim::{GradientsParams, ModuleOptimizer, OptimizerRecord};
/// use burn::tensor::{Device, Distribution, Tensor};
/// use burn_wsam::{SgdBaseConfig, WsamConfig, WsamError};
///
/// # fn main() -> Result<(), WsamError> {
/// let device = Device::flex().autodiff();
/// let model = LinearConfig::new(4, 1).init(&device);
/// let mut optim = WsamConfig::sgd(SgdBaseConfig::new()).init(&device)?;
/// let x = Tensor::<2>::random([8, 4], Distribution::Default, &device);
/// let loss = |model: &Linear| model.forward(x.clone()).powi_scalar(2).mean();
///
/// // In one call:
/// let (model, report) = optim.step(0.1, model, loss)?;
/// println!("{report}"); // waits for the device
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
/// each pass, unless [`mask_seed`](crate::WsamConfig::mask_seed) is set.
#[derive(Debug)]
pub struct Wsam {
    hyper: Hyperparameters,
    /// Matchers of the hyperparameters' groups.
    groups: Vec<ParamGroup>,
    /// The base optimizer, if it is a Burn optimizer.
    external: Option<External>,
    pub(super) options: Options,
    /// Steps taken, over all models. A step is counted when it is submitted, and [`Wsam::resolve_outcomes`]
    /// subtracts skipped ones. It seeds the random numbers of a step (masks, stochastic rounding).
    pub(super) steps: u64,
    /// Skipped steps, among those whose outcome was read.
    pub(super) skipped: u64,
    /// Outcomes that were read but not yet applied to the loss scale.
    pub(super) unapplied: Vec<Outcome>,
    device: Device,
    route: Route,
    backend: RouteBackend,
    identity: u64,
}

/// Options of a configuration other than the method's hyperparameters.
#[derive(Debug)]
pub(crate) struct Options {
    pub(super) track_norms: bool,
    pub(super) lean: bool,
    pub(super) mask_seed: Option<u64>,
    pub(super) stochastic_rounding: Option<u64>,
    pub(super) master_weights: bool,
    pub(super) missing_gradient: MissingGradientPolicy,
    /// Whether a skipped step is an error.
    pub(super) error_on_skip: bool,
    pub(super) loss_scale: Option<LossScale>,
}

/// Id of the next optimizer. An ascent stores it, so that another optimizer's descent can reject the ascent.
static IDENTITIES: AtomicU64 = AtomicU64::new(0);

impl Wsam {
    pub(crate) fn new(
        hyper: Hyperparameters,
        groups: Vec<ParamGroup>,
        optimizer: Option<ModuleOptimizer>,
        policy: RoutePolicy,
        options: Options,
        device: &Device,
    ) -> Result<Self, WsamError> {
        if options.lean && hyper.coupling == Coupling::Coupled {
            return Err(WsamError::LeanCoupled);
        }
        let device = device.clone().without_autodiff();
        let (backend, route) = choose(policy, &device)?;
        if options.stochastic_rounding.is_some() && !route.is_fused() {
            return Err(WsamError::StochasticRounding { route: route.to_string() });
        }
        let external = optimizer.map(External);
        let base = external.as_ref().map_or(hyper.base.name(), |_| "a Burn optimizer");
        log::info!("WSAM around {base}: {route}");
        let identity = IDENTITIES.fetch_add(1, Ordering::Relaxed);
        Ok(Self {
            hyper,
            groups,
            external,
            options,
            steps: 0,
            skipped: 0,
            unapplied: Vec::new(),
            device,
            route,
            backend,
            identity,
        })
    }

    /// The route steps take, with the reason it was chosen.
    pub fn route(&self) -> &Route {
        &self.route
    }

    /// The method's hyperparameters. Around a Burn optimizer `base` is a placeholder, plain SGD.
    pub fn hyperparameters(&self) -> &Hyperparameters {
        &self.hyper
    }

    /// What the last whole step cost; `None` before the first one and in tensor operations.
    #[cfg(feature = "fused-wsam")]
    pub fn last_step(&self) -> Option<crate::engine::StepStats> {
        match &self.backend {
            RouteBackend::TensorOps(_) => None,
            RouteBackend::Fused(fused) => fused.last_step(),
        }
    }

    /// State of a parameter, read back; `None` before its first step, and around a Burn optimizer, whose
    /// state is in [`to_record`](Self::to_record). Waits for the device.
    ///
    /// # Errors
    ///
    /// [`WsamError`] if the device was lost.
    pub fn state(&self, id: ParamId) -> Result<Option<OptimizerState>, WsamError> {
        match &self.backend {
            RouteBackend::TensorOps(ops) => ops.state(&self.hyper.base, id),
            #[cfg(feature = "fused-wsam")]
            RouteBackend::Fused(fused) => fused.state(&self.hyper.base, id),
        }
    }

    /// Copies the model's parameters to separate memory, with the same values.
    ///
    /// The fused route stores the weights of a model in one arena, which is freed when the last of them is
    /// dropped: call this before keeping a small part of a large model for long. The next step moves the weights
    /// into an arena again. In tensor operations this returns the model unchanged.
    pub fn detach<M: Module>(&mut self, model: M) -> M {
        match &mut self.backend {
            RouteBackend::TensorOps(_) => model,
            #[cfg(feature = "fused-wsam")]
            RouteBackend::Fused(fused) => {
                fused.forget_places();
                super::copies::detach(model)
            }
        }
    }

    /// The first half of a step: perturbs the weights to `w + e_w`.
    ///
    /// `grads` is the gradient at `model`. The result dereferences to the perturbed model, for the
    /// second pass; then call [`descend`](Self::descend).
    ///
    /// # Errors
    ///
    /// [`Rejected`] with the unchanged model: gradients of another model, another device, an element type that
    /// the route does not support.
    #[doc(alias = "first_step")]
    pub fn ascend<M: Module>(
        &mut self,
        model: M,
        grads: GradientsParams,
    ) -> Result<Ascended<M>, Rejected<M>> {
        // Stochastic rounding is seeded with the step count, so pending outcomes must be resolved first.
        if self.options.stochastic_rounding.is_some()
            && let Err(error) = self.resolve_outcomes()
        {
            return Err(Rejected::new(model, error));
        }
        let scale = self.loss_scale();
        let (backend, _, context) = self.parts(scale);
        let ascended = match backend {
            RouteBackend::TensorOps(ops) => {
                step_backend::ascend(ops, context, &model, grads).map(|(perturbed, pending)| {
                    (perturbed, AscentHandle::TensorOps(Box::new(pending)))
                })
            }
            #[cfg(feature = "fused-wsam")]
            RouteBackend::Fused(fused) => step_backend::ascend(fused, context, &model, grads)
                .map(|(perturbed, pending)| (perturbed, AscentHandle::Fused(Box::new(pending)))),
        };
        match ascended {
            Ok((perturbed, ascent_state)) => {
                let optimizer = self.identity;
                Ok(Ascended {
                    perturbed,
                    anchor: model,
                    ascent_state,
                    optimizer,
                    loss_scale: scale,
                })
            }
            Err(error) => Err(Rejected::new(model, error)),
        }
    }

    /// The second half: returns to `w` and takes the base optimizer's step.
    ///
    /// `grads` is the gradient at the perturbed model; `lr` the learning rate, or Burn's rates by
    /// parameter.
    ///
    /// # Errors
    ///
    /// [`Rejected`] with the model as it was before the ascent, and the optimizer's state as it
    /// was: a learning rate that is not finite, a parameter whose second gradient is missing, an
    /// ascent made by another optimizer.
    #[doc(alias = "second_step")]
    pub fn descend<M: Module>(
        &mut self,
        lr: impl Into<ModuleLearningRate>,
        ascended: Ascended<M>,
        grads: GradientsParams,
    ) -> Result<M, Rejected<M>> {
        match Rates::new(lr) {
            Ok(rates) => self.descend_reported(&rates, ascended, grads).map(|(model, _)| model),
            Err(error) => Err(Rejected::new(ascended.restore(), error)),
        }
    }

    /// One step of the base optimizer alone, for the part of a training without WSAM: one gradient, no
    /// perturbation, and the same state as WSAM's steps. It equals WSAM's step at `gamma = 0`, without the second
    /// pass.
    ///
    /// # Errors
    ///
    /// [`Rejected`] with the unchanged model, as [`ascend`](Self::ascend), and for a learning rate that is not
    /// finite.
    pub fn base_step<M: Module>(
        &mut self,
        lr: impl Into<ModuleLearningRate>,
        model: M,
        grads: GradientsParams,
    ) -> Result<M, Rejected<M>> {
        let rates = match Rates::new(lr) {
            Ok(rates) => rates,
            Err(error) => return Err(Rejected::new(model, error)),
        };
        // The loss of `grads` was multiplied by the current scale, so read it before an outcome changes it.
        let scale = self.loss_scale();
        if let Err(error) = self.resolve_outcomes() {
            return Err(Rejected::new(model, error));
        }
        let (backend, external, context) = self.parts(scale);
        let stepped = match (backend, external) {
            (RouteBackend::TensorOps(ops), None) => {
                step_backend::base_step(ops, context, &rates, model, grads)
            }
            (RouteBackend::TensorOps(ops), Some(base)) => {
                external::base_step(ops, base, context, &rates, model, grads)
            }
            #[cfg(feature = "fused-wsam")]
            (RouteBackend::Fused(fused), None) => {
                step_backend::base_step(fused, context, &rates, model, grads)
            }
            #[cfg(feature = "fused-wsam")]
            (RouteBackend::Fused(fused), Some(base)) => {
                external::base_step(fused, base, context, &rates, model, grads)
            }
        };
        let model = stepped.map_err(rejected)?;
        self.count_step();
        self.error_if_skipped(model, |model| model)
    }

    #[cfg(feature = "train")]
    pub(super) fn scales_losses(&self) -> bool {
        self.options.loss_scale.is_some()
    }

    #[cfg(feature = "train")]
    pub(super) fn is_lean(&self) -> bool {
        self.options.lean
    }

    #[cfg(feature = "train")]
    pub(super) fn device(&self) -> &Device {
        &self.device
    }

    /// Whether [`state`](Self::state) returns a state. Does not wait for the device.
    #[cfg(feature = "train")]
    pub(super) fn has_state(&self, id: ParamId) -> bool {
        match &self.backend {
            RouteBackend::TensorOps(ops) => ops.has_state(id),
            #[cfg(feature = "fused-wsam")]
            RouteBackend::Fused(fused) => fused.has_state(id),
        }
    }

    pub(super) fn replace_states(
        &mut self,
        ids: &[ParamId],
        loaded: Vec<LoadedState>,
    ) -> Result<(), WsamError> {
        self.resolve_outcomes()?;
        match &mut self.backend {
            RouteBackend::TensorOps(ops) => ops.replace_states(&self.device, ids, loaded),
            #[cfg(feature = "fused-wsam")]
            RouteBackend::Fused(fused) => fused.replace_states(&self.device, ids, loaded),
        }
    }

    /// Borrows what one half of a step needs. Its gradients are those of the loss times `loss_scale`.
    fn parts(
        &mut self,
        loss_scale: f64,
    ) -> (&mut RouteBackend, Option<&mut External>, StepContext<'_>) {
        let Self { hyper, groups, external, options, device, backend, steps, .. } = self;
        let Options { track_norms, stochastic_rounding, master_weights, missing_gradient, .. } =
            *options;
        let context = StepContext {
            hyper,
            groups,
            track_norms,
            rounding_seed: stochastic_rounding.map(|seed| seed.wrapping_add(*steps)),
            master_weights,
            missing_gradient,
            inv_scale: loss_scale.recip(),
            device,
        };
        (backend, external.as_mut(), context)
    }

    /// Counts a submitted step, and applies the outcomes of earlier steps to the loss scale.
    fn count_step(&mut self) {
        self.steps += 1;
        self.update_loss_scale();
    }

    /// Whether parameters in half precision have master weights.
    pub(super) fn has_masters(&self) -> bool {
        self.options.master_weights
    }

    /// Seeds of the next step. With a mask seed this waits for pending steps, as seeding the device does anyway.
    pub(super) fn masks(&mut self) -> Result<Masks, WsamError> {
        let seed = self.options.mask_seed;
        if seed.is_some() {
            self.resolve_outcomes()?;
        }
        Ok(Masks::new(&self.device, seed, self.steps))
    }

    /// The Burn optimizer, if it is the base.
    pub(super) fn burn_optimizer(&self) -> Option<&ModuleOptimizer> {
        self.external.as_ref().map(|External(optimizer)| optimizer)
    }

    /// Loads a Burn optimizer's state.
    pub(super) fn load_external(&mut self, record: OptimizerRecord) {
        if let Some(External(optimizer)) = &mut self.external {
            *optimizer = optimizer.clone().load_record(record);
        }
    }

    pub(super) fn descend_reported<M: Module>(
        &mut self,
        rates: &Rates,
        ascended: Ascended<M>,
        grads: GradientsParams,
    ) -> Result<(M, Norms), Rejected<M>> {
        let Ascended { perturbed, anchor, ascent_state, optimizer, loss_scale } = ascended;
        if optimizer != self.identity {
            return Err(Rejected::new(anchor, WsamError::ForeignAscent));
        }
        if let Err(error) = self.resolve_outcomes() {
            return Err(Rejected::new(anchor, error));
        }
        let (backend, external, context) = self.parts(loss_scale);
        let models = (perturbed, anchor);
        let descended = match (backend, ascent_state) {
            (RouteBackend::TensorOps(ops), AscentHandle::TensorOps(pending)) => match external {
                None => step_backend::descend(ops, context, rates, models, *pending, grads),
                Some(base) => external::descend(ops, base, context, rates, models, *pending, grads),
            },
            #[cfg(feature = "fused-wsam")]
            (RouteBackend::Fused(fused), AscentHandle::Fused(pending)) => match external {
                None => step_backend::descend(fused, context, rates, models, *pending, grads),
                Some(base) => {
                    external::descend(fused, base, context, rates, models, *pending, grads)
                }
            },
            // Unreachable: an optimizer's route never changes, and this optimizer made the ascent.
            #[cfg(feature = "fused-wsam")]
            _ => Err((models.1, WsamError::ForeignAscent)),
        };
        let descended = descended.map_err(rejected)?;
        self.count_step();
        self.error_if_skipped(descended, |(model, _)| model)
    }
}

fn rejected<M>((model, error): (M, WsamError)) -> Rejected<M> {
    Rejected::new(model, error)
}
