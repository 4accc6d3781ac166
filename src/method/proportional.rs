//! A value that changes in proportion to the learning rate.

use super::{InvalidHyperparameter, check, non_negative};

/// A value that changes in proportion to the learning rate:
/// `(value - min) / (max - min) = (lr - min_lr) / (max_lr - min_lr)`.
///
/// GSAM's authors change `rho` by it (Zhuang et al., ICLR 2022, section 4; `ProportionScheduler` in their code), so
/// that the perturbation shrinks with the steps. It serves `alpha` in the same way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Proportional {
    /// Smallest and largest learning rate.
    pub lr: [f64; 2],
    /// The value at the smallest and at the largest learning rate.
    pub value: [f64; 2],
}

impl Proportional {
    /// Returns the value at the learning rate `lr`. Rates outside the range give the value at its nearer end.
    ///
    /// If the two rates are equal it returns the second value.
    pub fn at(&self, lr: f64) -> f64 {
        let ([min_lr, max_lr], [min, max]) = (self.lr, self.value);
        if max_lr <= min_lr {
            return max;
        }
        let share = ((lr - min_lr) / (max_lr - min_lr)).clamp(0.0, 1.0);
        share * max + (1.0 - share) * min
    }

    /// Checks that both ranges are finite and at least 0, and that they do not run backwards.
    ///
    /// # Errors
    ///
    /// The first number outside its domain. Equal rates with two different values are an error, too: the value
    /// would have no learning rate to follow.
    pub fn validate(&self) -> Result<(), InvalidHyperparameter> {
        let ([min_lr, max_lr], [min, max]) = (self.lr, self.value);
        non_negative("smallest lr of a schedule", min_lr)?;
        check("largest lr of a schedule", max_lr, "finite and at least the smallest", |v| {
            v >= min_lr
        })?;
        non_negative("smallest value of a schedule", min)?;
        check("largest value of a schedule", max, "finite and at least the smallest", |v| {
            v >= min
        })?;
        check(
            "largest value of a schedule",
            max,
            "the smallest value where the two learning rates are equal",
            |v| max_lr > min_lr || v == min,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_follow_the_rate() {
        let rho = Proportional { lr: [0.0, 0.1], value: [0.02, 0.06] };
        rho.validate().expect("in the domain");
        for (lr, want) in [(0.0, 0.02), (0.05, 0.04), (0.1, 0.06), (0.3, 0.06), (-1.0, 0.02)] {
            assert!((rho.at(lr) - want).abs() < 1e-15, "{lr}: {} for {want}", rho.at(lr));
        }
        let constant = Proportional { lr: [0.1, 0.1], value: [0.4, 0.4] };
        constant.validate().expect("in the domain");
        assert_eq!(constant.at(0.1), 0.4);
    }

    #[test]
    fn domains() {
        for (lr, value) in [
            ([-0.1, 0.1], [0.0, 1.0]),
            ([0.2, 0.1], [0.0, 1.0]),
            ([0.0, f64::NAN], [0.0, 1.0]),
            ([0.0, 0.1], [-0.5, 1.0]),
            ([0.0, 0.1], [1.0, 0.5]),
            ([0.1, 0.1], [0.0, 1.0]),
        ] {
            let error = Proportional { lr, value }.validate().expect_err("outside the domain");
            assert!(error.name.ends_with("of a schedule"), "{error}");
        }
    }
}
