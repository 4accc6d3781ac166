//! One tensor as a plan sees it: the constants that it uses, its length, and its slices by column.

use super::slice::{Columns, packed_width};
use crate::layout::{COLUMNS, Width, column};

/// One tensor of a phase.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TensorRow<'a> {
    /// Row in the table of constants.
    pub(crate) param_class: usize,
    pub(crate) len: u64,
    /// Index of the norm that its perturbation is divided by; `None` if the tensor is not perturbed.
    pub(crate) scope: Option<usize>,
    /// Whether the perturbation scales with the weights.
    pub(crate) adaptive: bool,
    pub(crate) columns: Columns<'a>,
}

impl TensorRow<'_> {
    /// Returns whether the tensor has master weights.
    pub(super) fn has_master(&self) -> bool {
        packed_width(&self.columns).is_some_and(Width::has_master)
    }

    /// Returns the fields besides the columns.
    pub(super) fn scalars(&self) -> (usize, u64, Option<usize>, bool) {
        (self.param_class, self.len, self.scope, self.adaptive)
    }
}

/// Returns columns that hold `g`, or `g~` if `perturbed`, in the gradient's column and nothing else.
pub(super) fn gradient<'a>(row: &TensorRow<'a>, perturbed: bool) -> Columns<'a> {
    let mut columns = [None; COLUMNS];
    let column = if perturbed { column::GRAD_PERTURBED } else { column::GRAD };
    columns[column::GRAD] = row.columns[column];
    columns
}
