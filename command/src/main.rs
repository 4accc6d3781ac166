//! The command `wsam`: lists this machine's adapters, checks the WSAM kernels on them against the golden
//! files, times the kernels, and draws the results.
//!
//! Results go to standard output, remarks and errors to standard error. The exit code is
//!
//! - 0 on success;
//! - 1 if a check, a measurement or an input file failed. Earlier measurements are printed, and each failure is
//!   named;
//! - 2 for bad arguments;
//! - 3 if no adapter was found, or none with the name or backend that was asked for;
//! - 4 if the results could not be written to standard output or to the picture, as on a full disk;
//! - 141 if the reader of standard output closed it, as in `wsam adapters | head -1`. This is the code that a
//!   shell shows for a program that SIGPIPE ended. No message is printed.

// `println!` and `eprintln!` panic if they cannot write. Only `output` prints.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod adapters;
mod bench;
mod check;
mod compare;
mod environment;
mod error;
mod method;
mod options;
mod output;
mod parameters;
mod picture;
mod plot;
mod read;
mod results;
mod scaling;
#[cfg(feature = "burn")]
mod tensor_ops;
mod timing;
mod toy;
mod tune;
mod tuned;

use clap::Parser;
use error::Error;
use options::{Command, Options};
use std::process::ExitCode;

fn main() -> ExitCode {
    let done = match Options::try_parse() {
        Ok(options) => run(options.command),
        Err(message) => match output::clap(&message) {
            Ok(()) => return ExitCode::from(if message.use_stderr() { 2 } else { 0 }),
            Err(error) => Err(error),
        },
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.is_quiet() {
                output::note(format_args!("wsam: {error}"));
            }
            error.exit_code()
        }
    }
}

fn run(command: Command) -> Result<(), Error> {
    match command {
        Command::Adapters(options) => adapters::list(&options),
        Command::Check(options) => check::check(&options),
        Command::Bench(options) => bench::bench(&options),
        Command::Scaling(options) => scaling::scaling(&options),
        Command::Tune(options) => tune::tune(&options),
        Command::Toy(options) => toy::toy(&options),
        Command::Plot(options) => plot::plot(&options),
    }
}
