//! Steps around a Burn optimizer on the fused route.

use super::resolve::ResolvedParams;
use super::steps::{columns, identities, outputs_of, scaled_by};
use super::{AscentState, Fused, MixState, OutcomeScope};
use crate::engine::{ClipTensor, MixTensor, SharpenTensor, StepStats};
use crate::method::Coupling;
use crate::optim::bridge::{DeviceTensor, Memory};
use crate::optim::error::WsamError;
use crate::optim::param_entries::ParamEntry;
use crate::optim::report::Norms;
use crate::optim::step_backend::{PhaseOutput, StepContext, TensorOutput};

impl Fused {
    pub(super) fn mix_external(
        &mut self,
        context: StepContext<'_>,
        ascent_state: AscentState,
        grads_perturbed: Vec<DeviceTensor>,
    ) -> Result<TensorOutput<Self, MixState>, WsamError> {
        let hyper = context.hyper;
        let AscentState { bridge, ascent, params, weights, perturbed } = ascent_state;
        let (_, specs, shapes) = columns(&params);
        // In the decoupled form the base optimizer steps on `g`. If `g` is neither clipped, checked nor
        // unscaled, no kernel is needed.
        let is_unmodified = hyper.coupling == Coupling::Decoupled
            && !hyper.clips_gradient()
            && !hyper.non_finite.checks_gradients()
            && context.inv_scale == 1.0;
        let arenas = if is_unmodified { Vec::new() } else { vec![specs] };
        let (made, resolving) = bridge.resolve(grads_perturbed, arenas, perturbed, &shapes);
        let resolved = resolving.finish()?;
        let (grads_perturbed, arenas) = (resolved.tensors, resolved.arenas);
        let mut mix = None;
        let built = match arenas.first() {
            None => {
                let grads: Vec<Memory> = params.iter().map(|param| param.grad.clone()).collect();
                bridge.tensors(&grads, &shapes)
            }
            Some(mixed) => {
                let tensors: Vec<_> = params
                    .iter()
                    .zip(mixed)
                    .zip(&grads_perturbed)
                    .map(|((param, mixed), grad_perturbed)| MixTensor {
                        mixed: mixed.slice.clone(),
                        grad: param.grad.slice.clone(),
                        grad_perturbed: grad_perturbed.slice.clone(),
                        group: param.group,
                    })
                    .collect();
                let mut encoder = self.encoder();
                mix = Some(self.engine.mix(&mut encoder, hyper, &ascent, &tensors)?);
                // The Burn optimizer counts its parameters' steps itself.
                let (policy, norms) = (hyper.non_finite, ascent.norms());
                self.submit_and_track(&bridge, encoder, policy, norms, OutcomeScope::Step(&[]))?;
                made
            }
        };
        let rest = MixState { bridge, ascent, params, grads_perturbed, mix };
        // The base optimizer's step replaces the old weights.
        Ok(PhaseOutput { built, rest, released: weights })
    }

    pub(super) fn clip_external(
        &mut self,
        context: StepContext<'_>,
        entries: Vec<ParamEntry<DeviceTensor>>,
    ) -> Result<Vec<DeviceTensor>, WsamError> {
        let StepContext { hyper, inv_scale, .. } = context;
        if !hyper.clips_gradient() && !hyper.non_finite.checks_gradients() && inv_scale == 1.0 {
            return Ok(entries.into_iter().map(|entry| entry.grad).collect());
        }
        let (specs, shapes) = outputs_of(entries.iter());
        let resolving_params = self.resolve(context, entries, vec![specs], &shapes)?;
        let ResolvedParams { bridge, params, arenas, outputs, .. } = resolving_params.finish()?;
        let clipped: Vec<Memory> = arenas.into_iter().flatten().collect();
        let tensors: Vec<_> = params
            .iter()
            .zip(&clipped)
            .map(|(param, clipped)| ClipTensor {
                clipped: clipped.slice.clone(),
                grad: param.grad.slice.clone(),
                group: param.group,
            })
            .collect();
        let mut encoder = self.encoder();
        let clip = self.engine.clip(&mut encoder, hyper, scaled_by(inv_scale), &tensors)?;
        let (policy, norms) = (hyper.non_finite, clip.norms());
        self.submit_and_track(&bridge, encoder, policy, norms, OutcomeScope::Step(&[]))?;
        self.last_step = Some(StepStats { submissions: 1, ..clip.stats() });
        Ok(outputs)
    }

    pub(super) fn sharpen_external(
        &mut self,
        context: StepContext<'_>,
        rates: &[f64],
        mixed: MixState,
        weights: Option<Vec<DeviceTensor>>,
    ) -> Result<TensorOutput<Self, Norms>, WsamError> {
        let StepContext { hyper, track_norms, .. } = context;
        let MixState { bridge, ascent, params, grads_perturbed, mix } = mixed;
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
            let (ids, specs, shapes) = columns(&params);
            let (made, resolving) =
                bridge.resolve(weights.clone(), vec![specs], Vec::new(), &shapes);
            let resolved = resolving.finish()?;
            let updated: Vec<Memory> = resolved.arenas.into_iter().flatten().collect();
            let tensors: Vec<_> = params
                .iter()
                .zip(&resolved.tensors)
                .zip(&updated)
                .zip(&grads_perturbed)
                .map(|(((param, weight), updated), grad_perturbed)| SharpenTensor {
                    weight: updated.slice.clone(),
                    anchor: Some(weight.slice.clone()),
                    grad: param.grad.slice.clone(),
                    grad_perturbed: grad_perturbed.slice.clone(),
                    group: param.group,
                })
                .collect();
            let mut encoder = self.encoder();
            let step =
                self.engine.sharpen(&mut encoder, hyper, rates, &ascent, mix.as_ref(), &tensors)?;
            self.submit(encoder);
            stats += StepStats { submissions: 1, ..step };
            self.place(&ids, &identities(&made), updated);
            output.built = made;
            output.released = weights;
        }
        self.last_step = Some(stats);
        Ok(output)
    }
}
