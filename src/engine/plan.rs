//! The plan of one phase of a step (an ascent or a descent), and the key that it is cached by.

use super::dispatch::PreparedDispatch;
use super::phase::Phase;
use super::rows::TensorRow;
use super::slice::Slice;
use super::stats::StepStats;
use crate::layout::{COLUMNS, NormFinishUniforms};

#[derive(Debug)]
struct OwnedTensorRow {
    scalars: (usize, u64, Option<usize>, bool),
    columns: [Option<Slice>; COLUMNS],
}

/// The inputs of a plan that may differ between steps: the key of the plan cache.
#[derive(Debug)]
pub(crate) struct PlanKey {
    phase: Phase,
    rows: Vec<OwnedTensorRow>,
}

impl PlanKey {
    pub(super) fn new<'a>(phase: Phase, rows: impl Iterator<Item = TensorRow<'a>>) -> Self {
        let own = |row: TensorRow<'a>| OwnedTensorRow {
            scalars: row.scalars(),
            columns: row.columns.map(|slice| slice.cloned()),
        };
        Self { phase, rows: rows.map(own).collect() }
    }

    pub(super) fn matches<'a>(
        &self,
        phase: Phase,
        count: usize,
        mut rows: impl Iterator<Item = TensorRow<'a>>,
    ) -> bool {
        let same = |row: TensorRow<'a>, own: &OwnedTensorRow| {
            let equal = |(slice, own): (&Option<&Slice>, &Option<Slice>)| *slice == own.as_ref();
            row.scalars() == own.scalars && row.columns.iter().zip(&own.columns).all(equal)
        };
        self.phase == phase
            && self.rows.len() == count
            && self.rows.iter().all(|own| rows.next().is_some_and(|row| same(row, own)))
    }
}

/// The dispatches of a phase over certain tensors.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) dispatches: Vec<PreparedDispatch>,
    /// Uniforms of `norm_finish`, if the phase takes a norm.
    pub(crate) finish: Option<NormFinishUniforms>,
    /// Whether the norm is finished by the `norm_and_finish` dispatches.
    pub(crate) finishes_in_norm: bool,
    /// Costs of the phase, without `submissions`, `plans_made` and `recording`.
    pub(crate) stats: StepStats,
}
