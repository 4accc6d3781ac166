//! [`LeanRoute`], the engine's lean mode as a route of the replay.

use super::engine_route::{perturbed, read, slice};
use super::golden::{Tensors, narrow, widen};
use super::replay::Route;
use burn_wsam::engine::{
    Engine, GradientOptions, LeanAscent, LeanAscentTensor, LeanDescentTensor, Slice,
};
use burn_wsam::method::Hyperparameters;
use std::sync::Arc;

/// The engine holding a model; `w` is overwritten in the ascent, and `g` is gone after it.
pub struct LeanRoute {
    engine: Arc<Engine>,
    hyper: Hyperparameters,
    lr: f64,
    weight: Vec<Slice>,
    partner: Vec<Slice>,
    state: Vec<Vec<Slice>>,
    groups: Vec<usize>,
    ran_on: Vec<Slice>,
    track_norms: bool,
    pending: Option<LeanAscent>,
    step: u64,
}

impl LeanRoute {
    pub fn new(engine: &Arc<Engine>, hyper: Hyperparameters, lr: f64, weight: &[Vec<f64>]) -> Self {
        // Garbage: the first step must not look at it.
        let garbage = |tensor: &Vec<f64>| slice(engine, &vec![f32::NAN; tensor.len()]);
        let states = hyper.base.state_names().iter();
        Self {
            engine: engine.clone(),
            lr,
            weight: weight.iter().map(|tensor| slice(engine, &narrow(tensor))).collect(),
            partner: weight.iter().map(garbage).collect(),
            state: states.map(|_| weight.iter().map(garbage).collect()).collect(),
            groups: vec![0; weight.len()],
            ran_on: Vec::new(),
            track_norms: true,
            pending: None,
            step: 0,
            hyper,
        }
    }

    /// Puts each tensor into a group of the hyperparameters.
    pub fn with_groups(mut self, groups: &[usize]) -> Self {
        self.groups = groups.to_vec();
        self
    }

    /// Takes no norm that the step has no use for.
    pub fn untracked(mut self) -> Self {
        self.track_norms = false;
        self
    }

    fn read_all(&self, slices: &[Slice]) -> Result<Tensors, String> {
        let wide = |slice| read(&self.engine, slice).map(|values| widen(&values));
        slices.iter().map(|slice| wide(slice).map_err(|error| error.to_string())).collect()
    }
}

impl Route for LeanRoute {
    fn ascend(&mut self, grad: &[Vec<f64>]) -> Result<Tensors, String> {
        self.step += 1;
        let moved = perturbed(&self.hyper, &self.groups);
        // What is not perturbed is read by the second pass, and stepped out of place.
        let before: Vec<_> = self.weight.clone();
        for (weight, moved) in self.weight.iter_mut().zip(&moved) {
            if !moved {
                *weight = slice(&self.engine, &vec![f32::NAN; weight.len as usize]);
            }
        }
        let tensors: Vec<_> = (0..self.weight.len())
            .map(|i| {
                LeanAscentTensor::new(
                    self.weight[i].clone(),
                    slice(&self.engine, &narrow(&grad[i])),
                    moved[i].then(|| self.partner[i].clone()),
                )
                .with_anchor((!moved[i]).then(|| before[i].clone()))
                .with_state(self.state.iter().map(|plane| plane[i].clone()).collect(), self.step)
                .in_group(self.groups[i])
            })
            .collect();
        let mut encoder = self.engine.device().create_command_encoder(&Default::default());
        let mut options = GradientOptions::default();
        options.track_norms = self.track_norms;
        let ascent = self
            .engine
            .lean_ascent(&mut encoder, &self.hyper, self.lr, options, &tensors)
            .map_err(|error| error.to_string())?;
        self.engine.queue().submit([encoder.finish()]);
        let norms = self.engine.read_norms(ascent.norms()).map_err(|error| error.to_string())?;
        // A skipped step does not advance the step count.
        if self.hyper.non_finite.checks_gradients() && !norms.gradient_is_finite() {
            self.step -= 1;
        }
        self.pending = Some(ascent);
        let partners = tensors.into_iter().zip(before).map(|(t, w)| t.perturbed.unwrap_or(w));
        self.ran_on = partners.collect();
        self.read_all(&self.ran_on)
    }

    fn descend(&mut self, lr: f64, grad_perturbed: &[Vec<f64>]) -> Result<Tensors, String> {
        let ascent = self.pending.take().ok_or("no ascent")?;
        if lr != self.lr {
            return Err(format!("the route was made for lr {}", self.lr));
        }
        let tensors: Vec<_> = self
            .weight
            .iter()
            .zip(grad_perturbed)
            .zip(&self.groups)
            .zip(&self.ran_on)
            .map(|(((weight, grad), group), ran_on)| {
                LeanDescentTensor::new(weight.clone(), slice(&self.engine, &narrow(grad)))
                    .with_second_pass_weight(ran_on.clone())
                    .in_group(*group)
            })
            .collect();
        let mut encoder = self.engine.device().create_command_encoder(&Default::default());
        self.engine
            .lean_descent(&mut encoder, &ascent, &tensors)
            .map_err(|error| error.to_string())?;
        self.engine.queue().submit([encoder.finish()]);
        self.read_all(&self.weight)
    }

    fn state(&mut self) -> Result<Vec<Tensors>, String> {
        self.state.iter().map(|plane| self.read_all(plane)).collect()
    }
}
