//! A training loop that calls `ascend` and `descend`, with gradients accumulated over micro-batches and
//! parameter groups. See README.md in this folder.

use burn::lr_scheduler::cosine::CosineAnnealingLrSchedulerConfig;
use burn::module::{Module, ParamGroup};
use burn::optim::momentum::MomentumConfig;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::Device;
use burn_wsam::{GroupConfig, SgdBaseConfig, Wsam, WsamConfig, WsamError};
use burn_wsam_support::digits::data::{Batch, Digits, Shuffle};
use burn_wsam_support::digits::model::Network;
use clap::Parser;
use std::error::Error;

/// Trains a small convolutional network on the UCI handwritten digits with WSAM, in a custom training loop.
#[derive(Parser, Debug)]
#[command(name = "custom_loop")]
struct Options {
    /// Epochs.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    epochs: u32,

    /// Images in a micro-batch.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(2..=1437))]
    batch_size: u32,

    /// Micro-batches of a step.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    accumulation: u32,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let device = device().autodiff();
    let (train, test) = Digits::split();
    let micro_batches = train.count() / options.batch_size as usize;
    let steps = micro_batches.div_ceil(options.accumulation as usize) * options.epochs as usize;
    let mut rate = CosineAnnealingLrSchedulerConfig::new(0.05, steps).init()?;

    let momentum = MomentumConfig::new().with_momentum(0.9).with_dampening(0.0);
    let base = SgdBaseConfig::new().with_momentum(Some(momentum));
    // Biases and normalisation layers are not perturbed. The last layer has a smaller radius and learning rate.
    let small = GroupConfig::new(ParamGroup::from_any_predicates(vec!["bias", "norm"]));
    let last = GroupConfig::new(ParamGroup::from_path("linear.weight"));
    let groups = vec![small.with_perturbed(false), last.with_rho(Some(0.02)).with_lr_factor(0.5)];
    let config = WsamConfig::new(base.into()).with_gamma(0.8).with_groups(groups);
    let mut optim = config.init(&device)?;
    println!("Route: {}", optim.route());

    let mut network = Network::new(1, &device);
    let mut shuffle = Shuffle::new(1);
    for epoch in 1..=options.epochs {
        let batches: Vec<_> =
            train.epoch(options.batch_size as usize, &mut shuffle, &device).collect();
        for micro_batches in batches.chunks(options.accumulation as usize) {
            network = step(&mut optim, network, rate.step().base(), micro_batches)?;
        }
        let all = test.all(&device.clone().inner());
        let correct: i64 = network.valid().correct(&all).into_scalar();
        println!("epoch {epoch}: {:.2} %", 100.0 * correct as f64 / test.count() as f64);
    }
    Ok(())
}

/// Takes one step: perturbs along the gradient of all micro-batches, then updates with their gradient at the
/// perturbed weights.
fn step(
    optim: &mut Wsam,
    network: Network,
    lr: f64,
    micro_batches: &[Batch],
) -> Result<Network, WsamError> {
    let grads = gradients(&network, micro_batches);
    let ascended = optim.ascend(network, grads)?;
    // The second gradient must use the same micro-batches.
    let grads = gradients(ascended.model(), micro_batches);
    Ok(optim.descend(lr, ascended, grads)?)
}

/// The gradient of the micro-batches' mean loss.
fn gradients(network: &Network, micro_batches: &[Batch]) -> GradientsParams {
    let mut sum = GradientsAccumulator::new();
    for batch in micro_batches {
        let loss = network.loss(batch) / micro_batches.len() as f64;
        sum.accumulate(network, GradientsParams::from_grads(loss.backward(), network));
    }
    sum.grads()
}

/// A GPU if there is one, otherwise the CPU. `main` prints the route.
#[cfg(feature = "fused-wsam")]
fn device() -> Device {
    burn_wsam::device().unwrap_or_else(|error| {
        println!("{error}; training on the CPU");
        Device::flex()
    })
}

#[cfg(not(feature = "fused-wsam"))]
fn device() -> Device {
    Device::flex()
}
