//! Serialisable configuration, in the shape of Burn's own optimizer configurations.

use super::base_config::{AdamBaseConfig, AdamWBaseConfig, BaseConfig, SgdBaseConfig};
use super::error::WsamError;
use super::groups::GroupConfig;
use super::loss_scale::{LossScale, LossScaleConfig};
use super::missing::MissingGradientPolicy;
use super::optimizer::{Options, Wsam};
use crate::method::{
    Clip, ClipScope, Coupling, Hyperparameters, InvalidHyperparameter, Method, NonFinite,
};
use burn::config::Config;
use burn::optim::ModuleOptimizer;
use burn::tensor::Device;

/// The routes that steps may take.
#[derive(Config, Debug, Copy, PartialEq, Eq)]
pub enum RoutePolicy {
    /// Fused where the device allows it, tensor operations elsewhere. [`Wsam::route`](crate::Wsam::route)
    /// returns the choice and its reason.
    Auto,
    /// Fused, or an error from [`WsamConfig::init`].
    Fused,
    /// Tensor operations.
    TensorOps,
}

/// What a step does if `g` or `g~` holds a NaN or an infinity, or has a norm beyond `f32`. [`NonFinite`]
/// has the details, and the rule of lean mode.
///
/// The device decides. The host reads the outcome when the next step needs the step count: it then waits for the
/// last step only. In tensor operations, and around a Burn optimizer, it waits for all queued work.
#[derive(Config, Debug, Copy, PartialEq, Eq)]
pub enum NonFinitePolicy {
    /// Skip the step: weights, state and running statistics stay as they were, bit for bit.
    Skip,
    /// Skip the step if `g` is not finite; take the base optimizer's step if only `g~` is not.
    BaseStep,
    /// Skip the step, and return the model with [`WsamError::NonFinite`]. Every step waits for the device.
    Refuse,
    /// Take the step with whatever values result. Gradients are not checked, and the host does not wait.
    Propagate,
}

impl NonFinitePolicy {
    fn method(self) -> NonFinite {
        match self {
            Self::Skip | Self::Refuse => NonFinite::Skip,
            Self::BaseStep => NonFinite::BaseStep,
            Self::Propagate => NonFinite::Propagate,
        }
    }
}

/// Configuration of [`Wsam`], with the defaults of the WSAM authors except
/// [`non_finite`](Self::non_finite): their code propagates.
///
/// ```
/// use burn_wsam::{AdamWBaseConfig, WsamConfig};
/// use burn::tensor::Device;
///
/// # fn main() -> Result<(), burn_wsam::WsamError> {
/// let config = WsamConfig::adamw(AdamWBaseConfig::new()).with_rho(0.1).with_gamma(0.8);
/// let optim = config.init(&Device::flex())?;
/// println!("{}", optim.route());
/// # Ok(())
/// # }
/// ```
#[derive(Config, Debug)]
pub struct WsamConfig {
    /// The base optimizer.
    pub base: BaseConfig,
    /// Radius of the perturbation, at least 0.
    #[config(default = 0.05)]
    pub rho: f64,
    /// Weight of the sharpness, in `[0, 1)`: 0 is the base optimizer, coupled 1/2 is SAM.
    #[config(default = 0.9)]
    pub gamma: f64,
    /// Added to the gradient norm before the division, above 0.
    #[config(default = 1e-12)]
    pub epsilon: f64,
    /// Perturb in proportion to the squared weights (ASAM).
    #[config(default = false)]
    pub adaptive: bool,
    /// Apply the sharpness term after the base optimizer (decoupled), the paper's default.
    #[config(default = true)]
    pub decouple: bool,
    /// Clip by global norm, if set. Burn's own `GradientClipping` works per tensor.
    pub max_norm: Option<f64>,
    /// Clip only `g~`, where the authors clip `g` as well.
    #[config(default = false)]
    pub clip_perturbed_only: bool,
    /// What a step does if its gradients are not finite.
    #[config(default = "NonFinitePolicy::Skip")]
    pub non_finite: NonFinitePolicy,
    /// Loss scaling, for gradients too small for their format. [`Wsam::step`] multiplies the losses; with the
    /// two-call API, multiply both losses by [`Wsam::loss_scale`].
    pub loss_scale: Option<LossScaleConfig>,
    /// Compute both gradient norms every step, for [`StepReport`](crate::StepReport): up to 4
    /// bytes more a parameter.
    #[config(default = false)]
    pub track_norms: bool,
    /// Run [`Wsam::step`] in lean mode, which keeps no gradient through the second pass. Requires the decoupled
    /// form. [`Wsam::lean_ascend`] describes the trade-off.
    #[config(default = false)]
    pub lean: bool,
    /// Give both passes of a step the same random numbers, so that dropout draws the same masks: the
    /// seed; the numbers of each step follow from it and from the count of steps. For [`Wsam::step`] and
    /// [`Wsam::step_accumulated`]. Burn has one generator for the whole process, which this seeds again before
    /// each pass, after waiting for the device.
    pub mask_seed: Option<u64>,
    /// Round `w + e_w` stochastically where parameters are in half precision; rounding to nearest loses what is
    /// less than half of a weight's last place. The seed; the numbers of each step follow from it and from the
    /// count of steps. Requires the fused route; parameters in `f32` are not affected.
    pub stochastic_rounding: Option<u64>,
    /// Keep `f32` master weights for parameters in half precision. Steps read and write the master weights, and
    /// the parameters are their rounded copy. 4 bytes a parameter, saved in records. If a parameter was changed
    /// outside a step, its new value replaces the master weights. Lean mode does not support master weights.
    #[config(default = false)]
    pub master_weights: bool,
    /// What a step does with parameters that have a gradient in only one of its passes.
    #[config(default = "MissingGradientPolicy::Refuse")]
    pub missing_gradient: MissingGradientPolicy,
    /// Which route steps may take.
    #[config(default = "RoutePolicy::Auto")]
    pub route: RoutePolicy,
    /// Parameter groups with settings of their own.
    #[config(default = "Vec::new()")]
    pub groups: Vec<GroupConfig>,
}

