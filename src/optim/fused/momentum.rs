//! Momentum-SAM's step on the fused route.

use super::backend::{Fused, identities, ids, scaled_by, with_counts};
use super::outcomes::OutcomeScope;
use super::params::ParamStep;
use super::phase_states::MomentumState;
use super::resolve::ResolvedParams;
use super::steps::{new_weights, output};
use crate::engine::{MomentumTensor, Placement};
use crate::optim::bridge::{DeviceTensor, MemoryRequest};
use crate::optim::error::WsamError;
use crate::optim::param_entries::ParamEntry;
use crate::optim::report::Norms;
use crate::optim::step_backend::{PhaseOutput, StepContext};
use burn::module::ParamId;

impl Fused {
    /// Whether a parameter has a momentum: whether it has taken a step.
    pub(super) fn has_momentum(&self, id: ParamId) -> bool {
        self.states.get(&id).is_some_and(|state| state.step > 0 && !state.memory.is_empty())
    }

    /// Returns `w - rho m / (||m|| + eps)` of the entries, each of which has a momentum and is perturbed.
    pub(super) fn momentum_point(
        &mut self,
        context: StepContext<'_>,
        entries: Vec<ParamEntry<DeviceTensor>>,
    ) -> Result<(Vec<DeviceTensor>, MomentumState), WsamError> {
        let hyper = context.hyper;
        let outputs = entries.iter().map(output).collect();
        let request = MemoryRequest { outputs, ..MemoryRequest::default() };
        let resolving = self.resolve(context, entries, request)?;
        let ResolvedParams { params, memory, outputs, .. } = resolving.finish()?;
        let index = hyper.base.momentum_state().unwrap_or(0);
        let tensors = params.iter().zip(&memory.outputs).filter_map(|(param, perturbed)| {
            let state = self.states.get(&param.id)?;
            let momentum = state.memory.get(index)?.slice.clone();
            let perturbed = Placement::OutOfPlace(perturbed.slice.clone());
            let (weight, step) = (param.weight.slice.clone(), state.step + 1);
            let tensor = MomentumTensor::new(weight, momentum, perturbed, step);
            Some(tensor.with_master(param.master_slice()).in_group(param.group))
        });
        let tensors: Vec<_> = tensors.collect();
        let mut encoder = self.encoder();
        let rounding = Self::rounding(context);
        let ascent = self.engine.momentum_ascent(&mut encoder, hyper, rounding, &tensors)?;
        self.submit(encoder);
        Ok((outputs, MomentumState { ascent }))
    }

    /// The base optimizer's step from the entries' weights on the gradients at the perturbed ones.
    pub(super) fn step_at_momentum<T>(
        &mut self,
        context: StepContext<'_>,
        rates: &[f64],
        MomentumState { mut ascent }: MomentumState,
        entries: Vec<ParamEntry<DeviceTensor>>,
        build: impl FnOnce(Vec<DeviceTensor>) -> T,
    ) -> Result<PhaseOutput<Self, T, Norms>, WsamError> {
        let hyper = context.hyper;
        let lens = entries.iter().map(|entry| (entry.id, entry.len as u64));
        let request = MemoryRequest {
            outputs: entries.iter().map(output).collect(),
            states: self.new_states(&hyper.base, lens),
            ..MemoryRequest::default()
        };
        let mut resolving = self.resolve(context, entries, request)?;
        let made = std::mem::take(&mut resolving.outputs);
        let made_are = identities(&made);
        let built = build(made);
        let ResolvedParams { bridge, params, memory, weights, .. } = resolving.finish()?;
        let ids = ids(&params);
        let steps = self.param_steps(&params, memory.outputs, memory.states);
        let tensors: Vec<_> = steps.iter().map(ParamStep::base_step).collect();
        // Parameters in their first step were not perturbed, and perturbed ones may have no gradient.
        ascent.expect_tensors(tensors.len());
        let mut encoder = self.encoder();
        let tracks = context.tracks_gradient();
        let options = scaled_by(context.inv_scale, tracks);
        let step =
            self.engine.momentum_step(&mut encoder, hyper, rates, options, &ascent, &tensors)?;
        let (policy, norms) = (hyper.non_finite, step.norms());
        self.submit_and_track(&bridge, encoder, policy, norms, OutcomeScope::Step(&ids))?;

        self.advance(&bridge, &steps);
        self.place(new_weights(steps, made_are));
        let mut stats = ascent.stats();
        stats += step.stats();
        stats.submissions += 2;
        self.last_step = Some(with_counts(&bridge, false, stats));
        let tracks = tracks || hyper.clip.is_some();
        let rest = self.one_pass_norms(hyper, tracks, step.norms());
        Ok(PhaseOutput { built, rest, released: weights })
    }
}
