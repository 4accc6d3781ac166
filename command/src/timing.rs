//! Timing of steps, stages and copies of one parameter set on one adapter.

use crate::adapters::{engine, full_name};
use crate::error::Error;
use crate::method::{form, hyperparameters, slices};
use crate::options::{Mode, StepOptions};
use crate::output;
use crate::parameters::Named;
#[cfg(feature = "burn")]
use crate::tensor_ops::TensorOps;
use crate::tuned::{Tuned, merge};
use burn_wsam::engine::{Engine, EngineError, Tuning};
use burn_wsam::method::{Hyperparameters, Method};
use burn_wsam_support::adapters::Gpu;
use burn_wsam_support::bench::clock::{Clock, has_timestamps};
use burn_wsam_support::bench::copy::Copy;
use burn_wsam_support::bench::engine_steps::{
    Model, StepTimes, Steps, pipelined_count, pipelined_counts,
};
use burn_wsam_support::bench::rows::Row;
use burn_wsam_support::bench::stages;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Smallest number of timed runs per row.
const MIN_RUNS: usize = 10;

/// An engine on one adapter, and the step to time.
pub(crate) struct Timing<'a> {
    pub(crate) engine: Engine,
    adapter: String,
    hyper: Hyperparameters,
    /// The base optimizer's name in the benchmarks.
    base: &'static str,
    options: &'a StepOptions,
    progress: &'a ProgressBar,
}

impl<'a> Timing<'a> {
    pub(crate) fn new(
        gpu: &Gpu,
        options: &'a StepOptions,
        progress: &'a ProgressBar,
    ) -> Result<Self, Error> {
        let (base, hyper) = hyperparameters(options)?;
        let adapter = full_name(gpu);
        Ok(Self { engine: engine(gpu)?, adapter, hyper, base, options, progress })
    }

    fn lean(&self) -> bool {
        self.options.mode == Mode::Lean
    }

    /// The state tensors of the base optimizer and of the method.
    fn states(&self) -> usize {
        self.hyper.base.state_names().len() + self.hyper.method.state_names().len()
    }

    /// The slices of a model for the step to time.
    fn slices(&self, model: &Model) -> Steps {
        slices(self.options.method, &self.hyper, model, self.lean())
    }

    /// The engine's error, with the adapter and the parameter set.
    fn failed(&self, at: &str, source: EngineError) -> Error {
        Error::Engine { at: format!("{}, {at}", self.adapter), source }
    }

    /// Prints a remark above the progress bar.
    fn note(&self, text: &str) {
        // `ProgressBar::println` prints nothing while the bar is hidden.
        self.progress.suspend(|| output::note(format_args!("{}: {text}", self.adapter)));
    }

    /// Creates the buffers of a parameter set.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] or [`Error::Memory`].
    pub(crate) fn model(&self, (set, lens): &Named) -> Result<Model, Error> {
        let (set, adapter) = (set.clone(), self.adapter.clone());
        let aligned = |len: &u64| len.checked_mul(4)?.checked_next_multiple_of(256);
        let bytes = lens.iter().try_fold(0_u64, |sum, len| sum.checked_add(aligned(len)?));
        let (bytes, device) = (bytes.unwrap_or(u64::MAX), self.engine.device());
        let largest = device.limits().max_buffer_size;
        if bytes > largest {
            return Err(Error::TooLarge { set, bytes, adapter, largest });
        }
        let scope = device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let model = Model::new(&self.engine, lens, 4 + self.states());
        match pollster::block_on(scope.pop()) {
            None => Ok(model),
            Some(error) => Err(Error::Memory { set, adapter, reason: error.to_string() }),
        }
    }