impl WsamConfig {
    /// WSAM around stochastic gradient descent.
    pub fn sgd(base: SgdBaseConfig) -> Self {
        Self::new(base.into())
    }

    /// WSAM around Adam with an L2 penalty.
    pub fn adam(base: AdamBaseConfig) -> Self {
        Self::new(base.into())
    }

    /// WSAM around AdamW.
    pub fn adamw(base: AdamWBaseConfig) -> Self {
        Self::new(base.into())
    }

    /// The method's hyperparameters, checked.
    ///
    /// # Errors
    ///
    /// Returns the first hyperparameter outside its domain, with its value.
    pub fn hyperparameters(&self) -> Result<Hyperparameters, InvalidHyperparameter> {
        let scope =
            if self.clip_perturbed_only { ClipScope::PerturbedOnly } else { ClipScope::Both };
        let hyper = Hyperparameters {
            base: self.base.base(),
            method: Method::Wsam,
            rho: self.rho,
            gamma: self.gamma,
            epsilon: self.epsilon,
            adaptive: self.adaptive,
            coupling: if self.decouple { Coupling::Decoupled } else { Coupling::Coupled },
            clip: self.max_norm.map(|max_norm| Clip { max_norm, scope }),
            non_finite: self.non_finite.method(),
            groups: self.groups.iter().map(GroupConfig::group).collect(),
        };
        hyper.validate()?;
        Ok(hyper)
    }

    /// Makes the optimizer for models on `device`.
    ///
    /// This chooses the route, which never changes afterwards: see [`RoutePolicy`] and [`Wsam::route`].
    ///
    /// # Errors
    ///
    /// [`WsamError::Hyperparameter`] for a value outside its domain, [`WsamError::LeanCoupled`] and
    /// [`WsamError::LeanMasters`] for lean mode with the coupled form or master weights,
    /// [`WsamError::BurnOptimizer`] for [`BaseConfig::Burn`] without an optimizer, [`WsamError::Conflict`] for
    /// two options that contradict each other or of which one disables the other, [`WsamError::NotFused`] if
    /// the policy requires the fused route and the device does not allow it, [`WsamError::StochasticRounding`]
    /// for stochastic rounding in tensor operations.
    pub fn init(&self, device: &Device) -> Result<Wsam, WsamError> {
        self.init_around(None, device)
    }

