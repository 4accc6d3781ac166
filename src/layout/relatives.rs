// The variants of the kernels that only WSAM's relatives use.

use super::scaling::Scaling;

/// Sums over two operands `a` and `b`, and what `coefficients` computes from them. Only WSAM's relatives use them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Moments {
    /// `a` is the direction of the perturbation, which depends on the method's state, and `b` is `g`. Gives the norm
    /// that divides the perturbation, and that of `g`.
    Direction(Scaling),
    /// `a` is the momentum. Gives the norm that divides the perturbation.
    Momentum,
    /// `a` is `g` and `b` is `g~`. Gives the factors of the parts of both that are orthogonal to each other, and the norm
    /// of `g~`.
    Products,
    /// `a` is the part of `g~` that is orthogonal to `g`. Gives its length.
    Length,
}

impl Moments {
    /// All moments.
    pub const ALL: [Moments; 6] = [
        Moments::Direction(Scaling::Plain),
        Moments::Direction(Scaling::Adaptive),
        Moments::Direction(Scaling::ByClass),
        Moments::Momentum,
        Moments::Products,
        Moments::Length,
    ];

    /// Returns the number of sums: of `a^2`, of `b^2` if it is at least 2, and of `a b` if it is 3.
    pub const fn sums(self) -> u64 {
        match self {
            Moments::Momentum | Moments::Length => 1,
            Moments::Direction(_) => 2,
            Moments::Products => 3,
        }
    }

    /// Returns the moments that stand for these in [`Kernel::Coefficients`](super::Kernel::Coefficients), which does not
    /// depend on the scaling.
    pub const fn unscaled(self) -> Self {
        match self {
            Moments::Direction(_) => Moments::Direction(Scaling::Plain),
            other => other,
        }
    }

    pub(super) fn constants(self) -> Vec<(&'static str, f64)> {
        let sums = ("SUMS", self.sums() as f64);
        match self {
            Moments::Direction(scaling) => vec![sums, scaling.constant(), ("ALONE", 0.0)],
            Moments::Momentum => vec![sums, Scaling::Plain.constant(), ("ALONE", 1.0)],
            Moments::Products => vec![sums, ("ORTHOGONAL", 0.0)],
            Moments::Length => vec![sums, ("ORTHOGONAL", 1.0)],
        }
    }

    pub(super) fn coefficients(self) -> Vec<(&'static str, f64)> {
        let output = match self {
            Moments::Direction(_) | Moments::Momentum => 0.0,
            Moments::Products => 1.0,
            Moments::Length => 2.0,
        };
        vec![("SUMS", self.sums() as f64), ("OUTPUT", output)]
    }
}

/// What the base optimizer steps on in a step of one of WSAM's relatives. `method_descent.wgsl` has the formulas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StepOn {
    /// `g~`.
    GradPerturbed,
    /// `g~`, or `g` in a step that falls back to it.
    Either,
    /// `g~` without a share of the part of `g` that is orthogonal to it: GSAM.
    SurrogateGap,
    /// `g` and the method's state times the length of `g`: LookSAM.
    Corrected,
    /// `g` at weights that are perturbed along the momentum: Momentum-SAM.
    AtMomentum,
}

impl StepOn {
    /// All of them.
    pub const ALL: [StepOn; 5] = [
        StepOn::GradPerturbed,
        StepOn::Either,
        StepOn::SurrogateGap,
        StepOn::Corrected,
        StepOn::AtMomentum,
    ];

    /// Returns whether the kernel reads `g`.
    pub const fn reads_grad(self) -> bool {
        !matches!(self, StepOn::GradPerturbed)
    }

    /// Returns whether the kernel reads the column of `g~`, which may hold the method's state.
    pub const fn reads_second(self) -> bool {
        !matches!(self, StepOn::AtMomentum)
    }

    pub(super) fn constant(self) -> (&'static str, f64) {
        let value = match self {
            StepOn::GradPerturbed => 0.0,
            StepOn::Either => 1.0,
            StepOn::SurrogateGap => 2.0,
            StepOn::Corrected => 3.0,
            StepOn::AtMomentum => 4.0,
        };
        ("STEP_ON", value)
    }
}

/// What a method's new state is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UpdateOf {
    /// `g` and the old state: Friendly-SAM's average.
    Average,
    /// The part of `g~` that is orthogonal to `g`: LookSAM's direction.
    Direction,
}
