//! The phases of lean steps.

use super::backend::{Fused, NewWeight, identities, ids};
use super::outcomes::OutcomeScope;
use super::params::{LeanParam, ParamStep, partners};
use super::phase_states::{LeanAscentState, MovedWeights};
use super::resolve::ResolvedParams;
use super::steps::{moved_back_on_error, perturbed_outputs, spec};
use crate::engine::{GradientOptions, InvScale};
use crate::optim::bridge::{DeviceTensor, Memory, MemoryRequest};
use crate::optim::error::WsamError;
use crate::optim::param_entries::ParamEntry;
use crate::optim::pending::LeanStep;
use crate::optim::report::Norms;
use crate::optim::step_backend::{PhaseOutput, StepContext};
use burn::backend::StreamId;
use std::sync::Arc;

impl Fused {
    /// [`lean_ascend`](crate::optim::step_backend::StepBackend::lean_ascend).
    pub(super) fn ascend_lean<T>(
        &mut self,
        context: StepContext<'_>,
        rates: &[f64],
        entries: Vec<ParamEntry<DeviceTensor>>,
        build: impl FnOnce(Vec<DeviceTensor>) -> T,
    ) -> Result<PhaseOutput<Self, T, LeanAscentState>, WsamError> {
        let hyper = context.hyper;
        let lens = entries.iter().map(|entry| (entry.id, entry.len as u64));
        let request = MemoryRequest {
            outputs: perturbed_outputs(context, &entries),
            stepped: entries.iter().map(spec).collect(),
            states: self.new_states(&hyper.base, lens),
            ..MemoryRequest::default()
        };
        let resolving = self.resolve(context, entries, request)?;
        let perturbed = resolving.perturbed();
        // The perturbed weights go into the copy for the second pass, and into the model itself.
        let built = build(perturbed.clone());
        let ResolvedParams { bridge, params, memory, weights, .. } = resolving.finish()?;
        let moved = context.in_place.then(|| MovedWeights::new(&bridge, &params));
        let ids = ids(&params);
        let partners = partners(&params, memory.outputs);
        let steps = self.param_steps(&params, memory.stepped, memory.states);
        let tensors: Vec<_> = steps
            .iter()
            .zip(&partners)
            .map(|(step, partner)| step.lean_ascent(partner.as_ref()))
            .collect();
        let options = GradientOptions {
            track_norms: context.tracks_gradient(),
            inv_scale: InvScale::Host(context.inv_scale),
            rounding: Self::rounding(context),
        };
        let mut encoder = self.encoder();
        let step = LeanStep::default();
        let scope = OutcomeScope::LeanFirst(&ids, &step);
        let recorded = self.engine.lean_ascent(&mut encoder, hyper, rates, options, &tensors);
        let submitted = recorded.map_err(WsamError::from).and_then(|ascent| {
            let (policy, norms) = (hyper.non_finite, ascent.norms());
            self.submit_and_track(&bridge, encoder, policy, norms, scope)?;
            Ok(ascent)
        });
        let ascent = moved_back_on_error(submitted, moved.as_ref())?;

        self.advance(&bridge, &steps);
        // Drop our handles to the old weights, so that they are freed with the model.
        ids.iter().for_each(|id| drop(self.weights.remove(id)));
        let lean = |(step, partner): (ParamStep<'_>, Option<Memory>)| LeanParam {
            id: step.param.id,
            group: step.param.group,
            shape: step.param.shape.clone(),
            tensor: step.param.tensor,
            stepped: step.updated,
            ran_on: partner.unwrap_or_else(|| step.param.weight.clone()),
        };
        let lean_params = steps.into_iter().zip(partners).map(lean).collect();
        // The second pass still uses the weights that are not perturbed.
        let perturbed_weights = params.iter().zip(weights).filter(|(param, _)| param.perturbed);
        let released = perturbed_weights.map(|(_, weight)| weight).collect();
        let in_place = context.in_place.then(StreamId::current);
        let rest =
            LeanAscentState { bridge, ascent, params: lean_params, perturbed, step, in_place };
        Ok(PhaseOutput { built, rest, released })
    }

    /// [`lean_descend`](crate::optim::step_backend::StepBackend::lean_descend).
    pub(super) fn descend_lean<T>(
        &mut self,
        context: StepContext<'_>,
        ascent_state: LeanAscentState,
        grads_perturbed: Vec<DeviceTensor>,
        build: impl FnOnce(Vec<DeviceTensor>) -> T,
    ) -> Result<PhaseOutput<Self, T, Norms>, WsamError> {
        let StepContext { hyper, track_norms, .. } = context;
        let LeanAscentState { bridge, ascent, params, perturbed, step, .. } = ascent_state;
        let resolving;
        let made_are: Vec<_>;
        let mut made = Vec::new();
        if context.in_place {
            let stepped = params.iter().filter_map(|param| param.binding(&param.stepped));
            let bindings = Arc::new(stepped.collect());
            let request = MemoryRequest { bindings, ..MemoryRequest::default() };
            resolving = bridge.resolve_in_place(grads_perturbed, request)?;
            made_are = params.iter().map(|param| param.tensor).collect();
        } else {
            let request = MemoryRequest::default();
            resolving = bridge.resolve(grads_perturbed, request, Vec::new()).1;
            made = bridge.tensors(params.iter().map(|param| (&param.stepped, &param.shape)));
            made_are = identities(&made);
        }
        let built = build(made);
        let submitted = resolving.finish().and_then(|resolved| {
            let tensors: Vec<_> = params
                .iter()
                .zip(&resolved.tensors)
                .map(|(param, grad_perturbed)| param.descent(grad_perturbed))
                .collect();
            let mut encoder = self.encoder();
            let stats = self.engine.lean_descent(&mut encoder, &ascent, &tensors)?;
            let (policy, norms) = (hyper.non_finite, ascent.norms());
            self.submit_and_track(&bridge, encoder, policy, norms, OutcomeScope::LeanRest(&step))?;
            Ok(stats)
        });
        let stats = match submitted {
            Err(error) if context.in_place => {
                let ran_on = params.iter().filter_map(|param| param.binding(&param.ran_on));
                // As in `moved_back_on_error`.
                let _ = bridge.bind(&Arc::new(ran_on.collect()));
                return Err(error);
            }
            submitted => submitted?,
        };

        let weights = params.into_iter().zip(made_are);
        self.place(weights.map(|(param, tensor)| NewWeight {
            id: param.id,
            tensor,
            memory: param.stepped,
        }));
        self.count((&bridge, context.in_place), ascent.stats(), stats);
        let rest = self.norms(hyper, track_norms, true, ascent.norms());
        Ok(PhaseOutput { built, rest, released: perturbed })
    }
}
