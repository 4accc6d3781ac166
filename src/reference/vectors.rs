//! Operations on tensors as flat vectors.

/// The Euclidean norm over all elements of all tensors.
///
/// Elements are divided by the largest magnitude first, so that the squares neither overflow nor underflow. The
/// norm is NaN if an element is NaN, else infinity if an element is infinite, and zero without elements.
pub fn norm(tensors: &[Vec<f64>]) -> f64 {
    // A NaN stays, because comparisons with NaN are false.
    let largest = tensors.iter().flatten().fold(0.0_f64, |largest, x| {
        if x.is_nan() || x.abs() > largest { x.abs() } else { largest }
    });
    if largest == 0.0 || !largest.is_finite() {
        return largest;
    }
    let sum: f64 = tensors.iter().flatten().map(|x| (x / largest).powi(2)).sum();
    largest * sum.sqrt()
}

/// The dot product over all elements of all tensors.
pub(super) fn dot(left: &[Vec<f64>], right: &[Vec<f64>]) -> f64 {
    left.iter().flatten().zip(right.iter().flatten()).map(|(l, r)| l * r).sum()
}

pub(super) fn scaled(tensor: &[f64], factor: f64) -> Vec<f64> {
    tensor.iter().map(|x| x * factor).collect()
}

pub(super) fn all_scaled(tensors: &[Vec<f64>], factor: f64) -> Vec<Vec<f64>> {
    tensors.iter().map(|tensor| scaled(tensor, factor)).collect()
}

pub(super) fn zip(left: &[f64], right: &[f64], f: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    left.iter().zip(right).map(|(l, r)| f(*l, *r)).collect()
}
