//! A model in half precision on the engine.

use super::engine_route::{read, slice};
use super::formats::{BEHIND, decode, encode, upload};
use super::golden::Tensors;
use burn_wsam::engine::{
    Ascent, AscentOptions, AscentTensor, BlendSource, DescentTensor, Engine, Format, Placement,
    Rounding, Slice, StepStats,
};
use burn_wsam::method::Hyperparameters;
use std::sync::Arc;

/// Reads a slice and checks that the padding after its end is unchanged.
pub fn round_trip(engine: &Engine, slice: &Slice) -> Result<Vec<u16>, String> {
    let bytes = engine.read_buffer(&slice.buffer).map_err(|error| error.to_string())?;
    let mut bits: Vec<u16> = bytemuck::pod_collect_to_vec(&bytes);
    if bits.split_off(slice.len as usize).iter().any(|bits| *bits != BEHIND) {
        return Err("something was written behind the end of a tensor".to_owned());
    }
    Ok(bits)
}

/// A model in half precision, with or without master weights.
pub struct Model {
    pub format: Format,
    /// Of the last step.
    pub stats: StepStats,
    engine: Arc<Engine>,
    hyper: Hyperparameters,
    placement: Placement,
    weight: Vec<Slice>,
    master: Option<Vec<Slice>>,
    partner: Vec<Slice>,
    state: Vec<Vec<Slice>>,
    pending: Option<(Ascent, Vec<Slice>)>,
    step: u64,
}

impl Model {
    pub fn new(
        engine: &Arc<Engine>,
        hyper: &Hyperparameters,
        format: Format,
        master: bool,
        weights: &[Vec<f64>],
    ) -> Result<Self, String> {
        let singles =
            |tensor: &Vec<f64>| -> Vec<f32> { tensor.iter().map(|x| *x as f32).collect() };
        // Whole vectors, and garbage: the first step must not look at states.
        let padded = |mut values: Vec<f32>| {
            let len = values.len() as u64;
            values.resize(values.len().next_multiple_of(4), f32::NAN);
            Slice { len, ..slice(engine, &values) }
        };
        let garbage = |tensor: &Vec<f64>| padded(vec![f32::NAN; tensor.len()]);
        let halves = |tensor: &Vec<f64>| halves(engine, format, tensor);
        let nothing = |tensor: &Vec<f64>| upload(engine, format, &vec![0x7e00; tensor.len()]);
        Ok(Self {
            format,
            stats: StepStats::default(),
            engine: engine.clone(),
            hyper: hyper.clone(),
            placement: Placement::OutOfPlace,
            weight: weights.iter().map(halves).collect(),
            master: master.then(|| weights.iter().map(|w| padded(singles(w))).collect()),
            partner: weights.iter().map(nothing).collect(),
            state: (hyper.base.state_names().iter())
                .map(|_| weights.iter().map(garbage).collect())
                .collect(),
            pending: None,
            step: 0,
        })
    }

    pub fn placed(self, placement: Placement) -> Self {
        Self { placement, ..self }
    }

    /// Gradients are halves already.
    pub fn ascend(&mut self, grad: &[Vec<f64>], rounding: Rounding) -> Result<Tensors, String> {
        let grad: Vec<_> = grad.iter().map(|g| halves(&self.engine, self.format, g)).collect();
        let in_place = self.placement == Placement::InPlace;
        let tensors: Vec<_> = (0..self.weight.len())
            .map(|i| {
                let master = self.master.as_ref().map(|master| &master[i]);
                let partner = master.filter(|_| in_place).unwrap_or(&self.partner[i]);
                let weight = master.filter(|_| !in_place).unwrap_or(&self.weight[i]);
                AscentTensor {
                    weight: weight.clone(),
                    grad: grad[i].clone(),
                    partner: Some(partner.clone()),
                    group: 0,
                }
            })
            .collect();
        let mut encoder = self.engine.device().create_command_encoder(&Default::default());
        let options =
            AscentOptions { placement: self.placement, rounding, ..AscentOptions::default() };
        let ascent = self
            .engine
            .ascent(&mut encoder, &self.hyper, options, &tensors)
            .map_err(|error| error.to_string())?;
        self.engine.queue().submit([encoder.finish()]);
        self.stats = ascent.stats();
        self.pending = Some((ascent, grad));
        self.read_all(if in_place { &self.weight } else { &self.partner })
    }

    pub fn descend(&mut self, lr: f64, grad_perturbed: &[Vec<f64>]) -> Result<(), String> {
        let (ascent, grad) = self.pending.take().ok_or("no ascent")?;
        self.step += 1;
        let tensors: Vec<_> = (0..self.weight.len())
            .map(|i| DescentTensor {
                weight: self.weight[i].clone(),
                anchor: match &self.master {
                    Some(master) => Some(master[i].clone()),
                    None if self.placement == Placement::InPlace => Some(self.partner[i].clone()),
                    None => None,
                },
                grad: grad[i].clone(),
                grad_perturbed: halves(&self.engine, self.format, &grad_perturbed[i]),
                state: self.state.iter().map(|plane| plane[i].clone()).collect(),
                step: self.step,
                group: 0,
            })
            .collect();
        let mut encoder = self.engine.device().create_command_encoder(&Default::default());
        self.stats += self
            .engine
            .descent(&mut encoder, &self.hyper, lr, BlendSource::Method, &ascent, &tensors)
            .map_err(|error| error.to_string())?;
        self.engine.queue().submit([encoder.finish()]);
        Ok(())
    }

    pub fn weights(&self) -> Result<Tensors, String> {
        self.read_all(&self.weight)
    }

    pub fn masters(&self) -> Result<Option<Tensors>, String> {
        self.master.as_ref().map(|master| self.singles(master)).transpose()
    }

    pub fn state(&self) -> Result<Vec<Tensors>, String> {
        self.state.iter().map(|plane| self.singles(plane)).collect()
    }

    fn singles(&self, slices: &[Slice]) -> Result<Tensors, String> {
        let wide = |slice| read(&self.engine, slice).map_err(|error| error.to_string());
        let all =
            slices.iter().map(|slice| wide(slice).map(|x| x.into_iter().map(f64::from).collect()));
        all.collect()
    }

    fn read_all(&self, slices: &[Slice]) -> Result<Tensors, String> {
        let wide = |slice| round_trip(&self.engine, slice);
        let decoded = |bits: Vec<u16>| bits.iter().map(|bits| decode(self.format, *bits)).collect();
        slices.iter().map(|slice| wide(slice).map(decoded)).collect()
    }
}

fn halves(engine: &Engine, format: Format, tensor: &[f64]) -> Slice {
    let bits: Vec<u16> = tensor.iter().map(|x| encode(format, *x)).collect();
    upload(engine, format, &bits)
}
