//! The phases of a step (ascent, descent, ...), independent of the tensors: which reduction, which kernel.

use super::rows::TensorRow;
use crate::layout::{Kernel, NormOf, Norms, Scaling};
use crate::method::Hyperparameters;

/// A phase of a step, independent of the tensors: a reduction of the gradient, then one kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Phase {
    pub(crate) reduction: Reduction,
    pub(crate) kernel: Kernel,
}

/// The reduction over the gradient that runs before the phase's kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reduction {
    None,
    Norm(NormReduction),
    /// Whether `g`, or `g~` if `perturbed`, is finite.
    CheckFinite {
        perturbed: bool,
    },
}

/// A norm of `g` or `g~`. The norm also shows whether that gradient is finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NormReduction {
    pub(crate) of: NormOf,
    /// Whether the norm is taken of `g~` instead of `g`.
    pub(crate) perturbed: bool,
    /// Fields of [`layout::Norms`] that receive the norm, as bits.
    pub(crate) slots: u32,
}

impl Phase {
    /// Clears the fields that this phase does not read, so that rows which differ only in these share a plan.
    pub(super) fn row<'a>(&self, row: TensorRow<'a>) -> TensorRow<'a> {
        match self.kernel {
            Kernel::Ascent { .. } | Kernel::LeanAscent { .. } => row,
            _ => TensorRow { scope: Some(0), adaptive: false, ..row },
        }
    }

    /// Returns whether the kernel processes this tensor. The ascent skips tensors that are not perturbed.
    pub(super) fn processes(&self, row: &TensorRow<'_>) -> bool {
        row.scope.is_some() || !matches!(self.kernel, Kernel::Ascent { .. })
    }
}

/// Returns how the perturbation scales with the weights, over all groups.
pub(crate) fn scaling(hyper: &Hyperparameters) -> Scaling {
    if hyper.perturbs_by_gradient_norm() {
        Scaling::Plain
    } else if hyper.perturbs_unevenly() {
        Scaling::ByClass
    } else {
        Scaling::Adaptive
    }
}

/// Returns the norms that an ascent takes. All are computed in one pass over `g`.
pub(crate) fn ascent_reduction(hyper: &Hyperparameters, track_norms: bool) -> NormReduction {
    // Only the norm of `g` covers the tensors that are not perturbed, so it has to check them.
    let unseen =
        hyper.non_finite.checks_gradients() && hyper.groups.iter().any(|group| !group.perturbed);
    let (of, slots) = match scaling(hyper) {
        Scaling::Plain => (NormOf::Gradient, Norms::PERTURBATION | Norms::GRADIENT),
        scaling if hyper.clips_gradient() || track_norms || unseen => {
            (NormOf::Both(scaling), Norms::GRADIENT)
        }
        scaling => (NormOf::Perturbation(scaling), 0),
    };
    NormReduction { of, perturbed: false, slots }
}

/// Returns the reduction of a descent: the norm of `g~` if clipping or tracking needs it, else the check that
/// `g~` is finite.
pub(crate) fn descent_reduction(hyper: &Hyperparameters, track_norms: bool) -> Reduction {
    gradient_reduction(hyper, hyper.clip.is_some() || track_norms, true)
}

/// Returns the reduction over `g`, or `g~` if `perturbed`: its norm if `norm` is set, else the check that it is
/// finite if the method checks gradients.
pub(crate) fn gradient_reduction(
    hyper: &Hyperparameters,
    norm: bool,
    perturbed: bool,
) -> Reduction {
    let slots = if perturbed { Norms::PERTURBED } else { Norms::GRADIENT };
    if norm {
        Reduction::Norm(NormReduction { of: NormOf::Gradient, perturbed, slots })
    } else if hyper.non_finite.checks_gradients() {
        Reduction::CheckFinite { perturbed }
    } else {
        Reduction::None
    }
}
