//! AE-SAM's rule: a second pass where the gradient is unusually large.

use super::{InvalidHyperparameter, Passes, below_one, check};

/// AE-SAM's rule: Jiang et al., "An Adaptive Policy to Employ Sharpness-Aware Minimization", ICLR 2023,
/// <https://arxiv.org/abs/2304.14647>.
///
/// The rule follows the squared gradient norm by exponential averages,
/// `mu <- delta mu + (1 - delta) ||g||^2` and `s <- delta s + (1 - delta) (||g||^2 - mu)^2`, each with this step's
/// `||g||^2`. A step has a second pass if `||g||^2 >= mu + c sqrt(s)`. The threshold `c` changes linearly over the
/// run, from `first_threshold` to `last_threshold`.
///
/// `mean` and `variance` are state that a checkpoint has to keep.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AeSam {
    /// `delta`, the decay of both averages, in `[0, 1)`.
    pub decay: f64,
    /// `c` at the first step: the paper's `lambda_2`.
    pub first_threshold: f64,
    /// `c` at the last step and after it: the paper's `lambda_1`.
    pub last_threshold: f64,
    /// Number of steps of the run, at least 1.
    pub steps: u64,
    /// `mu`, the average of `||g||^2`. It starts at 0.
    pub mean: f64,
    /// `s`, the average of the squared distance from `mu`. It starts at 0.
    pub variance: f64,
}

impl AeSam {
    /// Creates a rule for a run of `steps` steps, with decay 0.9, thresholds from 1 down to -1, and both averages
    /// at 0.
    pub fn new(steps: u64) -> Self {
        Self {
            decay: 0.9,
            first_threshold: 1.0,
            last_threshold: -1.0,
            steps,
            mean: 0.0,
            variance: 0.0,
        }
    }

    /// Returns `c` at step `step`, counted from 0.
    pub fn threshold(&self, step: u64) -> f64 {
        let done = (step as f64 / self.steps.max(1) as f64).min(1.0);
        done * self.last_threshold + (1.0 - done) * self.first_threshold
    }

    /// Updates the averages with `norm`, which is `||g||`, and returns how many gradients the step takes.
    ///
    /// A norm that is not finite leaves the averages as they are, and the step has no second pass: the step will
    /// be skipped or fail whatever the rule says.
    pub fn decide(&mut self, step: u64, norm: f64) -> Passes {
        let square = norm * norm;
        if !square.is_finite() {
            return Passes::One;
        }
        self.mean = self.decay * self.mean + (1.0 - self.decay) * square;
        let distance = square - self.mean;
        self.variance = self.decay * self.variance + (1.0 - self.decay) * distance * distance;
        let limit = self.mean + self.threshold(step) * self.variance.sqrt();
        if square >= limit { Passes::Two } else { Passes::One }
    }

    /// Checks every constant against its domain.
    ///
    /// # Errors
    ///
    /// The first constant outside its domain, with its value.
    pub fn validate(&self) -> Result<(), InvalidHyperparameter> {
        below_one("decay of AE-SAM", self.decay)?;
        check("first_threshold of AE-SAM", self.first_threshold, "finite", |_| true)?;
        check("last_threshold of AE-SAM", self.last_threshold, "finite", |_| true)?;
        check("steps of AE-SAM", self.steps as f64, "at least 1", |v| v >= 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: `||g||^2` of 4, 1 and 9 at decay 1/2.
    #[test]
    fn three_steps_by_hand() {
        let constant = AeSam { decay: 0.5, last_threshold: 1.0, ..AeSam::new(10) };
        let mut rule = constant;
        // mu 2, s (4 - 2)^2 / 2 = 2: 4 >= 2 + sqrt 2.
        assert_eq!(rule.decide(0, 2.0), Passes::Two);
        assert_eq!((rule.mean, rule.variance), (2.0, 2.0));
        // mu 1.5, s 1 + 0.25 / 2: 1 < 1.5 + 1.06.
        assert_eq!(rule.decide(1, 1.0), Passes::One);
        assert_eq!((rule.mean, rule.variance), (1.5, 1.125));
        // mu 5.25, s 0.5625 + 14.0625 / 2 = 7.59375: 9 >= 5.25 + 2.756.
        assert_eq!(rule.decide(2, 3.0), Passes::Two);
        assert_eq!((rule.mean, rule.variance), (5.25, 7.59375));
    }

    #[test]
    fn the_threshold_falls_over_the_run() {
        let rule = AeSam::new(4);
        let found = [0, 1, 2, 4, 9].map(|step| rule.threshold(step));
        assert_eq!(found, [1.0, 0.5, 0.0, -1.0, -1.0]);
        // A constant norm lies below the mean plus a deviation, and above the mean less one.
        let mut rule = AeSam { mean: 1.0, variance: 1.0, ..rule };
        assert_eq!(rule.decide(0, 1.0), Passes::One);
        assert_eq!(rule.decide(4, 1.0), Passes::Two);
    }

    #[test]
    fn norms_that_are_not_finite_leave_the_averages() {
        let before = AeSam { mean: 1.0, variance: 0.5, ..AeSam::new(10) };
        for norm in [f64::NAN, f64::INFINITY, 1e200] {
            let mut rule = before;
            assert_eq!(rule.decide(0, norm), Passes::One);
            assert_eq!(rule, before);
        }
    }

    #[test]
    fn domains() {
        AeSam::new(1).validate().expect("in the domain");
        for wrong in [
            AeSam { decay: 1.0, ..AeSam::new(1) },
            AeSam { first_threshold: f64::NAN, ..AeSam::new(1) },
            AeSam { last_threshold: f64::INFINITY, ..AeSam::new(1) },
            AeSam::new(0),
        ] {
            let error = wrong.validate().expect_err("outside the domain");
            assert!(error.name.ends_with("of AE-SAM"), "{error}");
        }
    }
}
