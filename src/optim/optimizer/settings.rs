//! Hyperparameters that change between steps.

use super::Wsam;
use crate::method::{Hyperparameters, Method};
use crate::optim::config::MethodConfig;
use crate::optim::error::WsamError;
use crate::optim::groups::GroupConfig;

impl Wsam {
    /// Sets the radius of the perturbation, for a schedule. Call it between steps. Groups with their own
    /// radius keep it. GSAM's authors change it with the learning rate:
    ///
    /// ```
    /// # use burn_wsam::{GsamConfig, SgdBaseConfig, WsamConfig};
    /// # fn main() -> Result<(), burn_wsam::WsamError> {
    /// use burn_wsam::method::Proportional;
    /// let config = WsamConfig::sgd(SgdBaseConfig::new()).with_method(GsamConfig::new().into());
    /// let mut optim = config.init(&burn::tensor::Device::flex())?;
    /// let rho = Proportional { lr: [0.0, 0.1], value: [0.02, 0.06] };
    /// rho.validate()?;
    /// for lr in [0.1, 0.05, 0.0] {
    ///     optim.set_rho(rho.at(lr))?;
    ///     // ... a step at this rate
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`WsamError::Hyperparameter`] for a value outside its domain. On an error nothing has changed.
    pub fn set_rho(&mut self, rho: f64) -> Result<(), WsamError> {
        self.set(Hyperparameters { rho, ..self.hyper.clone() })
    }

    /// Sets the weight of the sharpness, for a schedule. Call it between steps: an ordinary descent uses the
    /// value at the time of the descent, a lean one the value at its ascent.
    ///
    /// # Errors
    ///
    /// As [`set_rho`](Self::set_rho), and [`WsamError::Conflict`] under another method than WSAM, which has no gamma.
    pub fn set_gamma(&mut self, gamma: f64) -> Result<(), WsamError> {
        if self.hyper.method != Method::Wsam {
            return Err(WsamError::Conflict {
                option: "gamma",
                other: self.hyper.method.name(),
                reason: "only WSAM weights the sharpness by gamma; set_method changes the constants of other methods",
            });
        }
        self.set(Hyperparameters { gamma, ..self.hyper.clone() })
    }

    /// Sets the method's constants, for a schedule, for example GSAM's alpha. Call it between steps.
    ///
    /// ```
    /// # use burn_wsam::{GsamConfig, SgdBaseConfig, WsamConfig};
    /// # fn main() -> Result<(), burn_wsam::WsamError> {
    /// let gsam = |alpha| GsamConfig::new().with_alpha(alpha);
    /// let config = WsamConfig::sgd(SgdBaseConfig::new()).with_method(gsam(0.4).into());
    /// let mut optim = config.init(&burn::tensor::Device::flex())?;
    /// optim.set_method(gsam(0.2))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`set_rho`](Self::set_rho), and [`WsamError::Conflict`] for another method than the configured one, whose
    /// state the optimizer does not have.
    pub fn set_method(&mut self, method: impl Into<MethodConfig>) -> Result<(), WsamError> {
        let method = method.into().method();
        if std::mem::discriminant(&method) != std::mem::discriminant(&self.hyper.method) {
            return Err(WsamError::Conflict {
                option: method.name(),
                other: self.hyper.method.name(),
                reason: "set_method changes the constants of the configured method only; make an optimizer for the \
                         other method",
            });
        }
        self.set(Hyperparameters { method, ..self.hyper.clone() })
    }

    /// Replaces a group, with the parameters that it matches: `index` is its place in
    /// [`WsamConfig::groups`](crate::WsamConfig::groups). Call it between steps.
    ///
    /// ```
    /// # use burn::module::ParamGroup;
    /// # use burn_wsam::{GroupConfig, SgdBaseConfig, WsamConfig};
    /// # fn main() -> Result<(), burn_wsam::WsamError> {
    /// let head = GroupConfig::new(ParamGroup::from_predicate("head")).with_rho(Some(0.1));
    /// let config = WsamConfig::sgd(SgdBaseConfig::new()).with_groups(vec![head.clone()]);
    /// let mut optim = config.init(&burn::tensor::Device::flex())?;
    /// optim.set_group(0, head.with_rho(Some(0.02)))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`WsamError::Hyperparameter`] for a value outside its domain, [`WsamError::EmptyGroup`] for a
    /// group that does not exist, [`WsamError::NotWithBurnOptimizer`] around a Burn optimizer, as
    /// [`WsamConfig::init_with`](crate::WsamConfig::init_with). On an error nothing has changed.
    pub fn set_group(&mut self, index: usize, group: GroupConfig) -> Result<(), WsamError> {
        let mut hyper = self.hyper.clone();
        let missing = WsamError::EmptyGroup { group: index };
        *hyper.groups.get_mut(index).ok_or(missing)? = group.settings();
        if self.burn_base.is_some() {
            group.check_with_burn_optimizer()?;
        }
        self.set(hyper)?;
        self.groups[index] = group.params;
        Ok(())
    }

    fn set(&mut self, hyper: Hyperparameters) -> Result<(), WsamError> {
        hyper.validate()?;
        hyper.validate_pairs()?;
        self.hyper = hyper;
        Ok(())
    }
}
