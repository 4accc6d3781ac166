//! Parameters that have a gradient in only one of the two passes.

use burn::config::Config;

/// What a step does with a parameter that has a gradient in only one of its two passes, for example under random
/// depth (LayerDrop) or with experts that no token was routed to.
///
/// A parameter without a second gradient has taken part in the ascent under each policy: it counts in `||g||`
/// and in the norm that perturbations are divided by. Lean mode supports only `Refuse`.
#[derive(Config, Debug, Copy, PartialEq, Eq)]
pub enum MissingGradientPolicy {
    /// Refuse the step, with [`WsamError::MissingGradient`](crate::WsamError::MissingGradient) or
    /// [`WsamError::MissingFirstGradient`](crate::WsamError::MissingFirstGradient).
    Refuse,
    /// Leave the parameter's weight, state and step count as they are. It does not count in `||g~||`.
    Hold,
    /// Use its first gradient in place of the missing second one, so its step is the base optimizer's; that
    /// gradient counts in `||g~||`. With clipping, each of the two is clipped by its
    /// own global norm. A parameter without a first gradient is left unchanged, as under `Hold`.
    UseFirst,
}
