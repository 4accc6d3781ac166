//! The largest eigenvalue of the loss's Hessian, by power iteration. A product of the Hessian with a
//! vector is the difference of two gradients.

use super::error::{SharpnessError, finite};
use super::point::{Point, Vector, combine, dot, scaled};
use super::random::Normal;
use crate::method::InvalidHyperparameter;
use crate::optim::error::WsamError;
use burn::module::Module;
use burn::tensor::Tensor;

/// Options of [`top_eigenvalue`].
///
/// ```
/// # use burn_wsam::sharpness::PowerIteration;
/// let options = PowerIteration::default().with_tolerance(1e-4);
/// # assert_eq!(options.seed, 0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct PowerIteration {
    /// Largest number of products of the Hessian with a vector; each takes two forward and backward passes.
    pub max_products: usize,
    /// Largest relative change of the eigenvalue between two iterations at which the iteration stops. Positive.
    pub tolerance: f64,
    /// Seed of the start vector.
    pub seed: u64,
    /// Step along a unit vector, to either side, of the central difference of gradients. Positive; `None` is the
    /// cube root of the element type's machine epsilon, 0.005 for `f32`.
    pub step: Option<f64>,
}

impl Default for PowerIteration {
    fn default() -> Self {
        Self { max_products: 200, tolerance: 1e-3, seed: 0, step: None }
    }
}

/// Result of [`top_eigenvalue`].
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct TopEigenvalue {
    /// The eigenvalue. It is negative where the loss curves down in all directions.
    pub value: f64,
    /// `||H v - value v||` for the last unit vector `v`: some eigenvalue is at most this far from
    /// `value`, up to the error of the differences.
    pub residual: f64,
    /// Products of the Hessian with a vector that were taken.
    pub products: usize,
    /// Whether the tolerance was reached within `max_products`.
    pub converged: bool,
}

/// The largest eigenvalue of the Hessian of `loss` at the model's weights.
///
/// Power iteration finds the eigenvalue of the largest magnitude. If that is a negative one, a second
/// iteration on the Hessian less that eigenvalue finds the largest.
///
/// # Errors
///
/// [`SharpnessError::Refused`] if an option is outside its domain, the loss is not on an autodiff
/// graph or no parameter has a gradient; [`SharpnessError::NotFinite`] if the loss or the curvature
/// is not finite.
pub fn top_eigenvalue<M, F>(
    model: &M,
    options: &PowerIteration,
    mut loss: F,
) -> Result<TopEigenvalue, SharpnessError>
where
    M: Module,
    F: FnMut(&M) -> Tensor<1>,
{
    options.check()?;
    let mut point = Point::of(model)?;
    let (value, _) = point.differentiate(model, &mut loss)?;
    finite("the loss", value)?;
    let step = options.step.unwrap_or_else(|| default_step(&point.weights));
    let mut product = |v: &Vector| {
        let ahead = point.gradient_along(model, v, step, &mut loss)?;
        let behind = point.gradient_along(model, v, -step, &mut loss)?;
        Ok(scaled(&combine(&ahead, -1.0, &behind), 0.5 / step))
    };
    let start = unit(Normal::new(options.seed).vector(&point.weights))?;
    let (first, v) = iterate(start, 0.0, options, options.max_products, &mut product)?;
    let left = options.max_products - first.products;
    if first.value >= 0.0 || !first.converged || left == 0 {
        return Ok(TopEigenvalue { converged: first.converged && first.value >= 0.0, ..first });
    }
    // The vector found has the shifted eigenvalue zero, so start again from a vector orthogonal to it.
    let fresh = Normal::new(options.seed.wrapping_add(1)).vector(&v);
    let across = unit(combine(&fresh, -dot(&fresh, &v)?, &v))?;
    let (second, _) = iterate(across, first.value, options, left, &mut product)?;
    Ok(TopEigenvalue { products: first.products + second.products, ..second })
}

/// Power iteration on the Hessian minus `shift`. Returns an eigenvalue of the Hessian itself.
fn iterate(
    start: Vector,
    shift: f64,
    options: &PowerIteration,
    most: usize,
    product: &mut impl FnMut(&Vector) -> Result<Vector, SharpnessError>,
) -> Result<(TopEigenvalue, Vector), SharpnessError> {
    let mut v = start;
    let mut last = None;
    for products in 1.. {
        let image = product(&v)?;
        let value = finite("the curvature", dot(&v, &image)?)?;
        let rest = combine(&image, -value, &v);
        let residual = dot(&rest, &rest)?.max(0.0).sqrt();
        let scale = (value - shift).abs();
        let still = |last: f64| (value - last).abs() <= options.tolerance * scale;
        // The curvature is zero, as in a linear loss.
        let flat = residual == 0.0 && scale == 0.0;
        let converged = flat || last.is_some_and(still);
        if converged || products >= most {
            return Ok((TopEigenvalue { value, residual, products, converged }, v));
        }
        last = Some(value);
        v = unit(combine(&image, -shift, &v))?;
    }
    unreachable!("the loop ends after {most} products")
}

fn unit(v: Vector) -> Result<Vector, SharpnessError> {
    // Divide by the largest element first: squares of tiny elements would underflow.
    let largest = v.iter().map(|tensor| tensor.clone().abs().max());
    let largest = super::point::scalar(Tensor::cat(largest.collect(), 0).max())?;
    finite("the curvature", largest)?;
    if largest == 0.0 {
        return Ok(v);
    }
    let v = scaled(&v, 1.0 / largest);
    let norm = dot(&v, &v)?.sqrt();
    Ok(scaled(&v, 1.0 / norm))
}

fn default_step(weights: &Vector) -> f64 {
    let coarsest = weights.iter().filter_map(|weight| weight.dtype().finfo());
    let epsilon = coarsest.map(|info| info.epsilon).fold(0.0, f64::max);
    if epsilon > 0.0 { epsilon.cbrt() } else { f64::from(f32::EPSILON).cbrt() }
}

impl PowerIteration {
    /// Sets [`max_products`](Self::max_products).
    #[must_use]
    pub fn with_max_products(mut self, max_products: usize) -> Self {
        self.max_products = max_products;
        self
    }

    /// Sets [`tolerance`](Self::tolerance).
    #[must_use]
    pub fn with_tolerance(mut self, tolerance: f64) -> Self {
        self.tolerance = tolerance;
        self
    }

    /// Sets [`seed`](Self::seed).
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Sets [`step`](Self::step).
    #[must_use]
    pub fn with_step(mut self, step: Option<f64>) -> Self {
        self.step = step;
        self
    }

    fn check(&self) -> Result<(), WsamError> {
        let wrong = |name, value, expected| {
            Err(WsamError::Hyperparameter(InvalidHyperparameter { name, value, expected }))
        };
        let positive = |value: f64| value.is_finite() && value > 0.0;
        if self.max_products == 0 {
            return wrong("max_products", 0.0, "at least 1");
        }
        if !positive(self.tolerance) {
            return wrong("tolerance", self.tolerance, "finite and above 0");
        }
        match self.step {
            Some(step) if !positive(step) => wrong("step", step, "finite and above 0"),
            _ => Ok(()),
        }
    }
}
