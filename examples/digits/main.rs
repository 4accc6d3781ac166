//! Trains handwritten digits with the base optimizer, SAM and WSAM. See README.md in this folder.

mod optimizer;
mod options;
mod place;
mod report;
mod train;

use burn_wsam::WsamError;
use burn_wsam_support::digits::model::Network;
use clap::Parser;
use optimizer::Optimizer;
use options::{Method, Options};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// Errors of the example.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("--batch-size is {batch_size}, but there are {images} images to train on")]
    BatchSize { batch_size: usize, images: usize },
    #[error("--lr is {0}, but it must be finite and above 0")]
    LearningRate(f64),
    #[error("no usable GPU adapter: {0}; {hint}", hint = place::DRIVER_HINT)]
    NoAdapter(String),
    #[error(
        "{name} diverged in epoch {epoch}: its loss is not finite; try a smaller --lr or --rho"
    )]
    Diverged { name: &'static str, epoch: u32 },
    #[error(transparent)]
    Wsam(#[from] WsamError),
    #[error("the device failed: {0}")]
    Device(String),
    #[error("could not write the output: {0}")]
    Output(#[from] io::Error),
    #[error("could not write {path:?}: {error}")]
    Json { path: PathBuf, error: io::Error },
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

fn run(options: &Options) -> Result<(), Error> {
    let start = Instant::now();
    let mut out = io::stdout();
    let place = place::open(options.device, options.route.into())?;
    writeln!(out, "{}", place.headline)?;
    let gamma = if options.coupled { "coupled" } else { "decoupled" };
    writeln!(
        out,
        "Settings: {}, lr {}, rho {}, gamma {} ({gamma}), {} epochs of batches of {}, seed {}\n",
        options.name(Method::Base),
        options.lr()?,
        options.rho,
        options.gamma,
        options.epochs,
        options.batch_size,
        options.seed,
    )?;
    // Creates all optimizers before the first training, so that an invalid value fails at once.
    let optimizers: Vec<_> = options
        .optimizers
        .iter()
        .map(|method| Ok((options.name(*method), Optimizer::new(*method, options, &place.device)?)))
        .collect::<Result<_, Error>>()?;
    let initial = Network::new(options.seed, &place.device);
    let outcomes: Vec<_> = optimizers
        .into_iter()
        .map(|(name, optimizer)| train::train(name, optimizer, options, &place, &initial))
        .collect::<Result<_, _>>()?;
    report::table(&mut out, &outcomes, &place.adapter)?;
    writeln!(out, "\nTrained in {:.0} s.", start.elapsed().as_secs_f64())?;
    if let Some(path) = &options.json {
        let text = format!("{:#}\n", report::json(&outcomes, &place.adapter));
        std::fs::write(path, text).map_err(|error| Error::Json { path: path.clone(), error })?;
    }
    Ok(())
}
