//! [`FamilyEngineRoute`], the engine as a route of WSAM's relatives.

use super::engine_route::{Placed, buffer, perturbed, read, slice};
use super::family_replay::FamilyRoute;
use super::formats::{decode, encode, upload};
use super::golden::{Tensors, narrow, widen};
use super::half_model::round_trip;
use burn_wsam::engine::{
    Ascent, AscentOptions, AscentTensor, BaseTensor, BlendSource, DescentTensor, Engine, Format,
    GradientOptions, InvScale, MethodState, MomentumTensor, Placement, Rounding, Slice, StepStats,
};
use burn_wsam::layout::Norms;
use burn_wsam::method::{Hyperparameters, Method, Outcome, Passes};
use std::sync::Arc;

/// The engine holding a model that a method trains, in either placement.
pub struct FamilyEngineRoute {
    engine: Arc<Engine>,
    hyper: Hyperparameters,
    placement: Placed,
    format: Format,
    weight: Vec<Slice>,
    /// Master weights of tensors in half precision.
    master: Option<Vec<Slice>>,
    /// Memory for `w + e_w`, or for `w` in an ascent in place.
    partner: Vec<Slice>,
    state: Vec<Vec<Slice>>,
    /// The method's state, and whether a step has written it.
    method_state: Vec<Slice>,
    is_set: bool,
    groups: Vec<usize>,
    /// The loss scale.
    scale: f64,
    pending: Option<Pending>,
    /// Steps taken.
    step: u64,
    place: u32,
    /// Costs of the last step.
    stats: StepStats,
}

