//! One training and its measurements.

use crate::Error;
use crate::data::{Batch, CLASSES, Images, Order, Sets};
use crate::options::{Method, Options, Trial};
use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Linear, LinearConfig};
use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use burn_wsam::sharpness::{
    Plane, PowerIteration, SharpnessError, Surface, loss_rise, surface, top_eigenvalue,
};
use burn_wsam::{SgdBaseConfig, WsamConfig, WsamError};
use std::time::Instant;

/// Radius at which the rise of the loss is measured, the same for every method.
const RISE_RHO: f64 = 0.05;

/// Number of images for measuring sharpness, from the start of the training set.
const MEASURED: usize = 2048;

/// Results of a training.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    pub(crate) test_accuracy: f64,
    /// Loss on the training labels, wrong ones included.
    pub(crate) train_loss: f64,
    pub(crate) rise: f64,
    pub(crate) eigenvalue: f64,
    /// Time of the training, without the measurements.
    pub(crate) seconds: f64,
}

/// Three layers, no normalisation, no dropout.
#[derive(Module, Debug)]
struct Net {
    a: Linear,
    b: Linear,
    c: Linear,
}

impl Net {
    fn new(pixels: usize, device: &Device) -> Self {
        Self {
            a: LinearConfig::new(pixels, 256).init(device),
            b: LinearConfig::new(256, 128).init(device),
            c: LinearConfig::new(128, CLASSES).init(device),
        }
    }

    fn forward(&self, images: Tensor<2>) -> Tensor<2> {
        self.c.forward(relu(self.b.forward(relu(self.a.forward(images)))))
    }

    fn loss(&self, batch: &Batch) -> Tensor<1> {
        let logits = self.forward(batch.images.clone());
        let loss = CrossEntropyLossConfig::new().init(&logits.device());
        loss.forward(logits, batch.labels.clone())
    }
}

/// A step of any optimizer, at a learning rate.
type Step = Box<dyn FnMut(f64, Net, &Batch) -> Result<Net, Error>>;

/// Trains a net. Returns it and the time in seconds.
fn fit(trial: &Trial, options: &Options, sets: &Sets) -> Result<(Net, f64), Error> {
    let device = Device::flex().autodiff();
    device.seed(trial.seed);
    let mut net = Net::new(sets.train.size, &device);
    let labels = sets.train.noisy(trial.noise, trial.seed);
    let mut order = Order::new(trial.seed);
    let (momentum, decay) = (
        MomentumConfig { momentum: 0.9, dampening: 0.0, nesterov: false },
        WeightDecayConfig { penalty: 5e-4 },
    );
    let mut step: Step = match trial.method {
        Method::Base => {
            let config = SgdConfig::new().with_momentum(Some(momentum));
            let mut sgd = config.with_weight_decay(Some(decay)).init();
            Box::new(move |lr, net: Net, batch| {
                let grads = GradientsParams::from_grads(net.loss(batch).backward(), &net);
                Ok(sgd.step(lr, net, grads))
            })
        }
        Method::Wsam { gamma, rho, decouple } => {
            let base =
                SgdBaseConfig::new().with_momentum(Some(momentum)).with_weight_decay(Some(decay));
            let config = WsamConfig::new(base.into()).with_rho(rho).with_gamma(gamma);
            let mut wsam = config.with_decouple(decouple).init(&device)?;
            Box::new(move |lr, net, batch| {
                let stepped = wsam.step(lr, net, |net| net.loss(batch));
                Ok(stepped.map_err(WsamError::from)?.0)
            })
        }
    };

    let (start, batch_size) = (Instant::now(), options.batch_size as usize);
    let steps = trial.epochs as usize * (sets.train.len() / batch_size);
    let mut taken = 0;
    for _ in 0..trial.epochs {
        for indices in order.epoch(sets.train.len(), batch_size) {
            let turn = std::f64::consts::PI * taken as f64 / steps as f64;
            let lr = options.lr * 0.5 * (1.0 + turn.cos());
            net = step(lr, net, &sets.train.batch(&indices, &labels, &device))?;
            taken += 1;
        }
    }
    Ok((net, start.elapsed().as_secs_f64()))
}

/// The batch for measuring sharpness, with the training labels.
fn measured(trial: &Trial, sets: &Sets) -> Batch {
    let labels = sets.train.noisy(trial.noise, trial.seed);
    let first: Vec<usize> = (0..sets.train.len().min(MEASURED)).collect();
    sets.train.batch(&first, &labels, &Device::flex().autodiff())
}

/// The loss surface around the trained weights.
pub(crate) fn around(
    trial: &Trial,
    options: &Options,
    sets: &Sets,
    plane: &Plane,
) -> Result<Surface, Error> {
    let (net, _) = fit(trial, options, sets)?;
    let batch = measured(trial, sets);
    Ok(surface(&net, plane, |net: &Net| net.loss(&batch))?)
}

/// Trains a net and measures it.
pub(crate) fn train(trial: &Trial, options: &Options, sets: &Sets) -> Result<Outcome, Error> {
    let (net, seconds) = fit(trial, options, sets)?;
    let measured = measured(trial, sets);
    let loss = |net: &Net| net.loss(&measured);
    let power = PowerIteration::default().with_max_products(50);
    // A diverged training is a result too.
    let or_nan = |found: Result<f64, SharpnessError>| match found {
        Err(SharpnessError::NotFinite { .. }) => Ok(f64::NAN),
        found => found,
    };
    Ok(Outcome {
        test_accuracy: accuracy(&net.valid(), &sets.test, &Device::flex())?,
        train_loss: number(net.loss(&measured))?,
        rise: or_nan(loss_rise(&net, RISE_RHO, false, loss))?,
        eigenvalue: or_nan(top_eigenvalue(&net, &power, loss).map(|top| top.value))?,
        seconds,
    })
}

fn accuracy(net: &Net, test: &Images, device: &Device) -> Result<f64, Error> {
    let mut correct = 0.0;
    let all: Vec<usize> = (0..test.len()).collect();
    for indices in all.chunks(1000) {
        let batch = test.batch(indices, test.labels(), device);
        let found = net.forward(batch.images).argmax(1).squeeze_dim::<1>(1);
        correct += number(found.equal(batch.labels).float().sum())?;
    }
    Ok(correct / test.len() as f64)
}

fn number(tensor: Tensor<1>) -> Result<f64, Error> {
    let read = tensor.without_autodiff().try_into_scalar();
    read.map_err(|error| Error::Device(error.to_string()))
}
