//! The memory of the tensor that a method stores for each parameter, and whether a step has set it.

use super::params::ResolvedParam;
use crate::method::{Hyperparameters, Method, Outcome};
use crate::optim::bridge::{Bridge, Memory};
use crate::optim::pending::ResolvedOutcome;
use burn::module::ParamId;
use std::collections::HashMap;

/// The method's states of all parameters.
#[derive(Debug, Default)]
pub(super) struct MethodMemories {
    pub(super) by_id: HashMap<ParamId, MethodMemory>,
    /// Parameters whose state the last submitted step set first. It is valid only if that step was taken.
    new: Vec<ParamId>,
    /// Whether a step that fell back to the base optimizer has set no state.
    needs_whole: bool,
}

/// The method's state of one parameter.
#[derive(Debug)]
pub(super) struct MethodMemory {
    pub(super) memory: Memory,
    /// Whether a step has written it.
    pub(super) is_set: bool,
    pub(super) bridge: Bridge,
}

impl MethodMemories {
    pub(super) fn contains(&self, id: ParamId) -> bool {
        self.by_id.contains_key(&id)
    }

    pub(super) fn len(&self, id: ParamId) -> Option<usize> {
        self.by_id.get(&id).map(|state| state.memory.slice.len as usize)
    }

    pub(super) fn forget(&mut self, is_dropped: &dyn Fn(ParamId) -> bool) {
        self.by_id.retain(|id, _| !is_dropped(*id));
    }

    pub(super) fn insert(&mut self, id: ParamId, state: MethodMemory) {
        self.by_id.insert(id, state);
    }

    /// Whether states are valid only if the last step was taken.
    pub(super) fn awaits_outcome(&self) -> bool {
        !self.new.is_empty()
    }

    /// Notes that a submitted step of two passes sets the states of its perturbed parameters.
    pub(super) fn set<'a>(
        &mut self,
        hyper: &Hyperparameters,
        params: impl Iterator<Item = &'a ResolvedParam>,
    ) {
        self.needs_whole = matches!(hyper.method, Method::LookSam { .. });
        for param in params {
            if let Some(state) = self.by_id.get_mut(&param.id)
                && param.perturbed
                && !std::mem::replace(&mut state.is_set, true)
            {
                self.new.push(param.id);
            }
        }
    }

    /// Applies the outcomes of the steps since the last call.
    pub(super) fn resolve<'a>(&mut self, mut outcomes: impl Iterator<Item = &'a ResolvedOutcome>) {
        let needs_whole = self.needs_whole;
        let sets = |outcome| match outcome {
            Outcome::Skipped => false,
            Outcome::Whole => true,
            _ => !needs_whole,
        };
        let is_set = outcomes.all(|resolved| sets(resolved.outcome));
        for id in self.new.drain(..).filter(|_| !is_set) {
            if let Some(state) = self.by_id.get_mut(&id) {
                state.is_set = false;
            }
        }
    }

    /// The state of a parameter, if it is set. `outcome` is that of the last step, if it is pending.
    pub(super) fn valid(&self, id: ParamId, outcome: Option<Outcome>) -> Option<&MethodMemory> {
        let is_invalid = match outcome {
            None | Some(Outcome::Whole) => false,
            Some(Outcome::Skipped) => true,
            Some(_) => self.needs_whole,
        };
        let state = self.by_id.get(&id).filter(|state| state.is_set)?;
        (!(is_invalid && self.new.contains(&id))).then_some(state)
    }
}
