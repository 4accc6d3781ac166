//! The loss over a plane through the weights, after Li et al. 2018 (<https://arxiv.org/abs/1712.09913>).

use super::error::SharpnessError;
use super::point::{Point, Vector, combine, scalar};
use super::random::Normal;
use crate::method::InvalidHyperparameter;
use crate::optim::error::WsamError;
use crate::optim::walk::{ParamVisitor, Path, visit_params};
use burn::module::{Module, Param, ParamId};
use burn::tensor::Tensor;
use std::collections::HashSet;

/// The region of a plane that [`surface`] evaluates.
///
/// The plane is spanned by two random directions with filter normalisation: each filter of a direction has
/// the norm of the weights' filter, so that surfaces of different models can be compared. A filter holds the
/// weights of one output: a column of a two-dimensional parameter (a `Linear` layer's weight is `[in, out]`), an
/// index of the first dimension of one with more dimensions. Parameters of one dimension (biases,
/// normalisation) do not vary.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Plane {
    /// Coordinates go from `-radius` to `radius`. Positive; at 1, the distance to the weights
    /// equals their norm.
    pub radius: f64,
    /// Number of coordinates along each direction, at least 2. With an odd number, the weights are in the middle.
    pub points: usize,
    /// Seed of the directions.
    pub seed: u64,
}

impl Default for Plane {
    fn default() -> Self {
        Self { radius: 1.0, points: 21, seed: 0 }
    }
}

/// Losses over a plane.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Surface {
    /// Coordinates along each of the directions.
    pub coordinates: Vec<f64>,
    /// `losses[j][i]` is the loss at `w + coordinates[i] * d_1 + coordinates[j] * d_2`. Far from the
    /// weights it may be infinite or NaN.
    pub losses: Vec<Vec<f64>>,
}

/// The loss at `plane.points * plane.points` points of a plane through the model's weights. Each point takes a
/// forward pass.
///
/// # Errors
///
/// [`SharpnessError::Refused`] if the plane is outside its domain or the model has no trainable
/// parameter (make it on `device.autodiff()`), [`SharpnessError::NoDirections`] if all of them have
/// one dimension.
pub fn surface<M, F>(model: &M, plane: &Plane, mut loss: F) -> Result<Surface, SharpnessError>
where
    M: Module,
    F: FnMut(&M) -> Tensor<1>,
{
    plane.check()?;
    let point = Point::of(model)?;
    let [first, second] = [0, 1].map(|which| {
        let seed = plane.seed.wrapping_mul(2).wrapping_add(which);
        let mut filters = Filters {
            normal: Normal::new(seed),
            seen: HashSet::new(),
            taken: Vec::new(),
            any: false,
        };
        visit_params(model, &mut filters);
        filters
    });
    if !first.any {
        return Err(SharpnessError::NoDirections);
    }
    let step = 2.0 * plane.radius / (plane.points - 1) as f64;
    let coordinates: Vec<f64> = (0..plane.points).map(|i| step * i as f64 - plane.radius).collect();
    let mut losses = Vec::new();
    for b in &coordinates {
        let row = combine(&point.weights, *b, &second.taken);
        let at = |a: &f64| scalar(loss(&point.moved(model, combine(&row, *a, &first.taken))));
        losses.push(coordinates.iter().map(at).collect::<Result<Vec<_>, _>>()?);
    }
    Ok(Surface { coordinates, losses })
}

/// Makes a direction, with one tensor for each parameter in the order of [`Point`].
struct Filters {
    normal: Normal,
    seen: HashSet<ParamId>,
    taken: Vector,
    any: bool,
}

impl ParamVisitor for Filters {
    fn visit<const D: usize>(&mut self, param: &Param<Tensor<D>>, _path: &Path) {
        let weight = param.val();
        let len = weight.shape().num_elements();
        let trains = weight.is_require_grad() && weight.dtype().is_float();
        if !trains || len == 0 || !self.seen.insert(param.id) {
            return;
        }
        let weight = weight.without_autodiff();
        if D < 2 {
            self.taken.push(weight.zeros_like().reshape([len]));
            return;
        }
        self.any = true;
        let filter = if D == 2 { 1 } else { 0 };
        let norm = |tensor: &Tensor<D>| {
            let dims = (0..D).filter(|dim| *dim != filter);
            dims.fold(tensor.clone().powi_scalar(2), |sum, dim| sum.sum_dim(dim)).sqrt()
        };
        let direction = self.normal.like(&weight);
        let scale = norm(&weight) / norm(&direction);
        self.taken.push((direction * scale).reshape([len]));
    }
}

impl Plane {
    /// Sets [`radius`](Self::radius).
    #[must_use]
    pub fn with_radius(mut self, radius: f64) -> Self {
        self.radius = radius;
        self
    }

    /// Sets [`points`](Self::points).
    #[must_use]
    pub fn with_points(mut self, points: usize) -> Self {
        self.points = points;
        self
    }

    /// Sets [`seed`](Self::seed).
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    fn check(&self) -> Result<(), WsamError> {
        let wrong = |name, value, expected| {
            Err(WsamError::Hyperparameter(InvalidHyperparameter { name, value, expected }))
        };
        if !(self.radius.is_finite() && self.radius > 0.0) {
            return wrong("radius", self.radius, "finite and above 0");
        }
        if self.points < 2 {
            return wrong("points", self.points as f64, "at least 2");
        }
        Ok(())
    }
}
