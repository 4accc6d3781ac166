//! Memory traffic of a phase, computed from the shapes.

use super::phase::{Phase, Reduction};
use super::rows::TensorRow;
use super::stats::StepStats;
use super::sums::{Sums, SumsReduction};
use crate::layout::{COLUMNS, Kernel, Moments, UpdateOf, column};

impl TensorRow<'_> {
    /// Returns the bytes of an element in a column, or 0 if the column is not in use.
    fn bytes(&self, column: usize) -> u64 {
        self.columns[column].map_or(0, |slice| slice.format.bytes())
    }
}

impl SumsReduction {
    /// Returns the bytes that the sums read for one element of a tensor.
    fn bytes_read(&self, row: &TensorRow<'_>) -> u64 {
        // The length of a direction is taken of perturbed tensors only.
        let is_read = self.of != Sums::Moments(Moments::Length) || row.scope.is_some();
        match self.row(*row).filter(|_| is_read) {
            Some(row) => (0..COLUMNS).map(|column| row.bytes(column)).sum(),
            None => 0,
        }
    }
}

impl Phase {
    /// Adds the traffic of one tensor to `stats`.
    pub(super) fn count(&self, row: &TensorRow<'_>, stats: &mut StepStats) {
        let (read, written) = self.accesses(row);
        stats.bytes_read += row.len * read;
        stats.bytes_written += row.len * written;
        if matches!(self.kernel, Kernel::Ascent { .. } | Kernel::AscentWithState { .. })
            && row.scope.is_some()
        {
            stats.extra_bytes += row.len * row.bytes(column::WEIGHT_COPY);
        }
    }

    /// Returns the bytes read and written for one element of a tensor.
    fn accesses(&self, row: &TensorRow<'_>) -> (u64, u64) {
        let bytes = |column| row.bytes(column);
        let grad = |perturbed| bytes(if perturbed { column::GRAD_PERTURBED } else { column::GRAD });
        // w is read from the anchor if there is one.
        let original = match bytes(column::ANCHOR) {
            0 => bytes(column::WEIGHT),
            anchor => anchor,
        };
        let checked = match self.reduction {
            Reduction::CheckFinite { perturbed } => grad(perturbed),
            Reduction::None | Reduction::Norm(_) => 0,
        };
        let summed: u64 = self.sums().map(|sums| sums.bytes_read(row)).sum();
        let (update_read, update_written) = self.update_bytes(row);
        let weight = bytes(column::WEIGHT);
        let master = if row.has_master() { bytes(column::ANCHOR) } else { 0 };
        let (read, written) = match self.kernel {
            _ if !self.processes(row) => (0, 0),
            Kernel::Norm { .. }
            | Kernel::NormFinish(_)
            | Kernel::NormAndFinish(_)
            | Kernel::Check { .. }
            | Kernel::Moments(_)
            | Kernel::Coefficients(_)
            | Kernel::Update(_) => (0, 0),
            Kernel::Ascent { in_place, .. } => {
                let over = if in_place { weight } else { 0 };
                (original + grad(false), bytes(column::WEIGHT_COPY) + over)
            }
            Kernel::AscentWithState { in_place, .. } => {
                let over = if in_place { weight } else { 0 };
                let direction = grad(false) + bytes(column::STATE);
                (original + direction, bytes(column::WEIGHT_COPY) + over)
            }
            Kernel::MethodDescent { states, on, .. } => {
                let states = 4 * u64::from(states);
                let first = if on.reads_grad() { grad(false) } else { 0 };
                let second = if on.reads_second() { grad(true) } else { 0 };
                (original + first + second + states, weight + master + states)
            }
            Kernel::Descent { states, alone, .. } => {
                let (states, second) = (4 * u64::from(states), if alone { 0 } else { grad(true) });
                (original + grad(false) + second + states, weight + master + states)
            }
            Kernel::LeanAscent { states, .. } => {
                let states = 4 * u64::from(states);
                (original + grad(false) + states, weight + bytes(column::WEIGHT_COPY) + states)
            }
            Kernel::LeanDescent { .. } => (weight + grad(true), weight),
        };
        (checked + summed + update_read + read, update_written + written)
    }

    /// Returns the bytes that the update of the method's state reads and writes for one element of a tensor.
    fn update_bytes(&self, row: &TensorRow<'_>) -> (u64, u64) {
        let Some(row) = self.update_row(*row) else { return (0, 0) };
        let (grads, state) =
            (row.bytes(column::GRAD) + row.bytes(column::GRAD_PERTURBED), row.bytes(column::STATE));
        match self.update {
            Some(UpdateOf::Average) => (grads + state, state),
            Some(UpdateOf::Direction) => (grads, state),
            None => (0, 0),
        }
    }
}
