// The scaling of a perturbation.

/// How the perturbation scales with the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scaling {
    /// Not scaled (SAM).
    Plain,
    /// Scaled by `w^2` (ASAM).
    Adaptive,
    /// Set for each parameter class by `ParamClassUniforms::flags`, which also set whether they are perturbed.
    ByClass,
}

impl Scaling {
    /// All scalings.
    pub const ALL: [Scaling; 3] = [Scaling::Plain, Scaling::Adaptive, Scaling::ByClass];

    pub(super) fn constant(self) -> (&'static str, f64) {
        let value = match self {
            Scaling::Plain => 0.0,
            Scaling::Adaptive => 1.0,
            Scaling::ByClass => 2.0,
        };
        ("SCALING", value)
    }
}
