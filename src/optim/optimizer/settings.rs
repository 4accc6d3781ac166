//! Hyperparameters that change between steps.

use super::Wsam;
use crate::method::{Group, Hyperparameters};
use crate::optim::error::WsamError;

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

    /// Sets the settings of a group: `group` is its index in
    /// [`WsamConfig::groups`](crate::WsamConfig::groups). Call it between steps.
    ///
    /// # Errors
    ///
    /// [`WsamError::Hyperparameter`] for a value outside its domain, [`WsamError::EmptyGroup`] for a
    /// group that does not exist. On an error nothing has changed.
    pub fn set_group(&mut self, group: usize, settings: Group) -> Result<(), WsamError> {
        let mut hyper = self.hyper.clone();
        *hyper.groups.get_mut(group).ok_or(WsamError::EmptyGroup { group })? = settings;
        self.set(hyper)
    }

    fn set(&mut self, hyper: Hyperparameters) -> Result<(), WsamError> {
        hyper.validate()?;
        self.hyper = hyper;
        Ok(())
    }
}
