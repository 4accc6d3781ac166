//! A training script without terminal output, and helpers of these tests.

use crate::nets::{Batch, Net, train_loader, valid_loader};
use crate::tools::{fork, near, parameters, same};
use burn::lr_scheduler::linear::LinearLrSchedulerConfig;
use burn::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
use burn::module::Module;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdamWConfig, ModuleOptimizer, SgdConfig};
use burn::train::checkpoint::KeepLastNCheckpoints;
use burn::train::logger::{EvaluationProgressLogger, InMemoryMetricLogger, TrainingProgressLogger};
use burn::train::metric::{LossMetric, MetricDefinition};
use burn::train::renderer::{
    EvaluationName, MetricState, MetricsRenderer, MetricsRendererEvaluation,
    MetricsRendererTraining,
};
use burn::train::{
    InferenceStep, LearnerModel, LearningResult, RegressionOutput, SupervisedTraining, TrainStep,
};
use burn_wsam::{AdamWBaseConfig, BaseConfig, SgdBaseConfig};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// A folder that is removed when the test ends.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        // The thread id makes the folder unique, because a thread runs one test at a time.
        let own = (std::process::id(), std::thread::current().id());
        let folder = Self(std::env::temp_dir().join(format!("burn-wsam-learner-{own:?}")));
        folder.clear();
        folder
    }

    fn clear(&self) {
        if self.0.exists() {
            std::fs::remove_dir_all(&self.0).expect("a folder of this test");
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        self.clear();
    }
}

impl std::ops::Deref for Folder {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

/// Burn's training of a [`Net`] with loss metrics, which keeps all checkpoints.
pub(crate) fn training(folder: &Path, epochs: usize) -> SupervisedTraining<Net> {
    training_of::<Net>(folder, epochs)
}

/// The same for another model.
pub(crate) fn training_of<M>(folder: &Path, epochs: usize) -> SupervisedTraining<M>
where
    M: LearnerModel
        + TrainStep<Input = Batch, Output = RegressionOutput>
        + InferenceStep<Input = Batch, Output = RegressionOutput>,
{
    SupervisedTraining::new(folder, train_loader(), valid_loader())
        .metric_train_numeric(LossMetric::new())
        .metric_valid_numeric(LossMetric::new())
        .with_metric_logger(InMemoryMetricLogger::new())
        .with_checkpointing_strategy(KeepLastNCheckpoints::new(100))
        .with_application_logger(None)
        .renderer(Box::new(RecordingRenderer::default()))
        .num_epochs(epochs)
}

/// A learning rate that changes at each step.
pub(crate) fn rate() -> ModuleLrScheduler {
    LinearLrSchedulerConfig::new(0.02, 0.005, 12).init().expect("a valid scheduler")
}

/// The trained model, or an error if the training was interrupted or failed.
pub(crate) fn trained<M>(result: LearningResult<M>) -> Result<M, String> {
    match (result.error, result.interrupted) {
        (None, None) => Ok(result.model),
        (error, interrupted) => Err(format!("ended by {error:?}, {interrupted:?}")),
    }
}

/// Base optimizers, each with Burn's own optimizer of the same kind.
pub(crate) fn bases() -> [(BaseConfig, fn() -> ModuleOptimizer); 2] {
    let sgd = SgdBaseConfig::new().with_momentum(Some(MomentumConfig::new()));
    [
        (sgd.into(), || SgdConfig::new().with_momentum(Some(MomentumConfig::new())).init()),
        (AdamWBaseConfig::new().into(), || AdamWConfig::new().init()),
    ]
}

/// A renderer that records its events.
#[derive(Clone, Default)]
pub(crate) struct RecordingRenderer(Arc<Mutex<Vec<String>>>);

impl RecordingRenderer {
    fn record(&self, event: String) {
        self.0.lock().expect("no thread panics").push(event);
    }

    pub(crate) fn events(&self) -> Vec<String> {
        self.0.lock().expect("no thread panics").clone()
    }
}

impl TrainingProgressLogger for RecordingRenderer {
    fn start(&mut self, epochs: usize, first: usize, items: Option<usize>, label: Option<&str>) {
        self.record(format!("start {epochs} {first} {items:?} {label:?}"));
    }

    fn update_epoch(&mut self, epoch: usize) {
        self.record(format!("epoch {epoch}"));
    }

    fn start_split(&mut self, split: &str, items: usize) {
        self.record(format!("split {split} {items}"));
    }

    fn update_split(&mut self, items: usize) {
        self.record(format!("items {items}"));
    }

    fn end_split(&mut self) {
        self.record("end of split".to_owned());
    }

    fn end(&mut self) {
        self.record("end".to_owned());
    }

    fn log_event_training(&mut self, event: String) {
        self.record(event);
    }
}

impl EvaluationProgressLogger for RecordingRenderer {
    fn start_global_progress(&mut self, _tests: usize) {}
    fn start_test(&mut self, _name: &str, _items: usize) {}
    fn update_test_progress(&mut self, _items: usize) {}
    fn end_test(&mut self) {}
    fn end_global_progress(&mut self) {}
    fn log_event_evaluation(&mut self, _event: String) {}
}

impl MetricsRendererTraining for RecordingRenderer {
    fn update_train(&mut self, state: MetricState) {
        self.metric("train", &state);
    }

    fn update_valid(&mut self, state: MetricState) {
        self.metric("valid", &state);
    }
}

impl RecordingRenderer {
    fn metric(&self, split: &str, state: &MetricState) {
        let kind = match state {
            MetricState::Generic(_) => "text",
            MetricState::Numeric(..) => "number",
        };
        self.record(format!("{kind} of {split}"));
    }
}

impl MetricsRendererEvaluation for RecordingRenderer {
    fn update_test(&mut self, _name: EvaluationName, _state: MetricState) {}
}

impl MetricsRenderer for RecordingRenderer {
    fn manual_close(&mut self) {}

    fn register_metric(&mut self, definition: MetricDefinition) {
        self.record(format!("metric {}", definition.name));
    }
}

/// Checks equality bit for bit, running statistics included.
pub(crate) fn equal<M: Module>(what: &str, got: &M, want: &M) -> Result<(), String> {
    // A fork has applied the deferred updates of running statistics.
    let (got, want) = (fork(got), parameters(&fork(want)));
    if parameters(&got).len() != want.len() || want.is_empty() {
        return Err(format!("{what}: the parameters differ"));
    }
    same(what, &got, &want)
}

/// Checks two trainings whose passes were evaluated separately: equal bit for bit, except the running statistics,
/// which Burn may sum in another order.
pub(crate) fn equal_weights<M: Module>(what: &str, got: &M, want: &M) -> Result<(), String> {
    let (got, want) = (parameters(&fork(got)), parameters(&fork(want)));
    if got.len() != want.len() || want.is_empty() {
        return Err(format!("{what}: the parameters differ"));
    }
    for ((path, got), (_, want)) in got.iter().zip(&want) {
        if path.contains("running_") {
            let want: Vec<_> = want.iter().copied().map(f64::from).collect();
            near(&format!("{what}: {path}"), got, &want)?;
        } else if got.iter().map(|x| x.to_bits()).ne(want.iter().map(|x| x.to_bits())) {
            return Err(format!("{what}: {path} is {got:?}, expected {want:?}"));
        }
    }
    Ok(())
}

/// Checks that some parameter differs.
pub(crate) fn differ<M: Module>(what: &str, got: &M, other: &M) -> Result<(), String> {
    match equal(what, got, other) {
        Ok(()) => Err(format!("{what}: nothing changed")),
        Err(_) => Ok(()),
    }
}
