//! One tuning's rows in `wsam tune`.

use burn_wsam::engine::{Engine, EngineError, Tuning};
use burn_wsam::method::Hyperparameters;
use burn_wsam_support::bench::engine_steps::{StepTimes, Steps, pipelined_counts};
use burn_wsam_support::bench::rows::Row;
use serde_json::Value;

/// Steps with one tuning.
pub(crate) struct Tuned {
    pub(crate) tuning: Tuning,
    pub(crate) engine: Engine,
    /// Number of steps that are pipelined.
    pub(crate) count: u32,
    pub(crate) times: Vec<StepTimes>,
    pub(crate) waited: Row,
    pub(crate) pipelined: Row,
}

impl Tuned {
    /// One step of each kind.
    pub(crate) fn round(
        &mut self,
        steps: &Steps,
        hyper: &Hyperparameters,
    ) -> Result<(), EngineError> {
        let (times, _) = steps.run(&self.engine, hyper)?;
        let pipelined = steps.run_pipelined(&self.engine, hyper, self.count)?;
        self.waited.seconds.push(times.whole.as_secs_f64());
        self.pipelined.seconds.push(pipelined.as_secs_f64());
        self.times.push(times);
        Ok(())
    }

    /// Adds the counts that say where the time goes.
    pub(crate) fn finish(&mut self, device: Option<f64>) {
        let more = pipelined_counts(&self.pipelined.seconds, self.count, &self.times, device);
        merge(&mut self.pipelined.counts, more);
    }

    pub(crate) fn into_rows(self) -> [Row; 2] {
        [self.waited, self.pipelined]
    }
}

/// Adds fields to a JSON object.
pub(crate) fn merge(counts: &mut Value, more: Value) {
    for (name, value) in more.as_object().into_iter().flatten() {
        counts[name] = value.clone();
    }
}
