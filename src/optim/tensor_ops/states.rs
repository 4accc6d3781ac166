//! States and master weights of parameters, and the batches that share their step counts.

use super::base::{State, base_step};
use super::batch::{Batch, Key, Members, batches, launches_kernels, regrouped};
use super::finite::{DeviceBool, keep_state_where};
use super::norms::unscaled;
use super::stored::Stored;
use crate::method::{Base, Hyperparameters};
use crate::optim::error::WsamError;
use crate::optim::half_precision::reconciled;
use crate::optim::param_entries::ParamEntry;
use crate::optim::state::{LoadedState, MASTER_WEIGHTS, read};
use crate::optim::state_store::MethodStates;
use crate::optim::step_backend::StepContext;
use burn::module::ParamId;
use burn::tensor::{Device, Tensor, TensorData};
use std::collections::HashMap;

type NamedTensors = Vec<(&'static str, TensorData)>;

/// Step counts, states and master weights of all parameters.
#[derive(Debug, Default)]
pub(super) struct States {
    /// Steps that each parameter has taken.
    steps: HashMap<ParamId, u64>,
    /// In the order of [`Base::state_names`].
    states: Stored,
    /// In the order of [`Method::state_names`](crate::method::Method::state_names).
    method: Stored,
    /// Parameters whose method's state the last submitted step made. If that step was skipped, they have none.
    new_method_states: Vec<ParamId>,
    /// Master weights of parameters in half precision.
    masters: Stored,
    /// Whether parameters are concatenated; `None` before the first step.
    joins: Option<bool>,
}

impl States {
    /// Steps that a parameter has taken.
    pub(super) fn step_of(&self, id: ParamId) -> u64 {
        self.steps.get(&id).copied().unwrap_or(0)
    }

    pub(super) fn step_mut(&mut self, id: ParamId) -> Option<&mut u64> {
        self.steps.get_mut(&id)
    }

    /// Number of elements of a parameter's state, if it has one.
    pub(super) fn len(&self, id: ParamId) -> Option<usize> {
        self.states.len(id).or_else(|| self.method.len(id))
    }

    /// Drops the states of parameters that are `is_dropped`.
    pub(super) fn forget(&mut self, is_dropped: &dyn Fn(ParamId) -> bool) {
        self.steps.retain(|id, _| !is_dropped(*id));
        self.states.forget(is_dropped);
        self.method.forget(is_dropped);
        self.masters.forget(is_dropped);
    }

    /// A parameter's states and master weights, read back. `is_skipped` says whether its last step was skipped.
    pub(super) fn read(
        &self,
        hyper: &Hyperparameters,
        id: ParamId,
        is_skipped: bool,
    ) -> Result<NamedTensors, WsamError> {
        let named = |names: &'static [&'static str], tensors: Vec<Tensor<1>>| {
            let read = |(name, tensor): (&&'static str, _)| Ok((*name, read(tensor)?));
            names.iter().zip(tensors).map(read).collect::<Result<Vec<_>, WsamError>>()
        };
        let mut all = named(hyper.base.state_names(), self.states.get(id))?;
        if !(is_skipped && self.new_method_states.contains(&id)) {
            all.extend(named(hyper.method.state_names(), self.method.get(id))?);
        }
        all.extend(named(&[MASTER_WEIGHTS], self.masters.get(id))?);
        Ok(all)
    }

    /// The method's states of all parameters, read back. `is_skipped` says whether the last step was skipped.
    pub(super) fn read_method_states(
        &self,
        hyper: &Hyperparameters,
        is_skipped: bool,
    ) -> Result<MethodStates, WsamError> {
        let is_valid = |id: &ParamId| !(is_skipped && self.new_method_states.contains(id));
        let mut all = Vec::new();
        for id in self.method.ids().filter(is_valid) {
            for (name, tensor) in hyper.method.state_names().iter().zip(self.method.get(id)) {
                all.push((id, *name, read(tensor)?));
            }
        }
        Ok(all)
    }

    /// The tensor that the method stores for the parameters of a batch, if it has been set.
    pub(super) fn method_state(&self, members: &Members) -> Option<Tensor<1>> {
        self.method.joined(members).into_iter().next()
    }

    /// Stores the method's tensor of a batch. `is_new` if it is valid only if the step is taken.
    pub(super) fn put_method_state(&mut self, members: &Members, h: Tensor<1>, is_new: bool) {
        if is_new {
            self.new_method_states.extend(members.ids());
        }
        self.method.put(members, vec![h]);
    }

    /// Whether the last step made states of the method that are valid only if it was taken.
    pub(super) fn has_new_method_states(&self) -> bool {
        !self.new_method_states.is_empty()
    }

    /// Drops the method's states that the last step made, if it was skipped. Call it when its outcome is known.
    pub(super) fn resolve_method_states(&mut self, is_skipped: bool) {
        for id in self.new_method_states.drain(..).filter(|_| is_skipped) {
            self.method.remove(id);
        }
    }

    /// Whether [`momentum`](Self::momentum) returns a tensor.
    pub(super) fn has_momentum(&self, base: &Base, id: ParamId) -> bool {
        base.momentum_state().is_some() && self.step_of(id) > 0
    }

    /// The momentum or first moment of a parameter that has taken a step.
    pub(super) fn momentum(&self, base: &Base, id: ParamId) -> Option<Tensor<1>> {
        let index = base.momentum_state().filter(|_| self.step_of(id) > 0)?;
        self.states.get(id).into_iter().nth(index)
    }

    /// Concatenates parameters with the same settings and step counts, and with the same rates if they are known.
    /// Divides the gradients by the loss scale.
    pub(super) fn batches(
        &mut self,
        context: StepContext<'_>,
        entries: Vec<ParamEntry<Tensor<1>>>,
        rates: Option<&[f64]>,
    ) -> Vec<Batch> {
        let joins = *self.joins.get_or_insert_with(|| launches_kernels(context.device));
        let key = |place: usize, entry: &ParamEntry<Tensor<1>>| -> Key {
            let rate = rates.map(|rates| rates[place].to_bits());
            let has = [self.masters.contains(entry.id), self.method.contains(entry.id)];
            (entry.group, entry.dtype, self.step_of(entry.id), has, rate)
        };
        unscaled(batches(entries, joins, key), context.inv_scale)
    }

    /// Splits batches whose parameters have several rates, or step counts that differ since the ascent.
    pub(super) fn by_rate(&self, batches: Vec<Batch>, rates: &[f64]) -> Vec<Batch> {
        let joins = self.joins.unwrap_or_default();
        regrouped(batches, joins, |place, id| (self.step_of(id), rates[place].to_bits()))
    }

    /// Replaces weights by master weights, for parameters that have them.
    pub(super) fn with_masters(
        &self,
        context: StepContext<'_>,
        mut batches: Vec<Batch>,
    ) -> Vec<Batch> {
        for Batch { members, entry, .. } in &mut batches {
            if context.has_master(entry) {
                let master = self.masters.joined(members).into_iter().next();
                entry.weight = reconciled(entry.weight.clone(), entry.dtype, master);
            }
        }
        batches
    }

    /// Stores the stepped weights as master weights, if the parameters have them. Returns the parameters.
    pub(super) fn store_master(
        &mut self,
        members: Members,
        has_master: bool,
        w: &Tensor<1>,
    ) -> Members {
        if has_master {
            self.masters.put(&members, vec![w.clone()]);
        }
        members
    }

    /// Takes the base optimizer's step of a batch. Its state advances unless the step is skipped.
    pub(super) fn stepped(
        &mut self,
        base: &Base,
        lr: f64,
        members: &Members,
        w: Tensor<1>,
        h: Tensor<1>,
        skipped: &Option<DeviceBool>,
    ) -> Tensor<1> {
        let step = members.ids().next().map_or(0, |id| self.step_of(id));
        let tensors = self.states.take(members);
        // A state at step 0 was written by a skipped first step, so it is discarded.
        let old = (step > 0).then_some(State { step, tensors });
        let before = skipped.as_ref().and(old.as_ref().map(|old| old.tensors.clone()));
        let (w, state) = base_step(base, lr, w, h, old);
        let State { step, tensors } = keep_state_where(skipped, state, before);
        self.steps.extend(members.ids().map(|id| (id, step)));
        self.states.put(members, tensors);
        w
    }

    /// Replaces the states of `ids` by `loaded`.
    pub(super) fn replace(&mut self, device: &Device, ids: &[ParamId], loaded: Vec<LoadedState>) {
        for id in ids {
            self.steps.remove(id);
            self.states.remove(*id);
            self.method.remove(*id);
            self.masters.remove(*id);
        }
        for LoadedState { id, step, tensors, method, master, len } in loaded {
            let put = |data: TensorData| {
                let dtype = data.dtype();
                Tensor::from_data(data, (device, dtype))
            };
            let members = Members::one(id, len as usize);
            if let Some(master) = master {
                self.masters.put(&members, vec![put(master)]);
            }
            if !method.is_empty() {
                self.method.put(&members, method.into_iter().map(put).collect());
            }
            self.steps.insert(id, step);
            self.states.put(&members, tensors.into_iter().map(put).collect());
        }
    }
}
