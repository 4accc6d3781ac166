//! Dropping states of parameters that are no longer trained.

use super::{RouteBackend, Wsam};
use crate::optim::error::WsamError;
use crate::optim::record::without_ids;
use crate::optim::step_backend::StepBackend;
use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::Tensor;
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
        #[derive(Default)]
        struct Ids(HashSet<ParamId>);
        impl ModuleVisitor for Ids {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                self.0.insert(param.id);
            }
        }
        let mut ids = Ids::default();
        model.visit(&mut ids);
        self.drop_states(&|id| !ids.0.contains(&id))
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
        let external = match self.burn_optimizer() {
            Some(optimizer) => Some(without_ids(optimizer, is_dropped)?),
            None => None,
        };
        self.resolve_outcomes()?;
        if let Some(record) = external {
            self.load_external(record);
        }
        match &mut self.backend {
            RouteBackend::TensorOps(ops) => ops.forget(is_dropped),
            #[cfg(feature = "fused-wsam")]
            RouteBackend::Fused(fused) => fused.forget(is_dropped),
        }
        Ok(())
    }
}
