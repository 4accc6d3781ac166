//! The phases of a step (ascent, descent, ...), independent of the tensors: which reductions, which kernels.

use super::rows::TensorRow;
use super::sums::{Sums, SumsReduction};
use crate::layout::{COLUMNS, Kernel, Moments, NormOf, Norms, Scaling, UpdateOf, column};
use crate::method::{Group, Hyperparameters, NormScope};

/// A phase of a step, independent of the tensors: reductions of the gradients, then the kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Phase {
    pub(crate) reduction: Reduction,
    /// The update of the method's state, which runs before the kernel.
    pub(crate) update: Option<UpdateOf>,
    pub(crate) kernel: Kernel,
}

/// The reduction over the gradient that runs before the phase's kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reduction {
    None,
    Norm(SumsReduction),
    /// Whether `g`, or `g~` if `perturbed`, is finite.
    CheckFinite {
        perturbed: bool,
    },
}

impl Phase {
    /// Clears the fields that this phase does not read, so that rows which differ only in these share a plan.
    pub(super) fn row<'a>(&self, row: TensorRow<'a>) -> TensorRow<'a> {
        let mut row = row;
        match self.kernel {
            Kernel::AscentWithState { .. } | Kernel::LeanAscent { .. } => {}
            Kernel::Ascent { .. } => row.columns[column::STATE] = None,
            Kernel::MethodDescent { .. } => row.adaptive = false,
            _ => (row.scope, row.adaptive) = (Some(0), false),
        }
        row
    }

    /// Returns whether the kernel processes this tensor. The ascent skips tensors that are not perturbed.
    pub(super) fn processes(&self, row: &TensorRow<'_>) -> bool {
        row.scope.is_some()
            || !matches!(self.kernel, Kernel::Ascent { .. } | Kernel::AscentWithState { .. })
    }

    /// Returns the columns that the kernel accesses.
    pub(super) fn kernel_row<'a>(&self, row: TensorRow<'a>) -> TensorRow<'a> {
        let mut row = row;
        if let Kernel::MethodDescent { on, .. } = self.kernel {
            // The update has accessed the method's state.
            row.columns[column::WEIGHT_COPY] = None;
            if !on.reads_grad() {
                row.columns[column::GRAD] = None;
            }
        }
        row
    }

    /// Returns the columns that the update of the method's state accesses, or `None` if the tensor has no state.
    pub(super) fn update_row<'a>(&self, row: TensorRow<'a>) -> Option<TensorRow<'a>> {
        row.scope?;
        let mut columns = [None; COLUMNS];
        columns[column::GRAD] = row.columns[column::GRAD];
        if self.update? == UpdateOf::Direction {
            columns[column::GRAD_PERTURBED] = row.columns[column::GRAD_PERTURBED];
        }
        columns[column::STATE] = row.columns[column::WEIGHT_COPY];
        Some(TensorRow { columns, ..row })
    }

    /// Returns the reductions to sums, in the order in which they run.
    pub(super) fn sums(&self) -> impl Iterator<Item = SumsReduction> {
        let first = match self.reduction {
            Reduction::Norm(sums) => Some(sums),
            Reduction::None | Reduction::CheckFinite { .. } => None,
        };
        // The length of a direction needs the factors from the sums before it.
        let length =
            SumsReduction { of: Sums::Moments(Moments::Length), perturbed: true, slots: 0 };
        let takes_length = self.update == Some(UpdateOf::Direction);
        first.into_iter().chain(takes_length.then_some(length))
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

/// Returns whether only the norm of `g` covers all tensors, so that it has to check those that are not perturbed.
fn has_unseen(hyper: &Hyperparameters) -> bool {
    hyper.non_finite.checks_gradients() && hyper.groups.iter().any(|group| !group.perturbed)
}

/// Returns the norms that an ascent takes. All are computed in one pass over `g`.
pub(crate) fn ascent_reduction(hyper: &Hyperparameters, track_norms: bool) -> SumsReduction {
    let takes_norm = hyper.clips_gradient() || track_norms || has_unseen(hyper);
    norms_by_scope(scaling(hyper), takes_norm)
}

/// Returns the reduction to the norms of `g`, not scaled by the weights, over the perturbed tensors of each scope.
pub(crate) fn length_reduction(hyper: &Hyperparameters, track_norms: bool) -> SumsReduction {
    let is_uneven = |group: &Group| !group.perturbed || group.norm == NormScope::Own;
    let scaling = match hyper.groups.iter().any(is_uneven) {
        true => Scaling::ByClass,
        false => Scaling::Plain,
    };
    norms_by_scope(scaling, hyper.clips_gradient() || track_norms || has_unseen(hyper))
}

fn norms_by_scope(scaling: Scaling, takes_norm: bool) -> SumsReduction {
    let (of, slots) = match scaling {
        Scaling::Plain => (NormOf::Gradient, Norms::PERTURBATION | Norms::GRADIENT),
        scaling if takes_norm => (NormOf::Both(scaling), Norms::GRADIENT),
        scaling => (NormOf::Perturbation(scaling), 0),
    };
    SumsReduction { of: Sums::Norm(of), perturbed: false, slots }
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
        let of = Sums::Norm(NormOf::Gradient);
        Reduction::Norm(SumsReduction { of, perturbed, slots })
    } else if hyper.non_finite.checks_gradients() {
        Reduction::CheckFinite { perturbed }
    } else {
        Reduction::None
    }
}
