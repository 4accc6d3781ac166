//! Times of steps, stages and copies over one parameter set on one adapter, as rows.

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
use burn_wsam_support::bench::raw::{Model, Steps, bases};
use burn_wsam_support::bench::rows::Row;
use burn_wsam_support::bench::{copy, stages};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Times are taken at least so often.
const LEAST: usize = 10;

/// What to time, and where.
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
            // The stages as they are; a look at `g~` would be a dispatch more.
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

    /// An error of the engine, at what was being measured.
    fn failed(&self, at: &str, source: EngineError) -> Error {
        Error::Engine { at: format!("{}, {at}", self.adapter), source }
    }

    /// A remark between the bars.
    fn note(&self, text: &str) {
        // `ProgressBar::println` drops its text where the bars are hidden.
        self.progress.suspend(|| output::note(format_args!("{}: {text}", self.adapter)));
    }

    /// Buffers for a set, unless they are more than the adapter has.
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

    /// The whole step. Counts are `more` and what the step counts itself.
    pub(crate) fn step(&self, set: &Named, model: &Model, more: Value) -> Result<Row, Error> {
        let steps = Steps::new(model, self.lean());
        let fail = |error| self.failed(&set.0, error);
        // Recorded and thrown away: the counts.
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

    /// The same step in tensor operations, how many times the engine's; nothing where Burn has no tensors
    /// so large, which is said. `rows` has the engine's.
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
                "{} not in tensor operations: Burn keeps a tensor in one binding of at most \
                 {largest} bytes, and one has {len} elements",
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

    /// Adds each stage by itself; nothing where the adapter has no timestamps, which is said.
    pub(crate) fn stages(
        &self,
        set: &Named,
        model: &Model,
        rows: &mut Vec<Row>,
    ) -> Result<(), Error> {
        let fail = |error| self.failed(&set.0, error);
        // A fork, so that the dispatches of whole steps stay untimed.
        let timed = self.engine.fork().map_err(fail)?;
        if let Err(error) = timed.time_dispatches() {
            self.note(&format!("no times of single stages: {error}"));
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
                self.note("its timestamps do not tell times");
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
        while !timed.is_empty() && (rounds < LEAST || start.elapsed().as_secs_f64() < all) {
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

    /// An engine with a tuning, which has run once, and a row without times.
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
        Ok((engine, Row { set, name, bytes, counts, seconds: Vec::new(), beside: None }))
    }

    /// The memory's own rate.
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
        while seconds.len() < LEAST || start.elapsed().as_secs_f64() < self.options.seconds {
            seconds.push(run()?.as_secs_f64());
        }
        self.progress.inc(1);
        Ok(Row { set: set.clone(), name, bytes, counts, seconds, beside: None })
    }
}

/// Hidden by itself where stderr is not a terminal.
pub(crate) fn progress(things: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len}, {elapsed} {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(things as u64).with_style(style)
}