    /// Times whole steps: with a wait after each phase, and pipelined. The rows' counts are those of the step and
    /// `more`. The rows of the host's times of recording and of submitting follow if `host` is set.
    pub(crate) fn steps(
        &self,
        set: &Named,
        model: &Model,
        more: Value,
        host: bool,
    ) -> Result<Vec<Row>, Error> {
        let steps = self.slices(model);
        let fail = |error| self.failed(&set.0, error);
        // Recorded for its counts, and not submitted.
        let stats = steps.record(&self.engine, &self.hyper, drop).map_err(fail)?;
        let parameters: u64 = set.1.iter().sum();
        let mut counts = json!({
            "parameters": parameters,
            "tensors": set.1.len(),
            "dispatches": stats.dispatches,
            "bytes_a_parameter": stats.bytes() as f64 / parameters as f64,
        });
        merge(&mut counts, more);
        let mode = form(self.options, &self.hyper);
        let name = format!("step, {}{mode}", self.base);
        let measured = (Some(stats.bytes()), Clock::Host);
        let mut times = Vec::new();
        let run = || {
            let (time, _) = steps.run(&self.engine, &self.hyper).map_err(fail)?;
            let whole = time.whole;
            times.push(time);
            Ok(whole)
        };
        let waited = self.row(set, name.clone(), measured, counts.clone(), run)?;
        // The first run compiles and allocates.
        times.remove(0);

        let count = pipelined_count(Duration::from_secs_f64(waited.quartiles()[1]));
        let run = || steps.run_pipelined(&self.engine, &self.hyper, count).map_err(fail);
        let mut pipelined = self.row(set, format!("{name}, pipelined"), measured, counts, run)?;
        let device = self.device_time(&self.engine, &steps).map_err(fail)?;
        let more = pipelined_counts(&pipelined.seconds, count, &times, device);
        merge(&mut pipelined.counts, more);

        let mut rows = vec![waited, pipelined];
        if host {
            let row = |name: &str, of: fn(&StepTimes) -> Duration| Row {
                set: set.0.clone(),
                name: format!("{name}, {}{mode}", self.base),
                bytes: None,
                counts: Value::Null,
                clock: Clock::Host.name(),
                seconds: times.iter().map(|times| of(times).as_secs_f64()).collect(),
                interleaved: None,
            };
            rows.push(row("recording", |times| times.recording));
            rows.push(row("submitting", |times| times.submitting));
        }
        Ok(rows)
    }

    /// The time of a step's stages on the device in seconds, if it has timestamps.
    fn device_time(&self, engine: &Engine, steps: &Steps) -> Result<Option<f64>, EngineError> {
        if !has_timestamps(engine) {
            return Ok(None);
        }
        // A fork, so that whole steps run without timestamps.
        let timed = engine.fork()?;
        timed.time_dispatches()?;
        let seconds = stages::device_time(&timed, &self.hyper, steps)?;
        // Zero if timestamps do not advance.
        Ok(Some(seconds).filter(|seconds| *seconds > 0.0))
    }

    /// Times the same step in tensor operations, and compares it with the engine's step in `rows`. Prints a remark
    /// and returns `None` if a tensor is too large for Burn.
    #[cfg(feature = "burn")]
    pub(crate) fn tensor_ops(
        &self,
        gpu: &Gpu,
        set: &Named,
        rows: &[Row],
    ) -> Result<Option<Row>, Error> {
        let largest = self.engine.device().limits().max_storage_buffer_binding_size;
        if let Some(len) = set.1.iter().find(|len| 4 * **len > largest) {
            self.note(&format!(
                "{} is not timed in tensor operations: Burn binds a tensor as a whole, a binding has at most \
                 {largest} bytes, and one tensor has {len} elements",
                set.0
            ));
            return Ok(None);
        }
        let mut ops = TensorOps::new(gpu, &self.adapter, &self.hyper, self.lean(), set)?;
        let name = "step, tensor operations".to_owned();
        let measured = (None, Clock::Host);
        let mut row = self.row(set, name, measured, Value::Null, || ops.run())?;
        let is_step = |other: &&Row| other.set == set.0 && other.name.starts_with("step, ");
        if let Some(step) = rows.iter().find(is_step) {
            let times = row.quartiles()[1] / step.quartiles()[1];
            row.counts = json!({ "times_the_step": times });
        }
        Ok(Some(row))
    }

