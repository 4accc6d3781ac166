//! Timing of steps, stages and copies of one parameter set on one adapter.

use crate::adapters::{engine, full_name};
use crate::error::Error;
use crate::options::{BaseChoice, Mode, StepOptions};
use crate::output;
use crate::parameters::Named;
#[cfg(feature = "burn")]
use crate::tensor_ops::TensorOps;
use burn_wsam::engine::{Engine, EngineError, Tuning};
use burn_wsam::layout::Stage;
use burn_wsam::method::{Coupling, Hyperparameters, NonFinite};
use burn_wsam_support::adapters::Gpu;
use burn_wsam_support::bench::engine_steps::{Model, Steps, bases};
use burn_wsam_support::bench::rows::Row;
use burn_wsam_support::bench::{copy, stages};
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
        let (base, found) = bases()[match options.base {
            BaseChoice::Sgd => 0,
            BaseChoice::Momentum => 1,
            BaseChoice::AdamW => 2,
        }];
        let hyper = Hyperparameters {
            coupling: match options.mode {
                Mode::Coupled => Coupling::Coupled,
                Mode::Decoupled | Mode::Lean => Coupling::Decoupled,
            },
            // Without the check of `g~`, which would be one more dispatch.
            non_finite: NonFinite::Propagate,
            ..Hyperparameters::new(found)
        };
        let adapter = full_name(gpu);
        Ok(Self { engine: engine(gpu)?, adapter, hyper, base, options, progress })
    }

    fn lean(&self) -> bool {
        self.options.mode == Mode::Lean
    }

    fn states(&self) -> usize {
        self.hyper.base.state_names().len()
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

    /// Times whole steps. The row's counts are those of the step and `more`.
    pub(crate) fn step(&self, set: &Named, model: &Model, more: Value) -> Result<Row, Error> {
        let steps = Steps::new(model, self.lean());
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
        for (name, value) in more.as_object().into_iter().flatten() {
            counts[name] = value.clone();
        }
        let mode = match self.options.mode {
            Mode::Decoupled => "",
            Mode::Coupled => ", coupled",
            Mode::Lean => ", lean",
        };
        let name = format!("step, {}{mode}", self.base);
        let run = || steps.run(&self.engine, &self.hyper).map(|(time, _)| time).map_err(fail);
        self.row(set, name, Some(stats.bytes()), counts, run)
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
        let mut row = self.row(set, name, None, Value::Null, || ops.run())?;
        let is_step = |other: &&Row| other.set == set.0 && other.name.starts_with("step, ");
        if let Some(step) = rows.iter().find(is_step) {
            let times = row.quartiles()[1] / step.quartiles()[1];
            row.counts = json!({ "times_the_step": times });
        }
        Ok(Some(row))
    }

    /// Times each stage and adds its row. Prints a remark and adds nothing if the adapter has no timestamps.
    pub(crate) fn stages(
        &self,
        set: &Named,
        model: &Model,
        rows: &mut Vec<Row>,
    ) -> Result<(), Error> {
        let fail = |error| self.failed(&set.0, error);
        // A fork, so that whole steps run without timestamps.
        let timed = self.engine.fork().map_err(fail)?;
        if let Err(error) = timed.time_dispatches() {
            self.note(&format!("stages are not timed: {error}"));
            return Ok(());
        }
        let steps = Steps::new(model, self.lean());
        let parameters: u64 = set.1.iter().sum();
        for stage in stages::stages(self.lean()) {
            let bytes = parameters * stages::bytes(stage, self.states() as u64);
            let bytes = Some(bytes).filter(|bytes| *bytes > 0);
            let run = || stages::stage_time(&timed, &self.hyper, &steps, stage).map_err(fail);
            let row = self.row(set, stages::name(stage, self.base), bytes, Value::Null, run)?;
            if stage == Stage::Norm && row.quartiles()[1] == 0.0 {
                self.note("stages are not timed: timestamps do not advance");
                return Ok(());
            }
            rows.push(row);
        }
        Ok(())
    }

    /// The whole step in each tuning, interleaved, because what slows a round down slows all of them down. Later
    /// rounds skip a tuning that failed.
    pub(crate) fn tunings(
        &self,
        set: &Named,
        model: &Model,
        tunings: &[Tuning],
        failures: &mut Vec<Error>,
    ) -> Vec<(Tuning, Row)> {
        let steps = Steps::new(model, self.lean());
        let mut timed = Vec::new();
        for tuning in tunings {
            match self.tuned(set, &steps, *tuning) {
                Ok((engine, row)) => timed.push((*tuning, engine, row)),
                Err(error) => failures.push(error),
            }
            self.progress.inc(1);
        }
        let (start, all) = (Instant::now(), self.options.seconds * timed.len() as f64);
        let mut rounds = 0;
        while !timed.is_empty() && (rounds < MIN_RUNS || start.elapsed().as_secs_f64() < all) {
            timed.retain_mut(|(_, engine, row)| match steps.run(engine, &self.hyper) {
                Ok((time, _)) => {
                    row.seconds.push(time.as_secs_f64());
                    true
                }
                Err(error) => {
                    failures.push(self.failed(&format!("{}, {}", row.set, row.name), error));
                    false
                }
            });
            rounds += 1;
        }
        timed.into_iter().map(|(tuning, _, row)| (tuning, row)).collect()
    }

    /// Creates an engine with a tuning, runs one step, and returns the engine with a row that has no times yet.
    fn tuned(&self, set: &Named, steps: &Steps, tuning: Tuning) -> Result<(Engine, Row), Error> {
        let Tuning { workgroup, chunk_len, max_norm_chunk_len, .. } = tuning;
        let name = format!("step, workgroups of {workgroup}, chunks of {chunk_len}");
        self.progress.set_message(format!("{}: {name}", self.adapter));
        let fail = |error| self.failed(&format!("{}, {name}", set.0), error);
        let (device, queue) = (self.engine.device(), self.engine.queue());
        let engine = Engine::with_tuning(device, queue, tuning).map_err(fail)?;
        // The first run compiles and allocates.
        let (_, stats) = steps.run(&engine, &self.hyper).map_err(fail)?;
        let counts = json!({
            "workgroup": workgroup,
            "chunk_len": chunk_len,
            "max_norm_chunk_len": max_norm_chunk_len,
            "dispatches": stats.dispatches,
        });
        let (set, bytes) = (set.0.clone(), Some(stats.bytes()));
        Ok((engine, Row { set, name, bytes, counts, seconds: Vec::new(), interleaved: None }))
    }

    /// Times a copy, which shows the memory's rate.
    pub(crate) fn copy(&self, set: &Named, model: &Model) -> Result<Row, Error> {
        let (bytes, run) = copy::copy(&self.engine, [&model.buffers[0], &model.buffers[1]]);
        self.row(set, "copy".to_owned(), Some(bytes), Value::Null, || Ok(run()))
    }

    fn row(
        &self,
        (set, _): &Named,
        name: String,
        bytes: Option<u64>,
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
        Ok(Row { set: set.clone(), name, bytes, counts, seconds, interleaved: None })
    }
}

/// Creates a progress bar. It is hidden if standard error is not a terminal.
pub(crate) fn progress(count: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len}, {elapsed} {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(count as u64).with_style(style)
}
