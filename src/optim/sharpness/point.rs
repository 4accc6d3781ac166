//! A model's weights as a vector, and the loss and gradient at other weights.

use super::error::SharpnessError;
use crate::optim::copies::perturbed_copy;
use crate::optim::error::WsamError;
use crate::optim::param_entries::{collect, collect_perturbed};
use crate::optim::params::{Flat, StepParams};
use crate::optim::pass::check_loss;
use crate::optim::walk::{ParamVisitor, Path, visit_params};
use burn::module::{Module, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use std::collections::HashMap;

/// One flat tensor for each parameter.
pub(crate) type Vector = Vec<Tensor<1>>;

/// The trainable parameters of a model, without autodiff.
#[derive(Debug)]
pub(crate) struct Point {
    /// Without autodiff.
    pub(crate) device: Device,
    pub(crate) weights: Vector,
    params: StepParams,
}

impl Point {
    /// The point at the model's weights.
    pub(crate) fn of<M: Module>(model: &M) -> Result<Self, SharpnessError> {
        let mut found = Trainable::default();
        visit_params(model, &mut found);
        let Some(first) = found.weights.first() else {
            let frozen = WsamError::NoGradients { gradients: 0 };
            let error = if found.autodiff { frozen } else { WsamError::NoAutodiff };
            return Err(error.into());
        };
        Ok(Self { device: first.device(), weights: found.weights, params: found.params })
    }

    /// A copy of the model with the same weights and its own running statistics.
    pub(crate) fn copy<M: Module>(&self, model: &M) -> M {
        self.moved(model, self.weights.clone())
    }

    /// A copy with other weights.
    pub(crate) fn moved<M: Module>(&self, model: &M, weights: Vector) -> M {
        perturbed_copy::<Flat, M>(model, self.params.values(weights), false)
    }

    /// The loss and the gradient here; parameters without a gradient are dropped from the point.
    pub(crate) fn differentiate<M: Module>(
        &mut self,
        model: &M,
        loss: &mut impl FnMut(&M) -> Tensor<1>,
    ) -> Result<(f64, Vector), SharpnessError> {
        let copy = self.copy(model);
        let (value, grads) = backward(&copy, loss)?;
        let collected = collect::<Flat, M>(&copy, grads, &self.device)?;
        self.params = collected.params();
        let entries = collected.entries;
        self.weights = entries.iter().map(|entry| entry.weight.clone()).collect();
        Ok((value, entries.into_iter().map(|entry| entry.grad).collect()))
    }

    /// The gradient at `weights + by * direction`.
    pub(crate) fn gradient_along<M: Module>(
        &self,
        model: &M,
        direction: &Vector,
        by: f64,
        loss: &mut impl FnMut(&M) -> Tensor<1>,
    ) -> Result<Vector, SharpnessError> {
        let copy = self.moved(model, combine(&self.weights, by, direction));
        let (_, grads) = backward(&copy, loss)?;
        let collected = collect_perturbed::<Flat, M>(&copy, grads, &self.device, &self.params)?;
        Ok(collected.all(&self.params)?)
    }
}

fn backward<M: Module>(
    model: &M,
    loss: &mut impl FnMut(&M) -> Tensor<1>,
) -> Result<(f64, GradientsParams), SharpnessError> {
    let value = loss(model);
    check_loss(&value)?;
    let grads = GradientsParams::from_grads(value.backward(), model);
    Ok((scalar(value)?, grads))
}

#[derive(Default)]
struct Seen {
    before: usize,
    taken: bool,
}

#[derive(Default)]
struct Trainable {
    /// For each id, the parameters visited so far, up to the one that takes part.
    seen: HashMap<ParamId, Seen>,
    autodiff: bool,
    params: StepParams,
    weights: Vector,
}

impl ParamVisitor for Trainable {
    fn visit<const D: usize>(&mut self, param: &Param<Tensor<D>>, path: &Path) {
        let value = param.val();
        let len = value.shape().num_elements();
        self.autodiff |= value.is_autodiff();
        let seen = self.seen.entry(param.id).or_default();
        if seen.taken {
            return;
        }
        if !value.is_require_grad() || !value.dtype().is_float() || len == 0 {
            seen.before += 1;
            return;
        }
        seen.taken = true;
        if seen.before > 0 {
            self.params.before.insert(param.id, seen.before);
        }
        self.params.names.push((param.id, path.to_string()));
        self.weights.push(value.without_autodiff().reshape([len]));
    }
}

/// `a + by * b`.
pub(crate) fn combine(a: &Vector, by: f64, b: &Vector) -> Vector {
    a.iter().zip(b).map(|(a, b)| a.clone() + b.clone() * by).collect()
}

/// `by * a`.
pub(crate) fn scaled(a: &Vector, by: f64) -> Vector {
    a.iter().map(|a| a.clone() * by).collect()
}

/// The inner product.
pub(crate) fn dot(a: &Vector, b: &Vector) -> Result<f64, SharpnessError> {
    let products = a.iter().zip(b).map(|(a, b)| (a.clone() * b.clone()).sum());
    // Read all sums in one read, because each read waits for the device.
    let sums = Tensor::cat(products.collect(), 0);
    let read = sums.try_into_data().map_err(|error| backend(&error))?;
    Ok(read.iter::<f64>().sum())
}

/// Reads a loss from the device.
pub(crate) fn scalar(tensor: Tensor<1>) -> Result<f64, SharpnessError> {
    tensor.without_autodiff().try_into_scalar().map_err(|error| backend(&error))
}

fn backend(error: &dyn std::fmt::Debug) -> SharpnessError {
    WsamError::Backend { reason: format!("{error:?}") }.into()
}
