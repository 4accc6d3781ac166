//! Compares SGD, SAM and WSAM on digits or MNIST under label noise: test accuracy, training loss, two
//! measures of sharpness and time, over several seeds. See README.md in this folder.

mod data;
mod options;
mod picture;
mod results;
mod surface;
mod train;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use options::Options;
use results::Results;
use std::process::ExitCode;

/// Errors of the example.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{path}: {reason}")]
    File { path: String, reason: String },
    #[error(transparent)]
    Step(#[from] burn_wsam::WsamError),
    #[error(transparent)]
    Sharpness(#[from] burn_wsam::sharpness::SharpnessError),
    #[error("the picture could not be drawn: {0}")]
    Picture(String),
    #[error("{0}")]
    Device(String),
}

impl Error {
    fn file(path: &std::path::Path, reason: impl ToString) -> Self {
        Self::File { path: path.display().to_string(), reason: reason.to_string() }
    }
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("generalization: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Error> {
    let sets = data::load(options)?;
    let trials = options.trials();
    let mut results = Results::open(options)?;
    let progress = progress(trials.len());
    for trial in &trials {
        progress.set_message(trial.to_string());
        // Trainings of an earlier, interrupted run are not repeated.
        if !results.has(trial) {
            results.add(trial, &train::train(trial, options, &sets)?)?;
        }
        progress.inc(1);
    }
    progress.finish_and_clear();
    let table = results.table(&trials);
    println!("{table}");
    results.write("table.md", &table)?;
    picture::draw(&results.folder().join("accuracy.svg"), &results, options)?;
    if options.surface {
        surface::draw(&results.folder().join("surface.svg"), options, &sets)?;
    }
    Ok(())
}

/// A progress bar, which is hidden if stderr is not a terminal.
fn progress(trials: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} trainings, {elapsed} {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(trials as u64).with_style(style)
}
