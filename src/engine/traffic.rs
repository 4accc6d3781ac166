//! Memory traffic of a phase, computed from the shapes.

use super::phase::{Phase, Reduction};
use super::rows::TensorRow;
use super::stats::StepStats;
use crate::layout::{Kernel, column};

impl TensorRow<'_> {
    /// Returns the bytes of an element in a column, or 0 if the column is not in use.
    fn bytes(&self, column: usize) -> u64 {
        self.columns[column].map_or(0, |slice| slice.format.bytes())
    }
}

impl Phase {
    /// Adds the traffic of one tensor to `stats`.
    pub(super) fn count(&self, row: &TensorRow<'_>, stats: &mut StepStats) {
        let (read, written) = self.accesses(row);
        stats.bytes_read += row.len * read;
        stats.bytes_written += row.len * written;
        if matches!(self.kernel, Kernel::Ascent { .. }) && row.scope.is_some() {
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
        let reduced = match self.reduction {
            Reduction::Norm(norm) if norm.row(*row).is_some() => {
                let weight = if norm.reads_weight(row) { original } else { 0 };
                grad(norm.perturbed) + weight
            }
            Reduction::None | Reduction::Norm(_) => 0,
            Reduction::CheckFinite { perturbed } => grad(perturbed),
        };
        let weight = bytes(column::WEIGHT);
        let master = if row.has_master() { bytes(column::ANCHOR) } else { 0 };
        let (read, written) = match self.kernel {
            _ if !self.processes(row) => (0, 0),
            Kernel::Norm { .. }
            | Kernel::NormFinish(_)
            | Kernel::NormAndFinish(_)
            | Kernel::Check { .. } => (0, 0),
            Kernel::Ascent { in_place, .. } => {
                let over = if in_place { weight } else { 0 };
                (original + grad(false), bytes(column::WEIGHT_COPY) + over)
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
        (reduced + read, written)
    }
}
