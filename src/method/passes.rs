//! Rules that say which steps take a second gradient.
//!
//! A rule is host-side state of a few numbers. The steps that it leaves without a second pass are steps of the base
//! optimizer on `g`, which change nothing of what the method stores.

use super::{AeSam, Interval, InvalidHyperparameter};

/// How many gradients a step takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passes {
    /// One gradient.
    One,
    /// A gradient at `w`, and one at `w + e_w`.
    Two,
}

/// Which steps of a method of two passes have the second pass.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum PassRule {
    /// Every step.
    #[default]
    EveryStep,
    /// Every `k`-th step, the first included.
    Interval(Interval),
    /// The steps with an unusually large gradient: AE-SAM.
    AeSam(AeSam),
}

impl PassRule {
    /// Returns how many gradients step `step` takes, counted from 0, and advances the rule's state.
    ///
    /// `norm` is `||g||` of the step; only [`AeSam`](Self::AeSam) reads it. Call this once for each step.
    pub fn decide(&mut self, step: u64, norm: f64) -> Passes {
        match self {
            Self::EveryStep => Passes::Two,
            Self::Interval(interval) => interval.passes(step),
            Self::AeSam(rule) => rule.decide(step, norm),
        }
    }

    /// Returns whether [`decide`](Self::decide) needs the norm of the step's gradient.
    pub fn reads_norm(&self) -> bool {
        matches!(self, Self::AeSam(_))
    }

    /// Checks every constant against its domain.
    ///
    /// # Errors
    ///
    /// The first constant outside its domain, with its value.
    pub fn validate(&self) -> Result<(), InvalidHyperparameter> {
        match self {
            Self::EveryStep => Ok(()),
            Self::Interval(interval) => interval.validate(),
            Self::AeSam(rule) => rule.validate(),
        }
    }
}
