//! Time that each dispatch takes on the device, for benchmarks and for the curious.

use super::memory::create_buffer;
use super::plan::Plan;
use super::{Engine, EngineError};
use crate::layout::Stage;
use std::sync::PoisonError;
use std::time::Duration;

/// Timestamps a recording may use: two for each dispatch.
const TIMESTAMPS: u32 = 256;

/// What the dispatches recorded last will have taken.
#[derive(Debug)]
pub(crate) struct Timer {
    pub(crate) queries: wgpu::QuerySet,
    stages: Vec<Stage>,
}

impl Engine {
    /// From now on records every dispatch in a pass of its own, between two timestamps; for
    /// [`read_times`](Engine::read_times). Passes of their own cost a little time themselves.
    ///
    /// # Errors
    ///
    /// [`EngineError::Feature`] if the device was opened without `TIMESTAMP_QUERY`.
    /// [`Engine::on_adapter`] asks for it where the adapter has it.
    pub fn time_dispatches(&self) -> Result<(), EngineError> {
        if !self.device.features().contains(wgpu::Features::TIMESTAMP_QUERY) {
            return Err(EngineError::Feature { name: "TIMESTAMP_QUERY" });
        }
        let queries = self.device.create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("wsam.times"),
            ty: wgpu::QueryType::Timestamp,
            count: TIMESTAMPS,
        });
        let timer = Timer { queries, stages: Vec::new() };
        *self.timer.lock().unwrap_or_else(PoisonError::into_inner) = Some(timer);
        Ok(())
    }

    /// The dispatches of the half that was recorded last and what each took, after its commands were
    /// submitted. Empty if [`time_dispatches`](Engine::time_dispatches) was not called before. Waits
    /// for the device.
    ///
    /// # Errors
    ///
    /// [`EngineError::Readback`] if the device was lost.
    pub fn read_times(&self) -> Result<Vec<(Stage, Duration)>, EngineError> {
        let timer = self.timer.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Timer { queries, stages }) = timer.as_ref().filter(|t| !t.stages.is_empty())
        else {
            return Ok(Vec::new());
        };
        let count = 2 * stages.len() as u32;
        let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
        let resolved = create_buffer(&self.device, "wsam.times", 8 * u64::from(count), usage)?;
        let mut encoder = self.device.create_command_encoder(&Default::default());
        encoder.resolve_query_set(queries, 0..count, &resolved, 0);
        self.queue.submit([encoder.finish()]);
        let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&self.read_buffer(&resolved)?);
        let nanoseconds = f64::from(self.queue.get_timestamp_period());
        let took = |pair: &[u64]| {
            let ticks = pair[1].saturating_sub(pair[0]);
            Duration::from_nanos((ticks as f64 * nanoseconds) as u64)
        };
        Ok(stages.iter().copied().zip(ticks.chunks_exact(2).map(took)).collect())
    }

    /// Takes note of what `plan` is about to record, if times are wanted. Dispatches beyond the
    /// timestamps there are go untimed.
    pub(crate) fn start_timing(&self, plan: &Plan) -> Option<wgpu::QuerySet> {
        let mut timer = self.timer.lock().unwrap_or_else(PoisonError::into_inner);
        let timer = timer.as_mut()?;
        let stages = plan.dispatches.iter().map(|dispatch| dispatch.kernel.stage());
        timer.stages = stages.take(TIMESTAMPS as usize / 2).collect();
        Some(timer.queries.clone())
    }
}

/// The timestamps around dispatch `index`.
pub(crate) fn timestamp_writes(
    queries: &wgpu::QuerySet,
    index: usize,
) -> Option<wgpu::ComputePassTimestampWrites<'_>> {
    let first = 2 * index as u32;
    (first < TIMESTAMPS).then(|| wgpu::ComputePassTimestampWrites {
        query_set: queries,
        beginning_of_pass_write_index: Some(first),
        end_of_pass_write_index: Some(first + 1),
    })
}
