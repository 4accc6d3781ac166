//! The optimizer: one step in two phases, or in one call.

mod data_parallel;
mod lean;
mod momentum;
mod one_pass;
mod outcome;
mod phases;
mod replica;
mod settings;
mod step;

pub(crate) use replica::ReplicaAscent;

use super::backend::{RouteBackend, choose};
use super::burn_base::BurnBase;
use super::error::WsamError;
use super::options::Options;
use super::pass_schedule::StepKind;
use super::route::{Route, RoutePolicy};
use super::seeds::Masks;
use super::state::{LoadedState, OptimizerState};
use super::state_store::MethodStates;
use super::step_backend::StepContext;
use crate::method::{Coupling, Hyperparameters, Outcome};
use burn::module::{Module, ParamGroup, ParamId};
use burn::optim::{ModuleOptimizer, OptimizerRecord};
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
/// let grads = GradientsParams::from_grads(loss(ascended.model()).backward(), ascended.model());
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
    burn_base: Option<BurnBase>,
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
        let burn_base = optimizer.map(BurnBase);
        let base = burn_base.as_ref().map_or(hyper.base.name(), |_| "a Burn optimizer");
        log::info!("{} around {base}: {route}", hyper.method.name());
        let identity = IDENTITIES.fetch_add(1, Ordering::Relaxed);
        Ok(Self {
            hyper,
            groups,
            burn_base,
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
    pub fn last_step_stats(&self) -> Option<crate::engine::StepStats> {
        self.backend.last_step_stats()
    }

    /// State of a parameter, read back; `None` before its first step, and around a Burn optimizer, whose
    /// state is in [`to_record`](Self::to_record). Waits for the device.
    ///
    /// # Errors
    ///
    /// [`WsamError`] if the device was lost.
    pub fn state(&self, id: ParamId) -> Result<Option<OptimizerState>, WsamError> {
        self.backend.state(&self.hyper, id)
    }

    /// Copies the model's parameters to separate memory, with the same values.
    ///
    /// The fused route stores the weights of a model in one arena, which is freed when the last of them is
    /// dropped: call this before keeping a small part of a large model for long. The next step moves the weights
    /// into an arena again. In tensor operations this returns the model unchanged.
    pub fn copy_to_own_memory<M: Module>(&mut self, model: M) -> M {
        self.backend.copy_to_own_memory(model)
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
        self.backend.has_state(id)
    }

    pub(super) fn replace_states(
        &mut self,
        ids: &[ParamId],
        loaded: Vec<LoadedState>,
    ) -> Result<(), WsamError> {
        self.resolve_outcomes()?;
        self.backend.replace_states(&self.device, ids, loaded)
    }

    pub(super) fn method_states(&self) -> Result<MethodStates, WsamError> {
        self.backend.method_states(&self.hyper)
    }

    /// Drops the states of parameters that are `is_dropped`. Call it after pending outcomes were resolved.
    pub(super) fn forget_states(&mut self, is_dropped: &dyn Fn(ParamId) -> bool) {
        self.backend.forget(is_dropped);
    }

    /// Borrows what one phase of a step needs. Its gradients are those of the loss times `loss_scale`.
    fn parts(
        &mut self,
        loss_scale: f64,
    ) -> (&mut RouteBackend, Option<&mut BurnBase>, StepContext<'_>) {
        let Self { hyper, groups, burn_base, options, device, backend, steps, .. } = self;
        let Options { track_norms, stochastic_rounding, master_weights, missing_gradient, .. } =
            *options;
        let context = StepContext {
            hyper,
            groups,
            track_norms,
            rounding_seed: stochastic_rounding.map(|seed| seed.wrapping_add(*steps)),
            master_weights,
            missing_gradient,
            reads_norm: options.schedule.reads_norm(),
            in_place: false,
            inv_scale: loss_scale.recip(),
            device,
        };
        (backend, burn_base.as_mut(), context)
    }

    /// Counts a submitted step, and applies the outcomes of earlier steps to the loss scale.
    fn count_step(&mut self, kind: StepKind) {
        self.advance(kind);
        self.update_loss_scale();
    }

    /// Counts a submitted step.
    fn advance(&mut self, kind: StepKind) {
        self.options.schedule.advance(&self.hyper.method, self.steps, kind);
        self.steps += 1;
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
        self.burn_base.as_ref().map(|BurnBase(optimizer)| optimizer)
    }

    /// Loads a Burn optimizer's state.
    pub(super) fn load_burn_base(&mut self, record: OptimizerRecord) {
        if let Some(BurnBase(optimizer)) = &mut self.burn_base {
            *optimizer = optimizer.clone().load_record(record);
        }
    }
}
