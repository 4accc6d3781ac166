//! The clock of stages and copies.

use burn_wsam::engine::{Engine, EngineError};
use std::time::{Duration, Instant};

/// What a time was measured with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// Timestamps on the device around a compute pass.
    Device,
    /// The host's clock, with submission and wait.
    Host,
}

impl Clock {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Host => "host",
        }
    }
}

/// Whether the device has timestamps. `WSAM_BENCH_CLOCK=host` hides them, to measure as without.
pub fn has_timestamps(engine: &Engine) -> bool {
    let hidden = std::env::var_os("WSAM_BENCH_CLOCK").is_some_and(|clock| clock == "host");
    !hidden && engine.device().features().contains(wgpu::Features::TIMESTAMP_QUERY)
}

/// Times one compute pass.
pub struct PassTimer {
    /// Two timestamps, and the buffer they are resolved to; `None` for the host's clock.
    device: Option<(wgpu::QuerySet, wgpu::Buffer)>,
}

impl PassTimer {
    /// A timer with timestamps on the device if it has them, or else with the host's clock.
    pub fn new(engine: &Engine) -> Self {
        let device = engine.device();
        let timestamps = || {
            let queries = device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("pass timer"),
                ty: wgpu::QueryType::Timestamp,
                count: 2,
            });
            let resolved = device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("pass timer"),
                size: 16,
                usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: false,
            });
            (queries, resolved)
        };
        Self { device: has_timestamps(engine).then(timestamps) }
    }

    /// A timer with the host's clock.
    pub fn on_host() -> Self {
        Self { device: None }
    }

    pub fn clock(&self) -> Clock {
        if self.device.is_some() { Clock::Device } else { Clock::Host }
    }

    /// Submits one compute pass, waits for it, and returns its time: between the timestamps, or from before the
    /// submission to the end of the wait.
    ///
    /// # Errors
    ///
    /// [`EngineError::Readback`] if the device was lost.
    pub fn time(
        &self,
        engine: &Engine,
        record: impl FnOnce(&mut wgpu::ComputePass<'_>),
    ) -> Result<Duration, EngineError> {
        let mut encoder = engine.device().create_command_encoder(&Default::default());
        let timestamp_writes =
            self.device.as_ref().map(|(queries, _)| wgpu::ComputePassTimestampWrites {
                query_set: queries,
                beginning_of_pass_write_index: Some(0),
                end_of_pass_write_index: Some(1),
            });
        {
            let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes };
            record(&mut encoder.begin_compute_pass(&descriptor));
        }
        let Some((queries, resolved)) = &self.device else {
            let commands = encoder.finish();
            let start = Instant::now();
            engine.queue().submit([commands]);
            super::engine_steps::wait(engine);
            return Ok(start.elapsed());
        };
        encoder.resolve_query_set(queries, 0..2, resolved, 0);
        engine.queue().submit([encoder.finish()]);
        let bytes = engine.read_buffer(resolved)?;
        let tick = |at: usize| {
            let mut tick = [0; 8];
            tick.copy_from_slice(&bytes[at..at + 8]);
            u64::from_ne_bytes(tick)
        };
        let ticks = tick(8).saturating_sub(tick(0));
        let nanoseconds = f64::from(engine.queue().get_timestamp_period());
        Ok(Duration::from_nanos((ticks as f64 * nanoseconds) as u64))
    }
}
