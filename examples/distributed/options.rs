//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Trains one small convolutional network on the UCI handwritten digits with WSAM, on workers.
#[derive(Parser, Debug)]
#[command(name = "distributed")]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Serves this machine's device as a worker, until it is stopped.
    Serve(Serve),
    /// Trains on workers.
    Train(Train),
}

#[derive(Args, Debug)]
pub(crate) struct Serve {
    /// Port to listen on.
    #[arg(long, default_value_t = 3000)]
    pub(crate) port: u16,

    /// Address of the interface to listen on, for WebSocket. Every client that reaches it can use the device.
    #[arg(long, default_value = "127.0.0.1")]
    pub(crate) bind: IpAddr,

    /// The device to serve.
    #[arg(long, value_enum, default_value_t = DeviceChoice::Flex)]
    pub(crate) device: DeviceChoice,

    /// Serves only clients with this token. Over WebSocket it is sent unencrypted.
    #[arg(long)]
    pub(crate) token: Option<String>,

    /// Serves over Iroh, encrypted, on all interfaces, with the identity in this file, which is created if it does
    /// not exist. Needs --token.
    #[arg(long, value_name = "FILE", requires = "token")]
    pub(crate) iroh: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct Train {
    /// A worker: ws://HOST:PORT, or iroh:ID@ADDRESS:PORT. Repeat it for more.
    #[arg(long = "worker", required = true)]
    pub(crate) workers: Vec<String>,

    /// The workers' token.
    #[arg(long)]
    pub(crate) token: Option<String>,

    /// Perturbs each replica along its own gradient, as the authors do, instead of all along the average.
    #[arg(long)]
    pub(crate) per_replica: bool,

    /// The optimizer's device.
    #[arg(long, value_enum, default_value_t = DeviceChoice::Flex)]
    pub(crate) device: DeviceChoice,

    /// Epochs.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) epochs: u32,

    /// Images in a batch, which is split over the workers.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(2..=1437))]
    pub(crate) batch_size: u32,

    /// Seconds that a worker may take for a pass.
    #[arg(long, default_value = "60", value_parser = seconds)]
    pub(crate) timeout: Duration,
}

/// Where to compute.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum DeviceChoice {
    /// Burn's CPU backend.
    Flex,
    /// Burn's default wgpu device.
    Wgpu,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err(format!("{seconds} must be finite and above 0")),
    }
}
