//! What a route keeps between steps: the states of parameters, and the outcomes of steps that were not read yet.

use super::error::WsamError;
use super::pending::ResolvedOutcome;
use super::state::LoadedState;
use crate::method::Hyperparameters;
use burn::module::ParamId;
use burn::tensor::{Bool, Device, Tensor, TensorData};

/// Tensors of a method by parameter, each with its name.
pub(crate) type MethodStates = Vec<(ParamId, &'static str, TensorData)>;

/// States and outcomes of one route.
pub(crate) trait StateStore {
    /// Outcome of the last submitted step; `None` if gradients are not checked. Waits for that step only.
    fn latest_outcome(&self) -> Result<Option<ResolvedOutcome>, WsamError>;

    /// Whether the last submitted step is skipped, as a boolean on the device. `None` if gradients are not
    /// checked.
    fn skipped_flag(&self) -> Result<Option<Tensor<1, Bool>>, WsamError>;

    /// Number of skipped steps that the step count of `id` still includes; for `None`, that of the optimizer.
    /// Waits for pending steps.
    fn overcount(&self, id: Option<ParamId>) -> Result<u64, WsamError>;

    /// Final outcomes in step order. Waits for them.
    fn decided_outcomes(&self) -> Result<Vec<ResolvedOutcome>, WsamError>;

    /// Removes the final outcomes, in step order, with the parameters whose step counts include them.
    #[allow(clippy::type_complexity)]
    fn take_outcomes(&mut self) -> Result<Vec<(ResolvedOutcome, Vec<ParamId>)>, WsamError>;

    /// A parameter's step count, if it has a state.
    fn step_mut(&mut self, id: ParamId) -> Option<&mut u64>;

    /// Resolves pending outcomes and corrects the step counts. Call it before a step count is needed.
    fn resolve_outcomes(&mut self) -> Result<Vec<ResolvedOutcome>, WsamError> {
        let outcomes = self.take_outcomes()?;
        for (resolved, ids) in &outcomes {
            for id in ids {
                if let Some(step) = self.step_mut(*id) {
                    *step = step.saturating_sub(resolved.overcount());
                }
            }
        }
        Ok(outcomes.into_iter().map(|(resolved, _)| resolved).collect())
    }

    /// Replaces the states of `ids` by `loaded`. On an error nothing has changed.
    fn replace_states(
        &mut self,
        device: &Device,
        ids: &[ParamId],
        loaded: Vec<LoadedState>,
    ) -> Result<(), WsamError>;

    /// The tensors that the method stores for all parameters, with their names, read back.
    fn method_states(&self, hyper: &Hyperparameters) -> Result<MethodStates, WsamError>;

    /// Whether the method's states depend on the outcome of the last step, which has not been resolved.
    fn awaits_outcome(&self) -> bool;

    /// Drops the states of parameters that are `is_dropped`.
    fn forget(&mut self, is_dropped: &dyn Fn(ParamId) -> bool);

    /// Number of elements of a parameter's state, if it has one.
    fn state_len(&self, id: ParamId) -> Option<usize>;
}
