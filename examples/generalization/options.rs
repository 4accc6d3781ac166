//! The command line and its list of trainings.

use clap::{Parser, ValueEnum};
use std::fmt;
use std::path::PathBuf;

/// Trains a small net with base SGD, SAM and WSAM under symmetric label noise, over several seeds.
#[derive(Parser, Debug)]
#[command(name = "generalization")]
pub(crate) struct Options {
    /// The data set.
    #[arg(long, value_enum, default_value_t = Data::Digits)]
    pub(crate) data: Data,

    /// Folder of MNIST's IDX files, from scripts/mnist.sh.
    #[arg(long, value_name = "DIR", default_value = "target/mnist")]
    pub(crate) mnist: PathBuf,

    /// Shares of training labels that are replaced by wrong ones, in percent.
    #[arg(long, value_delimiter = ',', default_values_t = [0, 20, 40, 60],
        value_parser = clap::value_parser!(u32).range(0..=90))]
    pub(crate) noise: Vec<u32>,

    /// Trainings of each kind. A seed gives the same weights, order and noise to every method.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(crate) seeds: u64,

    /// Epochs of SAM and WSAM. The base optimizer is trained twice, for as many epochs and for twice as many,
    /// which takes the same number of gradients.
    #[arg(long, default_value_t = 80, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) epochs: u32,

    /// Images in a batch.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) batch_size: u32,

    /// Initial learning rate, which falls to zero along a cosine.
    #[arg(long, default_value_t = 0.05)]
    pub(crate) lr: f64,

    /// Radii of the perturbation.
    #[arg(long, value_delimiter = ',', default_values_t = [0.05, 0.2])]
    pub(crate) rho: Vec<f64>,

    /// Train every gamma of the paper's sweep, coupled and decoupled, instead of the methods.
    #[arg(long)]
    pub(crate) sweep: bool,

    /// Also draw the training loss around the minima of SGD, SAM and WSAM (gamma 0.9), with the first
    /// seed, the last noise and the last rho.
    #[arg(long)]
    pub(crate) surface: bool,

    /// Folder of the results. Trainings that it already contains are not repeated.
    #[arg(long, value_name = "DIR", default_value = "target/generalization")]
    pub(crate) out: PathBuf,
}

/// The data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Data {
    /// 1,797 handwritten digits of 8x8 pixels.
    Digits,
    /// 70,000 handwritten digits of 28x28 pixels.
    Mnist,
}

/// The optimizer of a training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Method {
    /// SGD alone.
    Base,
    /// WSAM. Coupled with gamma 1/2 it is SAM.
    Wsam { gamma: f64, rho: f64, decouple: bool },
}

/// One training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Trial {
    pub(crate) noise: u32,
    pub(crate) method: Method,
    pub(crate) epochs: u32,
    pub(crate) seed: u64,
}

impl Method {
    /// Number of gradients a step.
    pub(crate) fn gradients(self) -> u32 {
        if self == Self::Base { 1 } else { 2 }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Base => f.write_str("SGD"),
            Self::Wsam { gamma: 0.5, rho, decouple: false } => write!(f, "SAM rho {rho}"),
            Self::Wsam { gamma, rho, decouple } => {
                let form = if *decouple { "" } else { " coupled" };
                write!(f, "WSAM {gamma} rho {rho}{form}")
            }
        }
    }
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { noise, method, epochs, seed } = self;
        write!(f, "{noise} % noise, {method}, {epochs} epochs, seed {seed}")
    }
}

impl Options {
    /// All methods, with their numbers of epochs.
    fn methods(&self) -> Vec<(Method, u32)> {
        let epochs = self.epochs;
        let with = |gamma, decouple| {
            let method = move |rho: &f64| (Method::Wsam { gamma, rho: *rho, decouple }, epochs);
            self.rho.iter().map(method)
        };
        if self.sweep {
            let gammas = [0.0, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95];
            return [false, true]
                .into_iter()
                .flat_map(|decouple| gammas.map(|gamma| (gamma, decouple)))
                .flat_map(|(gamma, decouple)| with(gamma, decouple))
                .collect();
        }
        let mut methods = vec![(Method::Base, epochs), (Method::Base, 2 * epochs)];
        for (gamma, decouple) in [(0.5, false), (0.8, true), (0.9, true)] {
            methods.extend(with(gamma, decouple));
        }
        methods
    }

    /// The trainings whose loss surfaces `--surface` draws.
    pub(crate) fn surface_trials(&self) -> Vec<Trial> {
        let (Some(noise), Some(rho)) = (self.noise.last(), self.rho.last()) else {
            return Vec::new();
        };
        let with = |gamma, decouple| Method::Wsam { gamma, rho: *rho, decouple };
        [Method::Base, with(0.5, false), with(0.9, true)]
            .map(|method| Trial { noise: *noise, method, epochs: self.epochs, seed: 1 })
            .to_vec()
    }

    /// All trainings, ordered by seed, so that early results already allow a comparison.
    pub(crate) fn trials(&self) -> Vec<Trial> {
        let mut trials = Vec::new();
        for seed in 1..=self.seeds {
            for noise in self.noise.iter().copied() {
                let all = self.methods().into_iter();
                trials.extend(all.map(|(method, epochs)| Trial { noise, method, epochs, seed }));
            }
        }
        trials
    }
}
