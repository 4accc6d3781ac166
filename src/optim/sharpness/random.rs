//! Normally distributed numbers from a seed. They are the same on every backend, and do not use the device's
//! generator, which the user's code shares.

use super::point::Vector;
use crate::optim::seeds::{STEP, scrambled};
use burn::tensor::{Tensor, TensorData};

/// SplitMix64 (Steele, Lea & Flood 2014) with the Box-Muller transform.
#[derive(Debug)]
pub(crate) struct Normal {
    state: u64,
}

impl Normal {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// A uniform number in `(0, 1]`.
    fn uniform(&mut self) -> f64 {
        let bits = scrambled(self.state);
        self.state = self.state.wrapping_add(STEP);
        ((bits >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    /// `len` normal numbers.
    pub(crate) fn numbers(&mut self, len: usize) -> Vec<f32> {
        let mut numbers = Vec::with_capacity(len + 1);
        while numbers.len() < len {
            let radius = (-2.0 * self.uniform().ln()).sqrt();
            let turn = std::f64::consts::TAU * self.uniform();
            numbers.push((radius * turn.cos()) as f32);
            numbers.push((radius * turn.sin()) as f32);
        }
        numbers.truncate(len);
        numbers
    }

    /// A tensor of normal numbers with the shape, type and device of `tensor`.
    pub(crate) fn like<const D: usize>(&mut self, tensor: &Tensor<D>) -> Tensor<D> {
        let shape = tensor.shape();
        let data = TensorData::new(self.numbers(shape.num_elements()), shape);
        Tensor::from_data(data, (&tensor.device(), tensor.dtype()))
    }

    /// A vector of normal numbers with the shapes of `like`.
    pub(crate) fn vector(&mut self, like: &Vector) -> Vector {
        like.iter().map(|tensor| self.like(tensor)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Normal;

    #[test]
    fn numbers_are_normal_and_repeat() {
        let numbers = Normal::new(7).numbers(100_001);
        assert_eq!(numbers.len(), 100_001);
        assert_eq!(numbers, Normal::new(7).numbers(100_001));
        assert_ne!(numbers[..9], Normal::new(8).numbers(9)[..]);
        let count = numbers.len() as f64;
        let moment = |power| numbers.iter().map(|x| f64::from(*x).powi(power)).sum::<f64>() / count;
        for (power, want, allowed) in
            [(1, 0.0, 0.02), (2, 1.0, 0.03), (3, 0.0, 0.08), (4, 3.0, 0.2)]
        {
            assert!((moment(power) - want).abs() < allowed, "moment {power}: {}", moment(power));
        }
    }
}
