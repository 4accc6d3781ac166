//! Handling of non-finite gradients.

/// Action of a step if `g` or `g~` contains a NaN or an infinity, or its norm exceeds `f32`.
///
/// All variants except [`Propagate`](Self::Propagate) check `g~` before anything is written. This costs 4 bytes
/// a parameter and one dispatch, unless the norm of `g~` is computed anyway. `g` is checked by its norm. The
/// device takes the decision, so nothing is read back within a step.
///
/// In lean mode `w` has been overwritten when `g~` becomes known. With each of the variants that check, a
/// non-finite `g` skips the step, and a non-finite `g~` leaves the weights of the second pass (`w + e_w`, or `w`
/// where the group is not perturbed) and the advanced state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum NonFinite {
    /// Skips the step: weights and state keep their bits, and the step count does not advance.
    #[default]
    Skip,
    /// Skips the step if `g` is not finite. If only `g~` is not finite, the base optimizer steps on `g`.
    BaseStep,
    /// Takes the step unchecked, so that NaNs and infinities reach the weights: the authors' behaviour.
    Propagate,
}

/// The outcome of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The step was taken as requested: a WSAM step, or a base optimizer's step.
    Whole,
    /// The base optimizer stepped on `g`, because `g~` was not finite.
    Base,
    /// The step was skipped: weights and state did not change.
    Skipped,
    /// In lean mode, `g~` was not finite: the state advanced, and the weights are those of the second pass.
    Halfway,
}

impl NonFinite {
    /// Returns whether gradients are checked.
    pub fn checks_gradients(self) -> bool {
        self != Self::Propagate
    }

    /// Returns the outcome of a step, given whether `g` (`gradient`) and `g~` (`perturbed`) are finite.
    pub fn outcome(self, lean: bool, gradient: bool, perturbed: bool) -> Outcome {
        match (self, gradient, perturbed) {
            (Self::Propagate, ..) | (_, true, true) => Outcome::Whole,
            (_, true, false) if lean => Outcome::Halfway,
            (Self::BaseStep, true, false) => Outcome::Base,
            _ => Outcome::Skipped,
        }
    }
}
