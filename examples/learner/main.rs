//! Trains handwritten digits with WSAM under Burn's `SupervisedTraining`. See README.md in this folder.

mod loading;
mod steps;

use burn::lr_scheduler::cosine::CosineAnnealingLrSchedulerConfig;
use burn::optim::momentum::MomentumConfig;
use burn::tensor::Device;
use burn::train::metric::store::{Aggregate, Direction, Split};
use burn::train::metric::{AccuracyMetric, LearningRateMetric, LossMetric};
use burn::train::{
    ClassificationOutput, MetricEarlyStoppingStrategy, StoppingCondition, SupervisedTraining,
};
use burn_wsam::train::WsamTraining;
use burn_wsam::{AdamWBaseConfig, BaseConfig, SgdBaseConfig, WsamConfig};
use clap::Parser;
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use steps::Classifier;

/// Trains a small convolutional network on the UCI handwritten digits with WSAM, under Burn's
/// SupervisedTraining, with its dashboard on a terminal and plain lines elsewhere.
#[derive(Parser, Debug)]
#[command(name = "learner")]
struct Options {
    /// Total number of epochs.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    epochs: u32,

    /// Resume from the checkpoint of this epoch.
    #[arg(long, value_name = "EPOCH", value_parser = clap::value_parser!(u32).range(1..))]
    resume: Option<u32>,

    /// Folder of checkpoints and logs.
    #[arg(long, value_name = "FOLDER", default_value = "target/learner")]
    folder: PathBuf,

    /// Images in a batch.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(2..=1437))]
    batch_size: u32,

    /// Batches whose gradients are accumulated for one step.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    accumulation: u32,

    /// First epoch with WSAM. Earlier epochs use the base optimizer alone.
    #[arg(long, value_name = "EPOCH", default_value_t = 1)]
    wsam_from: u32,

    /// Radius of the perturbation.
    #[arg(long, default_value_t = 0.05)]
    rho: f64,

    /// Weight of the sharpness, from 0 to below 1.
    #[arg(long, default_value_t = 0.8)]
    gamma: f64,

    /// Use AdamW as the base optimizer, instead of SGD with momentum.
    #[arg(long)]
    adamw: bool,

    /// Train on the CPU, even if there is a GPU.
    #[arg(long)]
    cpu: bool,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let device = device(options.cpu).autodiff();
    let (base, lr): (BaseConfig, f64) = if options.adamw {
        (AdamWBaseConfig::new().into(), 0.005)
    } else {
        let momentum = MomentumConfig::new().with_momentum(0.9).with_dampening(0.0);
        (SgdBaseConfig::new().with_momentum(Some(momentum)).into(), 0.05)
    };
    let (train, valid) = loading::loaders(options.batch_size as usize);
    let batches = train.num_items().div_ceil(options.batch_size as usize);
    let steps = options.epochs as usize * batches.div_ceil(options.accumulation as usize);
    let rate = CosineAnnealingLrSchedulerConfig::new(lr, steps).init()?;

    let config = WsamConfig::new(base).with_rho(options.rho).with_gamma(options.gamma);
    let wsam_from = options.wsam_from as usize;
    let wsam =
        WsamTraining::new(config.init(&device)?).with_active(move |at| at.epoch >= wsam_from);
    println!("Route: {}", wsam.route());

    let mut training = SupervisedTraining::new(&options.folder, train, valid)
        .metrics((AccuracyMetric::new(), LossMetric::new()))
        .metric_train_numeric(LearningRateMetric::new())
        .metric_train_numeric(wsam.sharpness_metric())
        .with_default_checkpointers()
        .early_stopping(MetricEarlyStoppingStrategy::new(
            &LossMetric::new(),
            Aggregate::Mean,
            Direction::Lowest,
            Split::Valid,
            StoppingCondition::NoImprovementSince { n_epochs: 4 },
        ))
        .grads_accumulation(options.accumulation as usize)
        .num_epochs(options.epochs as usize)
        .summary()
        .with_training_strategy(
            wsam.strategy_with_loss(|output: &ClassificationOutput| output.loss.clone()),
        );
    if let Some(epoch) = options.resume {
        let file = options.folder.join(format!("checkpoint/optim-{epoch}.bpk"));
        if !file.exists() {
            return Err(format!("there is no checkpoint of epoch {epoch}: {file:?}").into());
        }
        training = training.checkpoint(epoch as usize);
    }
    let result = training.launch(wsam.learner(Classifier::new(1, &device), rate));
    if let Some(error) = result.error {
        return Err(error.to_string().into());
    }
    if let Some(interruption) = result.interrupted {
        println!("Stopped: {}", interruption.reason.as_deref().unwrap_or("without a reason"));
    }
    Ok(())
}

/// A GPU if there is one, otherwise the CPU. `run` prints the route.
#[cfg(feature = "fused-wsam")]
fn device(cpu: bool) -> Device {
    if cpu {
        return Device::flex();
    }
    burn_wsam::device().unwrap_or_else(|error| {
        println!("{error}; training on the CPU");
        Device::flex()
    })
}

#[cfg(not(feature = "fused-wsam"))]
fn device(_cpu: bool) -> Device {
    Device::flex()
}
