//! A model with frozen, late and unused layers, and its batches.

use crate::tools::data;
use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::data::dataset::InMemDataset;
use burn::module::Module;
use burn::nn::{BatchNorm, BatchNormConfig, Dropout, DropoutConfig, Linear, LinearConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use burn::train::{InferenceStep, RegressionOutput, TrainOutput, TrainStep};
use burn_wsam_support::burn_route::exact_loss;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Number of training passes of all models. Tests run one at a time.
static PASSES: AtomicUsize = AtomicUsize::new(0);

/// Counts the training passes while `work` runs.
pub(crate) fn passes<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = PASSES.load(Ordering::SeqCst);
    let done = work();
    (done, PASSES.load(Ordering::SeqCst) - before)
}

#[derive(Clone, Debug)]
pub(crate) struct Batch {
    x: Tensor<2>,
    y: Tensor<2>,
    /// Whether the late layer is used.
    late: bool,
    /// The first item.
    first: u64,
}

impl Batch {
    pub(crate) fn times(self, by: f32) -> Self {
        Self { x: self.x * by, ..self }
    }
}

struct Batches;

impl Batcher<u64, Batch> for Batches {
    fn batch(&self, items: Vec<u64>, device: &Device) -> Batch {
        let rows = |width, salt| {
            let rows = items.iter().map(|item| data([1, width], *item + salt, device));
            Tensor::cat(rows.collect(), 0)
        };
        // The late layer is used from the second batch of each epoch on.
        let late = items.iter().any(|item| *item >= BATCH);
        Batch { x: rows(5, 1), y: rows(3, 1000), late, first: items[0] }
    }
}

const BATCH: u64 = 4;
/// Items of a training epoch: three full batches and half a batch.
const ITEMS: u64 = 14;
/// Batches of a training epoch.
pub(crate) const ITERATIONS: usize = 4;

fn loader(items: std::ops::Range<u64>) -> Arc<dyn DataLoader<Batch>> {
    let items = InMemDataset::new(items.collect());
    DataLoaderBuilder::new(Batches).batch_size(BATCH as usize).build(items)
}

/// The loader does not shuffle.
pub(crate) fn train_loader() -> Arc<dyn DataLoader<Batch>> {
    loader(0..ITEMS)
}

pub(crate) fn valid_loader() -> Arc<dyn DataLoader<Batch>> {
    loader(100..106)
}

/// The batches of an epoch.
pub(crate) fn batches(device: &Device) -> Vec<Batch> {
    let loader = train_loader().to_device(device);
    loader.iter().map(|batch| batch.expect("data in memory")).collect()
}

/// Two layers with optional batch normalisation or dropout between them, a frozen layer, a layer that is used only
/// in later batches, and a layer that is never used.
#[derive(Module, Debug)]
pub(crate) struct Net {
    a: Linear,
    norm: Option<BatchNorm>,
    dropout: Option<Dropout>,
    pub(crate) b: Linear,
    frozen: Linear,
    late: Linear,
    pub(crate) never: Linear,
    /// Whether training passes use [`exact_loss`].
    exact: bool,
}

impl Net {
    pub(crate) fn new(seed: u64, device: &Device) -> Self {
        device.seed(seed);
        Self {
            a: LinearConfig::new(5, 19).init(device),
            norm: None,
            dropout: None,
            b: LinearConfig::new(19, 3).init(device),
            frozen: LinearConfig::new(3, 3).init(device).no_grad(),
            late: LinearConfig::new(5, 3).init(device),
            never: LinearConfig::new(2, 2).init(device),
            exact: false,
        }
    }

    pub(crate) fn normalised(seed: u64, device: &Device) -> Self {
        Self { norm: Some(BatchNormConfig::new(19).init(device)), ..Self::new(seed, device) }
    }

    /// A model with exact gradients, for trainings that are compared bit for bit.
    pub(crate) fn exact(self) -> Self {
        Self { exact: true, ..self }
    }

    pub(crate) fn with_dropout(seed: u64, device: &Device) -> Self {
        Self { dropout: Some(DropoutConfig::new(0.4).init()), ..Self::new(seed, device) }
    }

    fn forward(&self, Batch { x, y, late, .. }: Batch) -> RegressionOutput {
        let mut hidden = self.a.forward(x.clone());
        if let Some(norm) = &self.norm {
            hidden = norm.forward(hidden);
        }
        if let Some(dropout) = &self.dropout {
            hidden = dropout.forward(hidden);
        }
        let mut output = self.frozen.forward(self.b.forward(relu(hidden)));
        if late {
            output = output + self.late.forward(x);
        }
        let loss = (output.clone() - y.clone()).powi_scalar(2).mean();
        RegressionOutput::new(loss, output, y)
    }
}

impl TrainStep for Net {
    type Input = Batch;
    type Output = RegressionOutput;

    fn step(&self, batch: Batch) -> TrainOutput<RegressionOutput> {
        PASSES.fetch_add(1, Ordering::SeqCst);
        let (first, late) = (batch.first, batch.late);
        let item = self.forward(batch);
        if !self.exact {
            return TrainOutput::new(self, item.loss.backward(), item);
        }
        // Only the layers that were used get gradients.
        let late = late.then(|| self.late.clone());
        let layers = (self.a.clone(), self.norm.clone(), self.b.clone(), late);
        let loss = exact_loss(&layers, first, item.loss.clone());
        TrainOutput::new(self, loss.backward(), item)
    }
}

impl InferenceStep for Net {
    type Input = Batch;
    type Output = RegressionOutput;

    fn step(&self, batch: Batch) -> RegressionOutput {
        self.forward(batch)
    }
}
