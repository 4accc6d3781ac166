//! A small convolutional network with batch normalisation: about 10,000 parameters.

use super::data::Batch;
use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};

const CHANNELS: [usize; 2] = [16, 32];
const CLASSES: usize = 10;

/// Two convolutions, 8x8 to 4x4, and a linear layer.
#[derive(Module, Debug)]
pub struct Network {
    conv_1: Conv2d,
    norm_1: BatchNorm,
    conv_2: Conv2d,
    norm_2: BatchNorm,
    linear: Linear,
}

impl Network {
    /// A network for training on `device`, with the same weights on every device.
    pub fn new(seed: u64, device: &Device) -> Self {
        // Backends have different random generators, so the weights are drawn on the CPU and then moved.
        let cpu = Device::flex();
        cpu.seed(seed);
        let conv = |channels, stride| {
            Conv2dConfig::new(channels, [3, 3])
                .with_stride([stride, stride])
                .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
                // The normalisation after it has a bias.
                .with_bias(false)
                .init(&cpu)
        };
        let [first, second] = CHANNELS;
        let network = Self {
            conv_1: conv([1, first], 1),
            norm_1: BatchNormConfig::new(first).init(&cpu),
            conv_2: conv([first, second], 2),
            norm_2: BatchNormConfig::new(second).init(&cpu),
            linear: LinearConfig::new(second * 4 * 4, CLASSES).init(&cpu),
        };
        // Initialisation is lazy. `valid` reads the weights and so initialises them on the CPU, not
        // on `device`.
        network.valid().to_device(device).train()
    }

    /// A copy with the same weights and its own running statistics, which Burn's clones share.
    pub fn copy(&self) -> Self {
        self.valid().train()
    }

    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let x = relu(self.norm_1.forward(self.conv_1.forward(images)));
        let x = relu(self.norm_2.forward(self.conv_2.forward(x)));
        self.linear.forward(x.flatten(1, 3))
    }

    /// Mean cross-entropy.
    pub fn loss(&self, batch: &Batch) -> Tensor<1> {
        let logits = self.forward(batch.images.clone());
        let loss = CrossEntropyLossConfig::new().init(&logits.device());
        loss.forward(logits, batch.labels.clone())
    }

    /// Number of correctly classified images, for a network in evaluation mode.
    pub fn correct(&self, batch: &Batch) -> Tensor<1, burn::tensor::Int> {
        let digits = self.forward(batch.images.clone()).argmax(1).squeeze_dim::<1>(1);
        digits.equal(batch.labels.clone()).int().sum()
    }
}
