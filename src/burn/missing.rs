//! Parameters that have a gradient in one of the two passes alone.

use burn::config::Config;

/// What a step does with a parameter that has a gradient in one of its two passes alone, as random depth
/// (LayerDrop) or experts that are routed around leave them.
///
/// A parameter without a second gradient has taken part in the ascent under each policy: it counts in `||g||`
/// and in the norm that perturbations are divided by. Lean mode supports `Refuse` alone.
#[derive(Config, Debug, Copy, PartialEq, Eq)]
pub enum MissingGradientPolicy {
    /// Refuse the step, with [`WsamError::MissingGradient`](crate::WsamError::MissingGradient) or
    /// [`WsamError::MissingFirstGradient`](crate::WsamError::MissingFirstGradient).
    Refuse,
    /// Leave the parameter's weight, state and step count as they are. It does not count in `||g~||`.
    Hold,
    /// Let its first gradient stand in for the missing second one, which makes its step the base
    /// optimizer's; it counts in `||g~||` with that gradient. With clipping, each of the two is clipped by its
    /// own global norm. A parameter without a first gradient is held: there was none to perturb it along.
    UseFirst,
}
