//! Serialisable configuration, in the shape of Burn's own optimizer configurations.

mod base;
mod conflicts;
mod method;
mod pass_rule;

pub use base::{AdamBaseConfig, AdamWBaseConfig, BaseConfig, SgdBaseConfig};
pub(super) use conflicts::LEAN_METHOD;
pub use method::{FriendlySamConfig, GsamConfig, LookSamConfig, MethodConfig};
pub use pass_rule::{AeSamConfig, IntervalConfig, PassRuleConfig};

use super::error::WsamError;
use super::groups::GroupConfig;
use super::loss_scale::{LossScale, LossScaleConfig};
use super::optimizer::Wsam;
use super::options::{MissingGradientPolicy, NonFinitePolicy, Options};
use super::pass_schedule::PassSchedule;
use super::route::RoutePolicy;
use crate::method::{Clip, ClipScope, Coupling, Hyperparameters, InvalidHyperparameter, Method};
use burn::config::Config;
use burn::optim::ModuleOptimizer;
use burn::tensor::Device;

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
#[non_exhaustive]
pub struct WsamConfig {
    /// The base optimizer.
    pub base: BaseConfig,
    /// The method: WSAM or one of its relatives.
    #[config(default = "MethodConfig::Wsam")]
    pub method: MethodConfig,
    /// Which steps have a second pass, for methods of two passes. Momentum-SAM has one pass in each step, and LookSAM
    /// has its own rule.
    #[config(default = "PassRuleConfig::EveryStep")]
    pub pass_rule: PassRuleConfig,
    /// Number of steps that the base optimizer takes alone before the method starts, for a method in the last part
    /// of a run. The method's cycle and its pass rule count from there. Skipped steps do not count.
    #[config(default = 0)]
    pub start_step: u64,
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

    /// WSAM around a Burn optimizer, which [`init_with`](Self::init_with) takes.
    pub fn burn() -> Self {
        Self::new(BaseConfig::Burn)
    }

    /// Sets the base optimizer.
    pub fn with_base(mut self, base: impl Into<BaseConfig>) -> Self {
        self.base = base.into();
        self
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
            method: self.method.method(),
            rho: self.rho,
            gamma: self.gamma,
            epsilon: self.epsilon,
            adaptive: self.adaptive,
            coupling: if self.decouple { Coupling::Decoupled } else { Coupling::Coupled },
            clip: self.max_norm.map(|max_norm| Clip { max_norm, scope }),
            non_finite: self.non_finite.method(),
            groups: self.groups.iter().map(GroupConfig::settings).collect(),
        };
        hyper.validate()?;
        self.pass_rule.rule().validate()?;
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
    /// [`WsamError::BurnOptimizer`] for [`burn`](Self::burn), which requires [`init_with`](Self::init_with),
    /// [`WsamError::Conflict`] for two options that contradict each other or of which one disables the other, such as
    /// lean mode with a method other than WSAM,
    /// [`WsamError::NotFused`] if the policy requires the fused route and the device does not allow it,
    /// [`WsamError::StochasticRounding`] for stochastic rounding in tensor operations.
    pub fn init(&self, device: &Device) -> Result<Wsam, WsamError> {
        self.make(None, device)
    }

    /// Makes the optimizer around a Burn optimizer, with its groups, clipping and state: Lion, Muon, LAMB, or a custom
    /// one. Requires a configuration made with [`burn`](Self::burn). Norm, perturbation, blend and sharpness step
    /// stay fused; the Burn optimizer takes its own step.
    ///
    /// ```
    /// use burn::optim::LionConfig;
    /// use burn::tensor::Device;
    /// use burn_wsam::WsamConfig;
    ///
    /// # fn main() -> Result<(), burn_wsam::WsamError> {
    /// let lion = LionConfig::new().init();
    /// let optim = WsamConfig::burn().with_rho(0.1).init_with(lion, &Device::flex())?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`init`](Self::init); and [`WsamError::BurnOptimizer`] for a configuration with another base,
    /// [`WsamError::NotWithBurnOptimizer`] for Momentum-SAM, lean mode, master weights, and groups with a
    /// learning-rate factor or weight decay, which belong in the Burn optimizer's own configuration.
    pub fn init_with(
        &self,
        optimizer: impl Into<ModuleOptimizer>,
        device: &Device,
    ) -> Result<Wsam, WsamError> {
        self.make(Some(optimizer.into()), device)
    }

    fn make(&self, optimizer: Option<ModuleOptimizer>, device: &Device) -> Result<Wsam, WsamError> {
        let hyper = self.hyperparameters()?;
        let (is_burn, handed_in) = (matches!(self.base, BaseConfig::Burn), optimizer.is_some());
        if is_burn != handed_in {
            let base = if is_burn { "a Burn optimizer" } else { hyper.base.name() };
            return Err(WsamError::BurnOptimizer { base, handed_in });
        }
        if is_burn {
            let unsupported = |what| Err(WsamError::NotWithBurnOptimizer { what });
            if hyper.method == Method::MomentumSam {
                return unsupported("Momentum-SAM, which perturbs along the base's momentum,");
            }
            if self.lean {
                return unsupported("lean mode");
            }
            if self.master_weights {
                return unsupported("master weights");
            }
            self.groups.iter().try_for_each(GroupConfig::check_with_burn_optimizer)?;
        }
        if self.lean && self.master_weights {
            return Err(WsamError::LeanMasters);
        }
        self.loss_scale.as_ref().map_or(Ok(()), LossScaleConfig::validate)?;
        self.check_conflicts(&hyper)?;
        let options = Options {
            track_norms: self.track_norms,
            lean: self.lean,
            mask_seed: self.mask_seed,
            stochastic_rounding: self.stochastic_rounding,
            master_weights: self.master_weights,
            missing_gradient: self.missing_gradient,
            error_on_skip: self.non_finite == NonFinitePolicy::Refuse,
            loss_scale: self.loss_scale.clone().map(LossScale::new),
            schedule: PassSchedule::new(self.pass_rule.rule(), self.start_step),
        };
        let groups = self.groups.iter().map(|group| group.params.clone()).collect();
        Wsam::new(hyper, groups, optimizer, self.route, options, device)
    }
}
