//! A second pass every `k`-th step.

use super::{InvalidHyperparameter, Passes, check};

/// A second pass every `k`-th step, the first included, as `interval` of MosaicML Composer's SAM.
///
/// A step costs `1 + 1/k` gradients on average. With `every` 1 each step has a second pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// Steps from one second pass to the next, at least 1.
    pub every: u32,
}

impl Interval {
    /// Returns how many gradients step `step` takes, counted from 0. Skipped steps do not count.
    pub fn passes(&self, step: u64) -> Passes {
        if step.is_multiple_of(u64::from(self.every.max(1))) { Passes::Two } else { Passes::One }
    }

    /// Checks that `every` is at least 1.
    ///
    /// # Errors
    ///
    /// The value, if it is 0.
    pub fn validate(&self) -> Result<(), InvalidHyperparameter> {
        check("interval", f64::from(self.every), "at least 1", |v| v >= 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_every_k_steps_has_a_second_pass() {
        let second = |every, step| Interval { every }.passes(step) == Passes::Two;
        let steps: Vec<u64> = (0..12).filter(|step| second(5, *step)).collect();
        assert_eq!(steps, [0, 5, 10]);
        assert!((0..12).all(|step| second(1, step)));
    }

    #[test]
    fn zero_is_refused() {
        Interval { every: 1 }.validate().expect("1 is in the domain");
        let error = Interval { every: 0 }.validate().expect_err("0 is outside the domain");
        assert_eq!(error.to_string(), "interval is 0, but it must be at least 1");
    }
}