    /// Times each stage by the clock of the copy, and adds its row. Without timestamps it prints a remark, and times
    /// the two phases by the host's clock.
    pub(crate) fn stages(
        &self,
        set: &Named,
        model: &Model,
        clock: Clock,
        rows: &mut Vec<Row>,
    ) -> Result<(), Error> {
        let fail = |error| self.failed(&set.0, error);
        let steps = self.slices(model);
        let parameters: u64 = set.1.iter().sum();
        let moved = |stage| parameters * stages::bytes(stage, self.states() as u64);
        if clock == Clock::Host {
            self.note(
                "no timestamps: phases in place of single stages, and the copy, are timed by the host's clock, \
                 with submission and wait",
            );
            if self.hyper.method != Method::Wsam {
                return Ok(());
            }
            let phases = stages::phases(self.lean(), self.base);
            for (i, (name, stages)) in phases.into_iter().enumerate() {
                let bytes = stages.into_iter().map(moved).sum();
                let run = || {
                    let (times, _) = steps.run(&self.engine, &self.hyper).map_err(fail)?;
                    Ok(times.phases.get(i).copied().unwrap_or_default())
                };
                rows.push(self.row(set, name, (Some(bytes), clock), Value::Null, run)?);
            }
            return Ok(());
        }
        // A fork, so that whole steps run without timestamps.
        let timed = self.engine.fork().map_err(fail)?;
        timed.time_dispatches().map_err(fail)?;
        // A norm may finish itself, and then has no stage for it.
        let present = stages::stage_times(&timed, &self.hyper, &steps).map_err(fail)?;
        let is_wsam = self.hyper.method == Method::Wsam;
        let timed_stages = match is_wsam {
            true => stages::stages(self.lean()).to_vec(),
            false => stages::distinct(&present),
        };
        for stage in timed_stages {
            if !present.iter().any(|(other, _)| *other == stage) {
                continue;
            }
            // The bytes of the relatives' stages depend on the phase.
            let bytes = Some(moved(stage)).filter(|bytes| *bytes > 0 && is_wsam);
            let measured = (bytes, clock);
            let run = || stages::stage_time(&timed, &self.hyper, &steps, stage).map_err(fail);
            let name = stages::name(stage, self.base);
            rows.push(self.row(set, name, measured, Value::Null, run)?);
        }
        Ok(())
    }

    /// The whole step in each tuning, pipelined and with a wait after each phase, interleaved, because what slows a
    /// round down slows all of them down. Later rounds skip a tuning that failed.
    pub(crate) fn tunings(
        &self,
        set: &Named,
        model: &Model,
        tunings: &[Tuning],
        failures: &mut Vec<Error>,
    ) -> Vec<Tuned> {
        let steps = self.slices(model);
        let mut timed = Vec::new();
        for tuning in tunings {
            match self.tuned(set, &steps, *tuning) {
                Ok(tuned) => timed.push(tuned),
                Err(error) => failures.push(error),
            }
            self.progress.inc(1);
        }
        let (start, all) = (Instant::now(), self.options.seconds * timed.len() as f64);
        let mut rounds = 0;
        while !timed.is_empty() && (rounds < MIN_RUNS || start.elapsed().as_secs_f64() < all) {
            timed.retain_mut(|tuned| match tuned.round(&steps, &self.hyper) {
                Ok(()) => true,
                Err(error) => {
                    let (set, name) = (&tuned.waited.set, &tuned.waited.name);
                    failures.push(self.failed(&format!("{set}, {name}"), error));
                    false
                }
            });
            rounds += 1;
        }
        timed.retain_mut(|tuned| match self.device_time(&tuned.engine, &steps) {
            Ok(device) => {
                tuned.finish(device);
                true
            }
            Err(error) => {
                let (set, name) = (&tuned.waited.set, &tuned.waited.name);
                failures.push(self.failed(&format!("{set}, {name}"), error));
                false
            }
        });
        timed
    }

