//! Steps around a Burn optimizer on the fused route.

use super::backend::{Fused, NewWeight, identities, scaled_by, with_counts};
use super::outcomes::OutcomeScope;
use super::params::{MixedParam, ResolvedParam};
use super::phase_states::{AscentState, MixState};
use super::resolve::ResolvedParams;
use super::steps::{lens, output};
use crate::engine::StepStats;
use crate::method::Outcome;
use crate::optim::bridge::{DeviceTensor, MemoryRequest};
use crate::optim::error::WsamError;
use crate::optim::param_entries::ParamEntry;
use crate::optim::report::{Norms, StepNorms};
use crate::optim::step_backend::{OnePassUpdate, PhaseOutput, StepContext, TensorOutput};

impl Fused {
    /// Mixes the two gradients for the Burn optimizer's step.
    pub(super) fn mix_gradients(
        &mut self,
        context: StepContext<'_>,
        ascent_state: AscentState,
        grads_perturbed: Vec<DeviceTensor>,
    ) -> Result<TensorOutput<Self, MixState>, WsamError> {
        let hyper = context.hyper;
        let AscentState { bridge, ascent, mut params, weights, perturbed, .. } = ascent_state;
        // In the decoupled form the base optimizer steps on `g`. If `g` is neither clipped, checked nor
        // unscaled, no kernel is needed.
        let is_unmodified = context.has_sharpness_step()
            && !hyper.clips_gradient()
            && !hyper.non_finite.checks_gradients()
            && context.inv_scale == 1.0;
        let mut request = MemoryRequest::default();
        if !is_unmodified {
            request.outputs = params.iter().map(ResolvedParam::output).collect();
        }
        let methods = params.iter().map(|param| (param.id, param.len, param.perturbed));
        request.states = vec![self.new_method_states(hyper, methods)];
        let (made, resolving) = bridge.resolve(grads_perturbed, request, perturbed);
        let resolved = resolving.finish()?;
        let new = resolved.new.states.into_iter().flatten().collect();
        self.bind_method_states(hyper, &bridge, &mut params, new);
        let mixed_params = |(param, grad_perturbed)| MixedParam { param, grad_perturbed };
        let params: Vec<_> = params.into_iter().zip(resolved.tensors).map(mixed_params).collect();
        let mut mix = None;
        let built = if is_unmodified {
            let grads = params.iter().map(|mixed| (&mixed.param.grad, &mixed.param.shape));
            bridge.tensors(grads)
        } else {
            let tensors: Vec<_> = params
                .iter()
                .zip(&resolved.new.outputs)
                .map(|(mixed, output)| mixed.param.mix(&mixed.grad_perturbed, output))
                .collect();
            let mut encoder = self.encoder();
            mix = Some(self.engine.mix(&mut encoder, hyper, &ascent, &tensors)?);
            // The Burn optimizer counts its parameters' steps itself.
            let (policy, norms) = (hyper.non_finite, ascent.norms());
            self.submit_and_track(&bridge, encoder, policy, norms, OutcomeScope::Step(&[]))?;
            self.methods.set(hyper, params.iter().map(|mixed| &mixed.param));
            made
        };
        let rest = MixState { bridge, ascent, params, mix };
        // The base optimizer's step replaces the old weights.
        Ok(PhaseOutput { built, rest, released: weights })
    }