/// A recorded ascent, the gradients that it took, and the weights that it gave.
struct Pending {
    ascent: Ascent,
    grad: Vec<Slice>,
    point: Tensors,
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl FamilyEngineRoute {
    pub fn new(
        engine: &Arc<Engine>,
        hyper: Hyperparameters,
        placement: Placed,
        weight: &[Vec<f64>],
    ) -> Self {
        Self::in_format(engine, hyper, placement, weight, (Format::F32, false))
    }

    /// The model in a format, with or without master weights. Gradients are rounded to the format.
    pub fn in_format(
        engine: &Arc<Engine>,
        hyper: Hyperparameters,
        placement: Placed,
        weight: &[Vec<f64>],
        (format, has_master): (Format, bool),
    ) -> Self {
        // Garbage: the first step must not look at it.
        let garbage = |tensor: &Vec<f64>| single(engine, &vec![f64::NAN; tensor.len()]);
        let all_garbage = || weight.iter().map(garbage).collect::<Vec<_>>();
        let put = |tensor: &Vec<f64>| in_format(engine, format, tensor);
        let nothing = |tensor: &Vec<f64>| put(&vec![f64::NAN; tensor.len()]);
        let states = hyper.base.state_names().iter();
        Self {
            engine: engine.clone(),
            placement,
            format,
            weight: weight.iter().map(put).collect(),
            master: has_master.then(|| weight.iter().map(|w| single(engine, w)).collect()),
            partner: weight.iter().map(nothing).collect(),
            state: states.map(|_| all_garbage()).collect(),
            method_state: all_garbage(),
            is_set: false,
            groups: vec![0; weight.len()],
            scale: 1.0,
            pending: None,
            step: 0,
            place: 0,
            stats: StepStats::default(),
            hyper,
        }
    }

    /// Puts each tensor into a group of the hyperparameters.
    pub fn with_groups(mut self, groups: &[usize]) -> Self {
        self.groups = groups.to_vec();
        self
    }

    /// Hands in gradients of a loss of this scale.
    pub fn scaled(mut self, scale: f64) -> Self {
        self.scale = scale;
        self
    }

    /// Changes the hyperparameters of the next steps.
    pub fn set_hyper(&mut self, hyper: Hyperparameters) {
        self.hyper = hyper;
    }

    /// The costs of the last step.
    pub fn stats(&self) -> StepStats {
        self.stats
    }

    fn keeps_state(&self, tensor: usize) -> bool {
        let keeps = !self.hyper.method.state_names().is_empty();
        keeps && perturbed(&self.hyper, &self.groups)[tensor]
    }

    fn method_state_of(&self, tensor: usize) -> MethodState {
        let slice = self.method_state[tensor].clone();
        match (self.keeps_state(tensor), self.is_set) {
            (false, _) => MethodState::None,
            (true, false) => MethodState::Unset(slice),
            (true, true) => MethodState::Set(slice),
        }
    }

    fn state_of(&self, tensor: usize) -> Vec<Slice> {
        self.state.iter().map(|plane| plane[tensor].clone()).collect()
    }

    fn placement_of(&self, tensor: usize) -> Placement {
        let moves = perturbed(&self.hyper, &self.groups)[tensor];
        match (self.placement, &self.master) {
            // Master weights hold `w` anyway.
            (Placed::InPlace, Some(_)) if moves => Placement::InPlace { anchor: None },
            _ => self.placement.with(moves.then(|| self.partner[tensor].clone())),
        }
    }

    fn master_of(&self, tensor: usize) -> Option<Slice> {
        self.master.as_ref().map(|master| master[tensor].clone())
    }

    /// The slice that an ascent in place has saved `w` to.
    fn anchor_of(&self, tensor: usize) -> Option<Slice> {
        match self.placement_of(tensor) {
            Placement::InPlace { anchor } => anchor,
            _ => None,
        }
    }

    fn upload(&self, grad: &[Vec<f64>]) -> Vec<Slice> {
        let scaled = |g: &Vec<f64>| g.iter().map(|g| g * self.scale).collect::<Vec<_>>();
        grad.iter().map(|g| in_format(&self.engine, self.format, &scaled(g))).collect()
    }

    fn read_all(&self, slices: &[Slice]) -> Result<Tensors, String> {
        let values = |slice: &Slice| match slice.format {
            Format::F32 => read(&self.engine, slice).map(|v| widen(&v)).map_err(text),
            half => {
                let bits = round_trip(&self.engine, slice)?;
                Ok(bits.into_iter().map(|bits| decode(half, bits)).collect())
            }
        };
        slices.iter().map(values).collect()
    }

    /// The master weights, or the weights where there are none.
    pub fn masters(&self) -> Result<Tensors, String> {
        self.read_all(self.master.as_ref().unwrap_or(&self.weight))
    }

    fn encoder(&self) -> wgpu::CommandEncoder {
        self.engine.device().create_command_encoder(&Default::default())
    }

    fn submit(&self, encoder: wgpu::CommandEncoder) {
        self.engine.queue().submit([encoder.finish()]);
    }

    /// The weights that the next gradient is taken at.
    fn read_point(&self) -> Result<Tensors, String> {
        let point = |tensor: usize| match self.placement_of(tensor) {
            Placement::OutOfPlace(perturbed) => perturbed,
            _ => self.weight[tensor].clone(),
        };
        self.read_all(&(0..self.weight.len()).map(point).collect::<Vec<_>>())
    }

    fn gradient_options<'a>(&self, held: &'a wgpu::Buffer) -> GradientOptions<'a> {
        GradientOptions::default().with_inv_scale(InvScale::Device(held))
    }

    fn base_tensors(&self, grad: &[Slice], moved: bool) -> Vec<BaseTensor> {
        (0..self.weight.len())
            .map(|i| {
                let (weight, grad) = (self.weight[i].clone(), grad[i].clone());
                let state = match moved {
                    true => MethodState::None,
                    false => self.method_state_of(i),
                };
                BaseTensor::new(weight, grad)
                    .with_anchor(self.anchor_of(i).filter(|_| moved))
                    .with_master(self.master_of(i))
                    .with_state(self.state_of(i), self.step + 1)
                    .with_method_state(state)
                    .in_group(self.groups[i])
            })
            .collect()
    }

    /// Advances what the host keeps between steps, by the norms of the step.
    fn finish(&mut self, norms: Norms) {
        let (gradient, perturbed) = (norms.gradient_is_finite(), norms.perturbed_is_finite());
        let outcome = self.hyper.non_finite.outcome(false, gradient, perturbed);
        if outcome == Outcome::Skipped {
            return;
        }
        self.step += 1;
        let whole = outcome == Outcome::Whole;
        self.is_set |= whole || matches!(self.hyper.method, Method::FriendlySam { .. });
        if whole {
            self.place = self.hyper.method.next_place(self.place);
        }
    }

    fn momentum_ascent(&mut self) -> Result<(), String> {
        if self.pending.is_some() {
            return Ok(());
        }
        let index = self.hyper.base.momentum_state().ok_or("no momentum")?;
        let tensors: Vec<_> = (0..self.weight.len())
            .map(|i| {
                let (weight, momentum) = (self.weight[i].clone(), self.state[index][i].clone());
                MomentumTensor::new(weight, momentum, self.placement_of(i), self.step + 1)
                    .with_master(self.master_of(i))
                    .in_group(self.groups[i])
            })
            .collect();
        let mut encoder = self.encoder();
        let rounding = Rounding::Nearest;
        let ascent = self.engine.momentum_ascent(&mut encoder, &self.hyper, rounding, &tensors);
        let ascent = ascent.map_err(text)?;
        self.submit(encoder);
        self.stats = ascent.stats();
        self.pending = Some(Pending { ascent, grad: Vec::new(), point: self.read_point()? });
        Ok(())
    }
}

impl FamilyRoute for FamilyEngineRoute {
    fn passes(&mut self) -> Passes {
        self.hyper.method.passes(self.place)
    }

    fn gradient_point(&mut self) -> Result<Tensors, String> {
        if self.hyper.method != Method::MomentumSam {
            return self.read_all(&self.weight);
        }
        self.momentum_ascent()?;
        Ok(self.pending.as_ref().map_or_else(Vec::new, |pending| pending.point.clone()))
    }