    /// Creates an engine with a tuning, and runs one step. The rows have no times yet.
    fn tuned(&self, set: &Named, steps: &Steps, tuning: Tuning) -> Result<Tuned, Error> {
        let Tuning { workgroup, chunk_len, max_norm_chunk_len, .. } = tuning;
        let name = format!("step, workgroups of {workgroup}, chunks of {chunk_len}");
        self.progress.set_message(format!("{}: {name}", self.adapter));
        let fail = |error| self.failed(&format!("{}, {name}", set.0), error);
        let (device, queue) = (self.engine.device(), self.engine.queue());
        let engine = Engine::with_tuning(device, queue, tuning).map_err(fail)?;
        // The first run compiles and allocates.
        let (_, stats) = steps.run(&engine, &self.hyper).map_err(fail)?;
        let (second, _) = steps.run(&engine, &self.hyper).map_err(fail)?;
        let waited = Row {
            set: set.0.clone(),
            name,
            bytes: Some(stats.bytes()),
            counts: json!({
                "workgroup": workgroup,
                "chunk_len": chunk_len,
                "max_norm_chunk_len": max_norm_chunk_len,
                "dispatches": stats.dispatches,
            }),
            clock: Clock::Host.name(),
            seconds: Vec::new(),
            interleaved: None,
        };
        let pipelined = Row { name: format!("{}, pipelined", waited.name), ..waited.clone() };
        let count = pipelined_count(second.whole);
        Ok(Tuned { tuning, engine, count, times: Vec::new(), waited, pipelined })
    }

    /// Prepares a copy of at least so many bytes, which shows the memory's rate.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`], or the engine's.
    pub(crate) fn copy(&self, set: &Named, moved: u64) -> Result<Copy, Error> {
        let device = self.engine.device();
        let scope = device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let parameters: u64 = set.1.iter().sum();
        let resident = parameters * stages::resident(self.states() as u64);
        let copy = Copy::new(&self.engine, moved, resident);
        match pollster::block_on(scope.pop()) {
            None => copy.map_err(|error| self.failed(&format!("{}, copy", set.0), error)),
            Some(error) => Err(Error::Memory {
                set: format!("{}, copy", set.0),
                adapter: self.adapter.clone(),
                reason: error.to_string(),
            }),
        }
    }

    /// Times a copy.
    pub(crate) fn copy_row(&self, set: &Named, copy: &Copy) -> Result<Row, Error> {
        let run = || copy.run().map_err(|error| self.failed(&format!("{}, copy", set.0), error));
        let measured = (Some(copy.bytes()), copy.clock());
        self.row(set, "copy".to_owned(), measured, Value::Null, run)
    }

    fn row(
        &self,
        (set, _): &Named,
        name: String,
        (bytes, clock): (Option<u64>, Clock),
        counts: Value,
        mut run: impl FnMut() -> Result<Duration, Error>,
    ) -> Result<Row, Error> {
        self.progress.set_message(format!("{}: {set}, {name}", self.adapter));
        // The first run compiles and allocates.
        run()?;
        let (mut seconds, start) = (Vec::new(), Instant::now());
        while seconds.len() < MIN_RUNS || start.elapsed().as_secs_f64() < self.options.seconds {
            seconds.push(run()?.as_secs_f64());
        }
        self.progress.inc(1);
        let (set, clock) = (set.clone(), clock.name());
        Ok(Row { set, name, bytes, counts, clock, seconds, interleaved: None })
    }
}

/// Creates a progress bar. It is hidden if standard error is not a terminal.
pub(crate) fn progress(count: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len}, {elapsed} {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(count as u64).with_style(style)
}
