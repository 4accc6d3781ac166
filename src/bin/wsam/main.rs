//! The command `wsam`: what this machine's adapters are and how fast they take WSAM's kernels,
//! whether they compute what the authors' code computes, and pictures of both.

mod adapters;
mod bench;
mod check;
mod error;
mod options;
mod parameters;
mod plot;
mod scaling;
#[cfg(feature = "burn")]
mod tensor_ops;
mod timing;
mod toy;
mod tune;

/// The golden reader, the replay and the engine's routes are those of the tests.
#[path = "../../../tests/common"]
#[allow(dead_code, unreachable_pub)]
mod replayed {
    pub mod adapters;
    pub mod bound;
    #[cfg(feature = "burn")]
    pub mod burned;
    pub mod golden;
    pub mod lean;
    pub mod raw;
    pub mod replay;
    pub mod toy;
}

/// The parameter sets, the steps over them and the copy are those of the benchmarks.
#[path = "../../../benches/common"]
#[allow(dead_code)]
mod measured {
    #[cfg(feature = "burn")]
    pub(crate) mod burned;
    pub(crate) mod copy;
    pub(crate) mod raw;
    pub(crate) mod rows;
    pub(crate) mod sets;
    pub(crate) mod stages;
}

use clap::Parser;
use options::{Command, Options};
use std::process::ExitCode;

fn main() -> ExitCode {
    let done = match Options::parse().command {
        Command::Adapters(options) => adapters::list(&options),
        Command::Check(options) => check::check(&options),
        Command::Bench(options) => bench::bench(&options),
        Command::Scaling(options) => scaling::scaling(&options),
        Command::Tune(options) => tune::tune(&options),
        Command::Toy(options) => toy::toy(&options),
        Command::Plot(options) => plot::again(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wsam: {error}");
            error.exit_code()
        }
    }
}