    /// Uses a Burn optimizer as the base, with its groups, clipping and state: Lion, Muon, LAMB, or a custom one.
    /// Requires a configuration made with [`BaseConfig::Burn`]. Norm, perturbation, blend and sharpness step stay
    /// fused; the Burn optimizer takes its own step.
    ///
    /// ```
    /// use burn::optim::LionConfig;
    /// use burn::tensor::Device;
    /// use burn_wsam::{BaseConfig, WsamConfig};
    ///
    /// # fn main() -> Result<(), burn_wsam::WsamError> {
    /// let lion = LionConfig::new().init();
    /// let optim = WsamConfig::new(BaseConfig::Burn).with_burn_optimizer(lion).init(&Device::flex())?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_burn_optimizer(self, optimizer: impl Into<ModuleOptimizer>) -> BurnWsamConfig {
        BurnWsamConfig { config: self, optimizer: optimizer.into() }
    }

    /// Returns an error for options that another option disables.
    fn check_conflicts(&self) -> Result<(), WsamError> {
        let conflict = |option, other, reason| Err(WsamError::Conflict { option, other, reason });
        let propagates = self.non_finite == NonFinitePolicy::Propagate;
        if propagates && self.loss_scale.as_ref().is_some_and(LossScaleConfig::is_dynamic) {
            return conflict(
                "a dynamic loss_scale",
                "non_finite = Propagate",
                "a dynamic scale needs to know which gradients were finite, and Propagate does not check them; \
                 use LossScaleConfig::fixed or another policy",
            );
        }
        if self.lean && self.non_finite == NonFinitePolicy::BaseStep {
            return Err(LEAN_BASE_STEP);
        }
        if self.lean && self.missing_gradient != MissingGradientPolicy::Refuse {
            return conflict(
                "lean mode",
                "missing_gradient",
                "a lean step takes the base step before the second gradients are known; use Refuse",
            );
        }
        if self.clip_perturbed_only && self.max_norm.is_none() {
            return conflict(
                "clip_perturbed_only",
                "max_norm = None",
                "clipping requires max_norm; set max_norm too",
            );
        }
        Ok(())
    }

    fn init_around(
        &self,
        optimizer: Option<ModuleOptimizer>,
        device: &Device,
    ) -> Result<Wsam, WsamError> {
        let hyper = self.hyperparameters()?;
        let (is_burn, handed_in) = (matches!(self.base, BaseConfig::Burn), optimizer.is_some());
        if is_burn != handed_in {
            let base = if is_burn { "a Burn optimizer" } else { hyper.base.name() };
            return Err(WsamError::BurnOptimizer { base, handed_in });
        }
        if is_burn {
            let unsupported = |what| Err(WsamError::NotWithBurnOptimizer { what });
            if self.lean {
                return unsupported("lean mode");
            }
            if self.master_weights {
                return unsupported("master weights");
            }
            if hyper.groups.iter().any(|group| group.lr_factor != 1.0) {
                return unsupported("the learning-rate factor of a group");
            }
            if hyper.groups.iter().any(|group| group.weight_decay.is_some()) {
                return unsupported("the weight decay of a group");
            }
        }
        if self.lean && self.master_weights {
            return Err(WsamError::LeanMasters);
        }
        self.loss_scale.as_ref().map_or(Ok(()), LossScaleConfig::validate)?;
        self.check_conflicts()?;
        let options = Options {
            track_norms: self.track_norms,
            lean: self.lean,
            mask_seed: self.mask_seed,
            stochastic_rounding: self.stochastic_rounding,
            master_weights: self.master_weights,
            missing_gradient: self.missing_gradient,
            error_on_skip: self.non_finite == NonFinitePolicy::Refuse,
            loss_scale: self.loss_scale.clone().map(LossScale::new),
        };
        let groups = self.groups.iter().map(|group| group.params.clone()).collect();
        Wsam::new(hyper, groups, optimizer, self.route, options, device)
    }
}

/// A lean step takes the base step on `g` and frees `w` before `g~` is known.
pub(crate) const LEAN_BASE_STEP: WsamError = WsamError::Conflict {
    option: "lean mode",
    other: "non_finite = BaseStep",
    reason: "a lean step frees the weights before g~ is known, so it cannot take the base step instead; \
             use Skip or Refuse",
};

/// A [`WsamConfig`] around a Burn optimizer.
#[derive(Clone)]
pub struct BurnWsamConfig {
    config: WsamConfig,
    optimizer: ModuleOptimizer,
}

impl BurnWsamConfig {
    /// As [`WsamConfig::init`].
    ///
    /// # Errors
    ///
    /// As there; and [`WsamError::BurnOptimizer`] for a configuration with another base,
    /// [`WsamError::NotWithBurnOptimizer`] for lean mode, master weights, and groups with a learning-rate
    /// factor or weight decay, which belong in the Burn optimizer's own configuration.
    pub fn init(&self, device: &Device) -> Result<Wsam, WsamError> {
        self.config.init_around(Some(self.optimizer.clone()), device)
    }
}

impl std::fmt::Debug for BurnWsamConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BurnWsamConfig").field("config", &self.config).finish_non_exhaustive()
    }
}