    fn ascend(&mut self, grad: &[Vec<f64>]) -> Result<Tensors, String> {
        let grad = self.upload(grad);
        let is_friendly = matches!(self.hyper.method, Method::FriendlySam { .. });
        let tensors: Vec<_> = (0..self.weight.len())
            .map(|i| {
                let (weight, grad) = (self.weight[i].clone(), grad[i].clone());
                let state = match is_friendly {
                    true => self.method_state_of(i),
                    false => MethodState::None,
                };
                AscentTensor::new(weight, grad, self.placement_of(i))
                    .with_master(self.master_of(i))
                    .with_method_state(state)
                    .in_group(self.groups[i])
            })
            .collect();
        let mut encoder = self.encoder();
        let options = AscentOptions::default().with_inv_scale(InvScale::Host(1.0 / self.scale));
        let ascent = self.engine.ascent(&mut encoder, &self.hyper, options, &tensors);
        let ascent = ascent.map_err(text)?;
        self.submit(encoder);
        self.stats = ascent.stats();
        let point = self.read_point()?;
        self.pending = Some(Pending { ascent, grad, point: point.clone() });
        Ok(point)
    }

    fn descend(&mut self, lr: f64, grad_perturbed: &[Vec<f64>]) -> Result<Tensors, String> {
        let Pending { ascent, grad, .. } = self.pending.take().ok_or("no ascent")?;
        let grad_perturbed = self.upload(grad_perturbed);
        let tensors: Vec<_> = (0..self.weight.len())
            .map(|i| {
                let (weight, grad) = (self.weight[i].clone(), grad[i].clone());
                DescentTensor::new(weight, grad, grad_perturbed[i].clone())
                    .with_anchor(self.anchor_of(i))
                    .with_master(self.master_of(i))
                    .with_state(self.state_of(i), self.step + 1)
                    .with_method_state(self.method_state_of(i))
                    .in_group(self.groups[i])
            })
            .collect();
        let (mut encoder, blend) = (self.encoder(), BlendSource::Method);
        let stats = self.engine.descent(&mut encoder, &self.hyper, lr, blend, &ascent, &tensors);
        self.stats += stats.map_err(text)?;
        self.submit(encoder);
        self.finish(self.engine.read_norms(ascent.norms()).map_err(text)?);
        self.read_all(&self.weight)
    }

    fn one_pass(&mut self, lr: f64, grad: &[Vec<f64>]) -> Result<Tensors, String> {
        let held = buffer(&self.engine, &[(1.0 / self.scale) as f32]);
        let (grad, options) = (self.upload(grad), self.gradient_options(&held));
        let is_momentum = self.hyper.method == Method::MomentumSam;
        let mut before = StepStats::default();
        if is_momentum {
            self.momentum_ascent()?;
            before = self.stats;
        }
        let mut encoder = self.encoder();
        let tensors = self.base_tensors(&grad, is_momentum);
        let step = match self.pending.take() {
            Some(Pending { ascent, .. }) if is_momentum => {
                self.engine.momentum_step(&mut encoder, &self.hyper, lr, options, &ascent, &tensors)
            }
            _ => self.engine.one_pass_step(&mut encoder, &self.hyper, lr, options, &tensors),
        };
        let step = step.map_err(text)?;
        self.submit(encoder);
        self.stats = before;
        self.stats += step.stats();
        self.finish(self.engine.read_norms(step.norms()).map_err(text)?);
        self.read_all(&self.weight)
    }

    fn state(&mut self) -> Result<Vec<Tensors>, String> {
        self.state.iter().map(|plane| self.read_all(plane)).collect()
    }

    fn method_state(&mut self) -> Result<Vec<Tensors>, String> {
        if self.hyper.method.state_names().is_empty() {
            return Ok(Vec::new());
        }
        let of = |tensor: usize| match self.method_state_of(tensor) {
            MethodState::Set(slice) => read(&self.engine, &slice).map(|v| widen(&v)).map_err(text),
            // The zero that the oracle has before the first step.
            _ => Ok(vec![0.0; self.weight[tensor].len as usize]),
        };
        Ok(vec![(0..self.weight.len()).map(of).collect::<Result<_, _>>()?])
    }
}

/// A slice of `f32` that ends with a whole vector, as tensors in half precision need.
fn single(engine: &Engine, values: &[f64]) -> Slice {
    let mut padded = narrow(values);
    padded.resize(values.len().next_multiple_of(4), f32::NAN);
    slice(engine, &padded).with_len(values.len() as u64)
}

fn in_format(engine: &Engine, format: Format, values: &[f64]) -> Slice {
    match format {
        Format::F32 => slice(engine, &narrow(values)),
        half => {
            let bits: Vec<_> = values.iter().map(|x| encode(half, *x)).collect();
            upload(engine, half, &bits)
        }
    }
}
