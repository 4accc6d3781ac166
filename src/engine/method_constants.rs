//! The constants of a parameter class in the phases of WSAM's relatives, as far as they differ from WSAM's.

use crate::layout::ParamClassUniforms;
use crate::method::{Hyperparameters, InGroup, Method};

/// Which constants of the method a phase uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PhaseKind {
    /// None: a phase of WSAM or of the base optimizer.
    Plain,
    /// Those of an ascent.
    Ascent,
    /// Those of a descent.
    Descent,
    /// Those of a step of one pass.
    OnePass,
}

/// What the tensors of a class share.
#[derive(Clone, Copy)]
pub(super) struct OfTensors<'a> {
    pub(super) group: &'a InGroup,
    pub(super) step: u64,
    /// Whether a step has written the method's state.
    pub(super) is_set: bool,
}

impl PhaseKind {
    /// Changes the constants of a class. Where `b` is 0 the kernels ignore the content of the method's state.
    pub(super) fn constants(
        self,
        hyper: &Hyperparameters,
        OfTensors { group, step, is_set }: OfTensors<'_>,
        class: ParamClassUniforms,
    ) -> ParamClassUniforms {
        let is_perturbed = group.perturbed;
        let only = |condition: bool, value: f64| if condition { value as f32 } else { 0.0 };
        match (self, hyper.method) {
            (Self::Ascent, Method::FriendlySam { sigma, .. }) => {
                ParamClassUniforms { b: only(is_set && is_perturbed, -sigma), ..class }
            }
            (Self::Descent, Method::FriendlySam { lambda, .. }) => {
                let a = if is_set { (1.0 - lambda) as f32 } else { 1.0 };
                ParamClassUniforms { a, b: only(is_set, lambda), ..class }
            }
            (Self::Descent, Method::Gsam { alpha }) => {
                ParamClassUniforms { b: only(is_perturbed, alpha), ..class }
            }
            (Self::OnePass, Method::LookSam { alpha, .. }) => ParamClassUniforms {
                // The length of `g` is not scaled by the weights.
                flags: class.flags & !ParamClassUniforms::ADAPTIVE,
                b: only(is_set && is_perturbed, alpha),
                ..class
            },
            (Self::Ascent | Self::OnePass, Method::MomentumSam) => ParamClassUniforms {
                rho: -class.rho,
                // The first step has no momentum.
                b: only(step > 1 && is_perturbed, 1.0),
                // The only gradient is clipped in both scopes of clipping.
                max_norm: class.max_norm_perturbed,
                ..class
            },
            _ => class,
        }
    }
}
