//! Burn's training and inference steps of the network. They do not depend on WSAM.

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::tensor::Device;
use burn::train::{ClassificationOutput, InferenceStep, TrainOutput, TrainStep};
use burn_wsam_support::digits::data::Batch;
use burn_wsam_support::digits::model::Network;

/// The digits network as a model that burn-train trains.
#[derive(Module, Debug)]
pub(crate) struct Classifier {
    network: Network,
}

impl Classifier {
    pub(crate) fn new(seed: u64, device: &Device) -> Self {
        Self { network: Network::new(seed, device) }
    }

    fn classify(&self, Batch { images, labels }: Batch) -> ClassificationOutput {
        let logits = self.network.forward(images);
        let loss = CrossEntropyLossConfig::new().init(&logits.device());
        let loss = loss.forward(logits.clone(), labels.clone());
        ClassificationOutput::new(loss, logits, labels)
    }
}

impl TrainStep for Classifier {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, batch: Batch) -> TrainOutput<ClassificationOutput> {
        let item = self.classify(batch);
        TrainOutput::new(self, item.loss.backward(), item)
    }
}

impl InferenceStep for Classifier {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, batch: Batch) -> ClassificationOutput {
        self.classify(batch)
    }
}
