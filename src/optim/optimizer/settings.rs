//! Hyperparameters that change between steps.

use super::Wsam;
use crate::method::Hyperparameters;
use crate::optim::error::WsamError;
use crate::optim::groups::GroupConfig;

impl Wsam {
    /// Sets the radius of the perturbation, for a schedule. Call it between steps. Groups with their own
    /// radius keep it.
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
    /// As [`set_rho`](Self::set_rho).
    pub fn set_gamma(&mut self, gamma: f64) -> Result<(), WsamError> {
        self.set(Hyperparameters { gamma, ..self.hyper.clone() })
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
        self.hyper = hyper;
        Ok(())
    }
}
