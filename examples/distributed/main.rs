//! Trains handwritten digits with WSAM on several machines. See README.md in this folder.

mod options;
mod serve;
mod train;

use burn::tensor::Device;
use clap::Parser;
use options::{Command, DeviceChoice, Options};
use std::error::Error;
use std::process::ExitCode;

fn main() -> ExitCode {
    let done = match Options::parse().command {
        Command::Serve(options) => serve::serve(&options),
        Command::Train(options) => train::train(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The chosen device, without autodiff.
fn device(choice: DeviceChoice) -> Result<Device, Box<dyn Error>> {
    match choice {
        DeviceChoice::Flex => Ok(Device::flex()),
        DeviceChoice::Wgpu => wgpu(),
    }
}

#[cfg(feature = "fused-wsam")]
fn wgpu() -> Result<Device, Box<dyn Error>> {
    Ok(burn_wsam::device()?)
}

#[cfg(not(feature = "fused-wsam"))]
fn wgpu() -> Result<Device, Box<dyn Error>> {
    Err("--device wgpu needs the feature fused-wsam".into())
}
