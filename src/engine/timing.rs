//! Device time of each dispatch, for benchmarks.

use super::error::EngineError;
use super::memory::create_buffer;
use super::plan::Plan;
use super::recorder::Engine;
use super::timer::Timer;
use crate::layout::Stage;
use std::sync::PoisonError;
use std::time::Duration;

/// Size of the timestamp query set. Each dispatch takes two timestamps.
const TIMESTAMPS: u32 = 256;

impl Engine {
    /// Turns on timing: from now on each dispatch is recorded in a separate compute pass between two
    /// timestamps, which [`read_times`](Engine::read_times) reads. The additional passes cost some time.
    ///
    /// # Errors
    ///
    /// [`EngineError::Feature`] if the device was opened without `TIMESTAMP_QUERY`.
    /// [`Engine::on_adapter`] requests it if the adapter supports it.
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

    /// Returns the stage and duration of each dispatch of the phase recorded last, whose commands must have
    /// been submitted. Empty if [`time_dispatches`](Engine::time_dispatches) was not called before. Blocks
    /// until the device is done.
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

    /// Stores the stages of the dispatches about to be recorded, and returns the query set, if timing is on.
    /// Dispatches beyond the size of the query set are not timed.
    pub(crate) fn start_timing(&self, plan: &Plan) -> Option<wgpu::QuerySet> {
        let mut timer = self.timer.lock().unwrap_or_else(PoisonError::into_inner);
        let timer = timer.as_mut()?;
        let stages = plan.dispatches.iter().map(|dispatch| dispatch.kernel.stage());
        timer.stages = stages.take(TIMESTAMPS as usize / 2).collect();
        Some(timer.queries.clone())
    }
}

/// Returns the timestamp queries around dispatch `index`.
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
