//! One training and its measurements.

use crate::Error;
use crate::optimizer::Optimizer;
use crate::options::Options;
use crate::place::Place;
use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use burn_wsam::{SgdBaseConfig, WsamConfig, WsamError};
use burn_wsam_support::digits::data::{Digits, Shuffle};
use burn_wsam_support::digits::model::Network;
use indicatif::{ProgressBar, ProgressStyle};
use std::time::{Duration, Instant};

/// Radius at which the final sharpness is measured, the same for every optimizer.
const SHARPNESS_RHO: f64 = 0.05;

/// Results of a training.
pub(crate) struct Outcome {
    pub(crate) name: &'static str,
    pub(crate) route: &'static str,
    /// Mean loss over the last epoch.
    pub(crate) train_loss: f64,
    pub(crate) test_accuracy: f64,
    /// `L(w + e_w) - L(w)` over the whole training set.
    pub(crate) sharpness: f64,
    /// Median over the epochs, which excludes the compilation of kernels in the first epoch.
    pub(crate) epoch_time: Duration,
}

/// Trains a copy of `initial`.
pub(crate) fn train(
    name: &'static str,
    mut optimizer: Optimizer,
    options: &Options,
    place: &Place,
    initial: &Network,
) -> Result<Outcome, Error> {
    let device = place.device.clone().autodiff();
    let (train, test) = Digits::split();
    let batch_size = options.batch_size as usize;
    if batch_size > train.count() {
        return Err(Error::BatchSize { batch_size, images: train.count() });
    }
    let peak = options.lr()?;
    let mut model = initial.copy();
    let mut shuffle = Shuffle::new(options.seed);

    let steps = u64::from(options.epochs) * (train.count() / batch_size) as u64;
    let progress = progress(name, steps);
    let mut epoch_times = Vec::new();
    let (mut train_loss, mut test_accuracy) = (f64::NAN, f64::NAN);
    for epoch in 1..=options.epochs {
        let start = Instant::now();
        let mut losses = Vec::new();
        for batch in train.epoch(batch_size, &mut shuffle, &device) {
            let lr = cosine(peak, progress.position(), steps);
            let (stepped, loss) = optimizer.step(lr, model, &batch)?;
            model = stepped;
            losses.push(loss);
            progress.inc(1);
        }
        train_loss = number(Tensor::cat(losses, 0).mean())?;
        place.device.sync().map_err(|error| Error::Device(error.to_string()))?;
        epoch_times.push(start.elapsed());
        if !train_loss.is_finite() {
            return Err(Error::Diverged { name, epoch });
        }
        test_accuracy = accuracy(&model, &test, &place.device)?;
        progress.set_message(format!(
            "epoch {epoch}: loss {train_loss:.4}, test {:.2} %",
            100.0 * test_accuracy
        ));
    }
    progress.finish();

    let sharpness = sharpness(&model, &train, &device)?;
    epoch_times.sort();
    let epoch_time = epoch_times[epoch_times.len() / 2];
    let route = optimizer.route();
    Ok(Outcome { name, route, train_loss, test_accuracy, sharpness, epoch_time })
}

/// Learning rate from `peak` down to almost zero along a cosine.
fn cosine(peak: f64, step: u64, steps: u64) -> f64 {
    let turn = std::f64::consts::PI * step as f64 / steps as f64;
    peak * 0.5 * (1.0 + turn.cos())
}

fn accuracy(model: &Network, test: &Digits, device: &Device) -> Result<f64, Error> {
    let correct = model.valid().correct(&test.all(device));
    let correct: i64 =
        correct.try_into_scalar().map_err(|error| Error::Device(error.to_string()))?;
    Ok(correct as f64 / test.count() as f64)
}

/// `L(w + e_w) - L(w)` at radius [`SHARPNESS_RHO`], with the whole training set as one batch.
///
/// It is the ascent of an optimizer without a descent. Batch normalisation uses the batch's statistics, as in
/// training. The model's running statistics do not change, because this runs on a copy.
fn sharpness(model: &Network, train: &Digits, device: &Device) -> Result<f64, Error> {
    let batch = train.all(device);
    let model = model.copy();
    let mut probe =
        WsamConfig::new(SgdBaseConfig::new().into()).with_rho(SHARPNESS_RHO).init(device)?;
    let loss = model.loss(&batch);
    let grads = GradientsParams::from_grads(loss.backward(), &model);
    let ascended = probe.ascend(model, grads).map_err(WsamError::from)?;
    let rise = ascended.model().loss(&batch).without_autodiff() - loss.without_autodiff();
    number(rise)
}

fn number(tensor: Tensor<1>) -> Result<f64, Error> {
    tensor.try_into_scalar().map_err(|error| Error::Device(error.to_string()))
}

/// A progress bar, which is hidden if stderr is not a terminal.
fn progress(name: &'static str, steps: u64) -> ProgressBar {
    let template = "{prefix:>6} {bar:30} {pos:>4}/{len} steps, {elapsed} {msg}";
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(steps).with_style(style).with_prefix(name)
}
