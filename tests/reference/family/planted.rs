//! Faults for the copy of the methods in `staged.rs`.

/// The columns of a row, by name.
pub(super) const COEFFICIENTS: [&str; 11] = ["m", "p", "q", "a", "b", "c", "d", "f", "u", "v", "z"];

/// A mistake that an implementation could make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Fault {
    #[default]
    None,
    /// The sign of a coefficient, by its index in [`COEFFICIENTS`].
    Sign(usize),
    /// The norm that divides the perturbation has no square root.
    SquaredNorm,
    /// Adaptive: the norm is that of `w^2 g`.
    SquaredWeightInNorm,
    /// Adaptive: the cosine is that of `|w| g`.
    AdaptiveCosine,
    /// GSAM: the part of `g~` that is orthogonal to `g`.
    OtherWayRound,
    /// GSAM: the projection of `g` has the length of `g~`.
    NoLength,
    /// GSAM: all of `g` is subtracted.
    WholeGradient,
    /// GSAM: the correction is that of the last step.
    LateCosine,
    /// Friendly-SAM: `h` is updated before `d` is taken. At `sigma` 1, which all files have, `d` is then `lambda`
    /// times the right one, and the perturbation is the same.
    UpdatedFirst,
    /// Friendly-SAM: the first average is `(1 - lambda) g`.
    ZeroAverage,
    /// Friendly-SAM: `h <- (1 - lambda) h + lambda g`.
    SwappedLambda,
    /// Friendly-SAM: `h` averages `g~`.
    AverageOfPerturbed,
    /// Friendly-SAM: the perturbation is divided by `||g||`.
    NormOfGradient,
    /// The base optimizer steps on `g`.
    StepsOnGradient,
    /// LookSAM: `h` is not normalised.
    NotNormalised,
    /// LookSAM: `h` is `g~`, with its part along `g`.
    NotOrthogonal,
    /// LookSAM: the correction is `alpha h`.
    NoGradientNorm,
    /// LookSAM: the correction has the norm of the last `g~`.
    NormOfPerturbed,
    /// LookSAM: the cycle is one step longer.
    LongerCycle,
    /// LookSAM: the second step of the cycle is the SAM step.
    LateCycle,
    /// Momentum-SAM: the L2 penalty is taken from `w`.
    DecayOfWeights,
    /// Momentum-SAM: the perturbation is that of the last step.
    LateMomentum,
    /// Momentum-SAM: the perturbation has the length of `rho m`.
    NoMomentumNorm,
}

impl Fault {
    /// Every fault but those of signs, and but [`UpdatedFirst`](Self::UpdatedFirst), which the files cannot see.
    pub(super) const OTHERS: [Self; 21] = [
        Self::SquaredNorm,
        Self::SquaredWeightInNorm,
        Self::AdaptiveCosine,
        Self::OtherWayRound,
        Self::NoLength,
        Self::WholeGradient,
        Self::LateCosine,
        Self::ZeroAverage,
        Self::SwappedLambda,
        Self::AverageOfPerturbed,
        Self::NormOfGradient,
        Self::StepsOnGradient,
        Self::NotNormalised,
        Self::NotOrthogonal,
        Self::NoGradientNorm,
        Self::NormOfPerturbed,
        Self::LongerCycle,
        Self::LateCycle,
        Self::DecayOfWeights,
        Self::LateMomentum,
        Self::NoMomentumNorm,
    ];
}
