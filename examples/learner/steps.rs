//! Burn's training and inference steps of the network. They do not depend on WSAM.

use crate::data::Batch;
use crate::model::Network;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::train::{ClassificationOutput, InferenceStep, TrainOutput, TrainStep};

fn classify(network: &Network, Batch { images, labels }: Batch) -> ClassificationOutput {
    let logits = network.forward(images);
    let loss = CrossEntropyLossConfig::new().init(&logits.device());
    let loss = loss.forward(logits.clone(), labels.clone());
    ClassificationOutput::new(loss, logits, labels)
}

impl TrainStep for Network {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, batch: Batch) -> TrainOutput<ClassificationOutput> {
        let item = classify(self, batch);
        TrainOutput::new(self, item.loss.backward(), item)
    }
}

impl InferenceStep for Network {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, batch: Batch) -> ClassificationOutput {
        classify(self, batch)
    }
}