    /// Clips the gradients for the Burn optimizer's step without a second pass.
    pub(super) fn clip_gradients(
        &mut self,
        context: StepContext<'_>,
        update: OnePassUpdate,
        entries: Vec<ParamEntry<DeviceTensor>>,
    ) -> Result<TensorOutput<Self, Norms>, WsamError> {
        let StepContext { hyper, inv_scale, .. } = context;
        let tracks = context.tracks_gradient();
        let checks = hyper.non_finite.checks_gradients();
        let corrects = update == OnePassUpdate::Corrected;
        if !hyper.clips_gradient() && !checks && !tracks && !corrects && inv_scale == 1.0 {
            let built = entries.into_iter().map(|entry| entry.grad).collect();
            let rest = Box::new(UncheckedNorms) as Norms;
            return Ok(PhaseOutput { built, rest, released: Vec::new() });
        }
        let outputs = entries.iter().map(output).collect();
        let mut request = MemoryRequest { outputs, ..MemoryRequest::default() };
        if corrects {
            request.states = vec![self.new_method_states(hyper, lens(context, &entries))];
        }
        let resolving = self.resolve(context, entries, request)?;
        let ResolvedParams { bridge, mut params, memory, outputs, .. } = resolving.finish()?;
        if corrects {
            let new = memory.states.into_iter().flatten().collect();
            self.bind_method_states(hyper, &bridge, &mut params, new);
        }
        let tensors: Vec<_> = params
            .iter()
            .zip(&memory.outputs)
            .map(|(param, clipped)| param.clip(clipped))
            .collect();
        let mut encoder = self.encoder();
        let options = scaled_by(inv_scale, tracks);
        let (norms, stats) = match update {
            OnePassUpdate::Gradient => {
                let clip = self.engine.clip(&mut encoder, hyper, options, &tensors)?;
                (clip.norms().clone(), clip.stats())
            }
            OnePassUpdate::Corrected => {
                let mix = self.engine.one_pass_mix(&mut encoder, hyper, options, &tensors)?;
                (mix.norms().clone(), mix.stats())
            }
        };
        let (policy, norms) = (hyper.non_finite, &norms);
        self.submit_and_track(&bridge, encoder, policy, norms, OutcomeScope::Step(&[]))?;
        let stats = StepStats { submissions: 1, ..stats };
        self.last_step = Some(with_counts(&bridge, false, stats));
        let rest = self.one_pass_norms(hyper, tracks, norms);
        Ok(PhaseOutput { built: outputs, rest, released: Vec::new() })
    }

    /// Takes the sharpness step after the Burn optimizer's step.
    pub(super) fn take_sharpness_step(
        &mut self,
        context: StepContext<'_>,
        rates: &[f64],
        mixed: MixState,
        weights: Option<Vec<DeviceTensor>>,
    ) -> Result<TensorOutput<Self, Norms>, WsamError> {
        let StepContext { hyper, track_norms, .. } = context;
        let MixState { bridge, ascent, params, mix } = mixed;
        let mut stats = ascent.stats();
        stats.submissions += 1;
        if let Some(mix) = &mix {
            stats += StepStats { submissions: 1, ..mix.stats() };
        }
        let mut output = PhaseOutput {
            built: Vec::new(),
            rest: self.norms(hyper, track_norms, false, ascent.norms()),
            released: Vec::new(),
        };
        if let Some(weights) = weights {
            let outputs = params.iter().map(|mixed| mixed.param.output()).collect();
            let request = MemoryRequest { outputs, ..MemoryRequest::default() };
            let (made, resolving) = bridge.resolve(weights.clone(), request, Vec::new());
            let resolved = resolving.finish()?;
            let updated = resolved.new.outputs;
            let tensors: Vec<_> = params
                .iter()
                .zip(resolved.tensors.iter().zip(&updated))
                .map(|(mixed, (weight, updated))| mixed.sharpness_step(weight, updated))
                .collect();
            let mut encoder = self.encoder();
            let step =
                self.engine.sharpen(&mut encoder, hyper, rates, &ascent, mix.as_ref(), &tensors)?;
            self.submit(encoder);
            stats += StepStats { submissions: 1, ..step };
            let new = params.iter().zip(identities(&made)).zip(updated);
            self.place(new.map(|((mixed, tensor), memory)| NewWeight {
                id: mixed.param.id,
                tensor,
                memory,
            }));
            output.built = made;
            output.released = weights;
        }
        self.last_step = Some(with_counts(&bridge, false, stats));
        Ok(output)
    }
}

/// Norms of a step that computed and checked nothing.
#[derive(Debug)]
struct UncheckedNorms;

impl StepNorms for UncheckedNorms {
    fn gradient(&self) -> Result<Option<f64>, WsamError> {
        Ok(None)
    }

    fn perturbed(&self) -> Result<Option<f64>, WsamError> {
        Ok(None)
    }

    fn outcome(&self) -> Result<Outcome, WsamError> {
        Ok(Outcome::Whole)
    }
}
