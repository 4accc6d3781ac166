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
    /// default is 0.9; so short a training ends better with less.
    #[arg(long, default_value_t = 0.8, allow_negative_numbers = true)]
    pub(crate) gamma: f64,

    /// Let WSAM's sharpness go through the base optimizer (coupled). Wants a smaller gamma: 0.5 is
    /// SAM.
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

    /// Decides the initial weights and the order of the images. The test set is always the same.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,

    /// Where to train: auto takes a GPU if there is one, else the CPU.
    #[arg(long, value_enum, default_value_t = DeviceChoice::Auto)]
    pub(crate) device: DeviceChoice,

    /// How SAM and WSAM run: auto takes the WGSL kernels where the device allows it.
    #[arg(long, value_enum, default_value_t = RouteChoice::Auto)]
    pub(crate) route: RouteChoice,

    /// Write the table as JSON to this file, too.
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

/// What trains.
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
    /// wgpu where it finds an adapter, else flex.
    Auto,
    /// Burn's CPU backend.
    Flex,
    /// Burn's default wgpu device.
    Wgpu,
}

/// How the steps run.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum RouteChoice {
    /// Fused where the device allows it.
    Auto,
    /// Through the WGSL kernels, or not at all.
    Fused,
    /// In Burn's tensor operations.
    TensorOps,
}

impl Options {
    /// The learning rate at the start, checked. The optimizer itself would take a rate below 0.
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
