//! The command line.

use crate::Error;
use burn_wsam::RoutePolicy;
use clap::{Parser, ValueEnum};
use std::path::PathBuf;

/// Trains one small convolutional network on the 1,797 UCI handwritten digits three times: with
/// the base optimizer, with SAM and with WSAM. Then compares them in a table.
#[derive(Parser, Debug)]
#[command(name = "digits")]
pub(crate) struct Options {
    /// Epochs of each training.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) epochs: u32,

    /// Images in a batch.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(2..))]
    pub(crate) batch_size: u32,

    /// Learning rate at the start; falls to zero along a cosine [default: 0.05 for sgd, 0.005 for
    /// adamw].
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) lr: Option<f64>,

    /// Radius of the perturbation, for SAM and WSAM.
    #[arg(long, default_value_t = 0.05, allow_negative_numbers = true)]
    pub(crate) rho: f64,

    /// Weight of the sharpness, for WSAM: from 0, the base optimizer, to below 1. The authors'
    /// default is 0.9; a lower value is better for such a short training.
    #[arg(long, default_value_t = 0.8, allow_negative_numbers = true)]
    pub(crate) gamma: f64,

    /// Use WSAM's coupled form, where the sharpness passes through the base optimizer. It needs a
    /// smaller gamma: 0.5 is SAM.
    #[arg(long)]
    pub(crate) coupled: bool,

    /// The base optimizer.
    #[arg(long, value_enum, default_value_t = Base::Sgd)]
    pub(crate) base: Base,

    /// Which trainings to run, in this order.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_values_t = [Method::Base, Method::Sam, Method::Wsam]
    )]
    pub(crate) optimizers: Vec<Method>,

    /// Seed of the initial weights and of the order of the images. The test set is always the same.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,

    /// Where to train. `auto` uses a GPU if there is one, otherwise the CPU.
    #[arg(long, value_enum, default_value_t = DeviceChoice::Auto)]
    pub(crate) device: DeviceChoice,

    /// Route of SAM and WSAM. `auto` uses the WGSL kernels if the device supports them.
    #[arg(long, value_enum, default_value_t = RouteChoice::Auto)]
    pub(crate) route: RouteChoice,

    /// Also write the table to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// The base optimizer.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Base {
    /// SGD with momentum 0.9 and weight decay 0.0005.
    Sgd,
    /// AdamW with Burn's defaults.
    #[value(name = "adamw")]
    AdamW,
}

/// The optimizer of a training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Method {
    /// The base optimizer alone.
    Base,
    /// SAM: WSAM, coupled, with gamma 1/2.
    Sam,
    /// WSAM.
    Wsam,
}

/// Where to train.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum DeviceChoice {
    /// wgpu if it finds an adapter, otherwise flex.
    Auto,
    /// Burn's CPU backend.
    Flex,
    /// Burn's default wgpu device.
    Wgpu,
}

/// The route of the steps.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum RouteChoice {
    /// Fused if the device supports it.
    Auto,
    /// In the WGSL kernels; an error if the device does not support them.
    Fused,
    /// In Burn's tensor operations.
    TensorOps,
}

impl Options {
    /// The initial learning rate, checked here because the optimizer accepts negative rates.
    pub(crate) fn lr(&self) -> Result<f64, Error> {
        let lr = self.lr.unwrap_or(match self.base {
            Base::Sgd => 0.05,
            Base::AdamW => 0.005,
        });
        if lr.is_finite() && lr > 0.0 { Ok(lr) } else { Err(Error::LearningRate(lr)) }
    }

    /// The name of a training.
    pub(crate) fn name(&self, method: Method) -> &'static str {
        match (method, self.base) {
            (Method::Base, Base::Sgd) => "SGD",
            (Method::Base, Base::AdamW) => "AdamW",
            (Method::Sam, _) => "SAM",
            (Method::Wsam, _) => "WSAM",
        }
    }
}

impl From<RouteChoice> for RoutePolicy {
    fn from(choice: RouteChoice) -> Self {
        match choice {
            RouteChoice::Auto => Self::Auto,
            RouteChoice::Fused => Self::Fused,
            RouteChoice::TensorOps => Self::TensorOps,
        }
    }
}
