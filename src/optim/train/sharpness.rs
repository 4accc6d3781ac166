//! The sharpness as a burn-train metric.

use super::shared::Shared;
use burn::tensor::TensorReadError;
use burn::train::metric::state::{FormatOptions, NumericMetricState};
use burn::train::metric::{
    Metric, MetricAttributes, MetricMetadata, MetricName, Numeric, NumericAttributes, NumericEntry,
    SerializedEntry,
};
use std::fmt;
use std::sync::Arc;

/// The sharpness `L(w + e_w) - L(w)` of each step as a training metric, made by
/// [`WsamTraining::sharpness_metric`](super::WsamTraining::sharpness_metric):
/// `.metric_train_numeric(wsam.sharpness_metric())`.
///
/// Iterations without a step of WSAM (the base optimizer alone, a micro-batch that is not the last) have no
/// value.
#[derive(Clone)]
pub struct SharpnessMetric {
    shared: Arc<Shared>,
    name: MetricName,
    state: NumericMetricState,
    /// Whether the last iteration had a value.
    now: bool,
    /// Whether any iteration of the epoch had a value.
    ever: bool,
}

impl SharpnessMetric {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        shared.training().sharpness.want();
        let name = Arc::new("Sharpness".to_owned());
        Self { shared, name, state: NumericMetricState::default(), now: false, ever: false }
    }

    fn format(&self) -> FormatOptions {
        FormatOptions::new(self.name.clone()).precision(5)
    }
}

impl fmt::Debug for SharpnessMetric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharpnessMetric").finish_non_exhaustive()
    }
}

impl Metric for SharpnessMetric {
    type Input = ();

    fn name(&self) -> MetricName {
        self.name.clone()
    }

    fn description(&self) -> Option<String> {
        Some("Loss at the perturbed weights minus the loss at the weights".to_owned())
    }

    fn attributes(&self) -> MetricAttributes {
        NumericAttributes { unit: None, higher_is_better: false }.into()
    }

    fn update(
        &mut self,
        _item: &(),
        metadata: &MetricMetadata,
    ) -> Result<SerializedEntry, TensorReadError> {
        let taken = metadata.iteration.map(|at| self.shared.training().sharpness.take(at));
        self.now = false;
        let Some(sharpness) = taken.flatten() else {
            return Ok(SerializedEntry::not_available(None));
        };
        self.state.update(sharpness.try_into_scalar::<f64>()?, 1);
        (self.now, self.ever) = (true, true);
        Ok(self.state.compute_update(self.format()))
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        if !self.ever {
            return Ok(SerializedEntry::not_available(None));
        }
        Ok(self.state.compute_final(self.format()))
    }

    fn clear(&mut self) {
        self.state.reset();
        (self.now, self.ever) = (false, false);
    }
}

impl Numeric for SharpnessMetric {
    fn value(&self) -> Option<NumericEntry> {
        self.now.then(|| self.state.current_value())
    }

    fn running_value(&self) -> Option<NumericEntry> {
        self.ever.then(|| self.state.running_value())
    }

    fn final_value(&self) -> NumericEntry {
        self.state.final_value()
    }
}
