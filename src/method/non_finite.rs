//! What becomes of a step over gradients that are not finite.

/// What a step does if `g` or `g~` holds a NaN or an infinity, or has a norm beyond `f32`.
///
/// All but [`Propagate`](Self::Propagate) look at `g~` before anything is written, which costs 4 bytes a
/// parameter and one dispatch where its norm is not taken anyway; `g` is looked at with its norm. The
/// device decides: nothing is read back within a step.
///
/// In lean mode the step is half taken when `g~` is known, and `w` is gone. There a `g` that is not
/// finite skips the step under each of these, and a `g~` that is not leaves every weight where the second
/// pass ran, at `w + e_w` (at `w`, where the group is not perturbed), with the state advanced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NonFinite {
    /// The step is skipped: weights and state stay as they were, bit for bit, and it does not count as
    /// a step.
    #[default]
    Skip,
    /// As [`Skip`](Self::Skip) where `g` is not finite; where only `g~` is not, the base optimizer steps
    /// on `g` alone.
    BaseStep,
    /// The step is taken, whatever comes of it: the authors' behaviour.
    Propagate,
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The method's step, or the base optimizer's where that alone was asked for.
    Whole,
    /// The base optimizer's step on `g`, for `g~` was not finite.
    Base,
    /// Nothing: weights and state are as they were.
    Skipped,
    /// Lean mode: the state advanced, and the weights are where the second pass ran.
    Halfway,
}

impl NonFinite {
    /// Whether gradients are looked at.
    pub fn looks(self) -> bool {
        self != Self::Propagate
    }

    /// What a step does, by whether `g` and `g~` are finite.
    pub fn outcome(self, lean: bool, gradient: bool, perturbed: bool) -> Outcome {
        match (self, gradient, perturbed) {
            (Self::Propagate, ..) | (_, true, true) => Outcome::Whole,
            (_, true, false) if lean => Outcome::Halfway,
            (Self::BaseStep, true, false) => Outcome::Base,
            _ => Outcome::Skipped,
        }
    }
}
