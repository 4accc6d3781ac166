//! Timestamps of a phase's dispatches.

use crate::layout::Stage;

/// Timestamps of the phase recorded last.
#[derive(Debug)]
pub(crate) struct Timer {
    pub(super) queries: wgpu::QuerySet,
    pub(super) stages: Vec<Stage>,
}
