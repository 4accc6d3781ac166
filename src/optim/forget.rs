//! Dropping states of parameters that are no longer trained.

use super::error::WsamError;
use super::optimizer::Wsam;
use super::record::without_ids;
use super::walk::for_each_param;
use burn::module::{Module, ParamId};
use std::collections::HashSet;

impl Wsam {
    /// Drops the states of all parameters that `model` does not have. Frozen parameters and those without a
    /// gradient keep their states. Without this call the optimizer keeps the states of dropped models. Waits for
    /// pending steps.
    ///
    /// # Errors
    ///
    /// [`WsamError::Backend`] if the device was lost, [`WsamError::Record`] if a Burn optimizer's states cannot
    /// be parsed; on an error nothing has changed.
    pub fn retain<M: Module>(&mut self, model: &M) -> Result<(), WsamError> {
        let mut ids = HashSet::new();
        for_each_param(model, |param, _| {
            ids.insert(param.id());
        });
        self.drop_states(&|id| !ids.contains(&id))
    }

    /// Drops the states of these parameters, which start at step 1 with their next step. For example, call it for
    /// a parameter that was recreated with the same id and another shape. Waits for pending steps.
    ///
    /// # Errors
    ///
    /// As [`retain`](Self::retain).
    pub fn forget(&mut self, ids: impl IntoIterator<Item = ParamId>) -> Result<(), WsamError> {
        let ids: HashSet<_> = ids.into_iter().collect();
        self.drop_states(&|id| ids.contains(&id))
    }

    fn drop_states(&mut self, is_dropped: &dyn Fn(ParamId) -> bool) -> Result<(), WsamError> {
        let states = match self.burn_optimizer() {
            Some(optimizer) => Some(without_ids(optimizer, is_dropped)?),
            None => None,
        };
        self.resolve_outcomes()?;
        if let Some(record) = states {
            self.load_burn_base(record);
        }
        self.forget_states(is_dropped);
        Ok(())
    }
}
