//! The command line.

use crate::error::EXIT_CODES;
use crate::parameters::Parameters;
use crate::picture::Picture;
use burn_wsam::layout::WORKGROUPS;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Lists adapters, checks the WSAM kernels on them, and times the kernels.
#[derive(Parser, Debug)]
#[command(name = "wsam", version, after_help = EXIT_CODES)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    Adapters(AdaptersOptions),
    Check(CheckOptions),
    Bench(BenchOptions),
    Scaling(ScalingOptions),
    Tune(TuneOptions),
    Toy(ToyOptions),
    Plot(PlotOptions),
}

/// List the adapters, the limits that the kernels depend on, and the route that steps take on each.
#[derive(Args, Debug)]
pub(crate) struct AdaptersOptions {
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Check the kernels against the golden files, which were recorded from the authors' code.
///
/// Run this first on a new GPU. For each file it prints the largest error, as a share of the error that is
/// allowed.
#[derive(Args, Debug)]
pub(crate) struct CheckOptions {
    /// Folder of golden files; by default the files that are compiled into the command.
    #[arg(long, value_name = "DIR")]
    pub(crate) golden: Option<PathBuf>,

    /// Part of an adapter's name, `all`, or `best` for the adapter that wgpu prefers.
    #[arg(long, value_name = "NAME", default_value = "all")]
    pub(crate) adapter: String,
}

/// Time each stage, whole steps, and a plain copy to compare with.
///
/// Stages and the copy are timed by timestamps on the device; without them the copy and the two phases are timed by the
/// host's clock, with submission and wait. Whole steps are timed with a wait after each phase, and pipelined: recorded and
/// submitted one after another, as a training loop does, with one wait at the end. Times are medians with quartiles.
#[derive(Args, Debug)]
pub(crate) struct BenchOptions {
    /// Part of an adapter's name, `all`, or `best` for the adapter that wgpu prefers.
    #[arg(long, value_name = "NAME", default_value = "best")]
    pub(crate) adapter: String,

    /// Parameter set: resnet50, resnet18, vit, gpt2, thousand (1000 tensors of 1000 elements), one (134 M
    /// elements in one tensor), or a text file or pipe, such as /dev/stdin, with one tensor per line, as
    /// 64x3x7x7 or 1000.
    #[arg(long, value_name = "SET", value_delimiter = ',', default_value = "resnet50")]
    pub(crate) params: Vec<Parameters>,

    /// Also print this run's times next to those of a report that `--json` has written on the same adapter.
    #[arg(long, value_name = "FILE")]
    pub(crate) compare: Option<PathBuf>,

    /// Also time the same step in Burn's tensor operations on the same adapter.
    #[cfg(feature = "burn")]
    #[arg(long)]
    pub(crate) tensor_ops: bool,

    #[command(flatten)]
    pub(crate) step: StepOptions,

    #[command(flatten)]
    pub(crate) output: OutputOptions,
}

/// Time whole steps, pipelined and with a wait after each phase, for increasing numbers of parameters and of tensors.
#[derive(Args, Debug)]
pub(crate) struct ScalingOptions {
    /// Part of an adapter's name, `all`, or `best` for the adapter that wgpu prefers.
    #[arg(long, value_name = "NAME", default_value = "best")]
    pub(crate) adapter: String,

    /// Largest number of parameters, in units of 1,048,576.
    #[arg(long, value_name = "M", default_value_t = 64,
        value_parser = clap::value_parser!(u64).range(1..=4096))]
    pub(crate) max_params: u64,

    #[command(flatten)]
    pub(crate) step: StepOptions,

    #[command(flatten)]
    pub(crate) output: OutputOptions,
}

/// Time whole steps with several tunings, interleaved, and name the fastest when pipelined, for `Engine::with_tuning`.
#[derive(Args, Debug)]
pub(crate) struct TuneOptions {
    /// Part of an adapter's name, `all`, or `best` for the adapter that wgpu prefers.
    #[arg(long, value_name = "NAME", default_value = "best")]
    pub(crate) adapter: String,

    /// Parameter set, as for `bench`.
    #[arg(long, value_name = "SET", default_value = "resnet50")]
    pub(crate) params: Parameters,

    /// Workgroup sizes.
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = WORKGROUPS)]
    pub(crate) workgroup: Vec<u32>,

    /// Elements that one workgroup of an ascent or descent processes.
    #[arg(long, value_name = "N", value_delimiter = ',',
        default_values_t = [4096, 8192, 16_384, 32_768])]
    pub(crate) chunk_len: Vec<u32>,

    /// Largest number of elements that one workgroup of a norm processes; by default the adapter's value,
    /// rounded up to a multiple of the chunk length.
    #[arg(long, value_name = "N")]
    pub(crate) max_norm_chunk_len: Option<u32>,

    #[command(flatten)]
    pub(crate) step: StepOptions,

    /// Print JSON in place of the table.
    #[arg(long)]
    pub(crate) json: bool,
}

/// The step to time, and for how long.
#[derive(Args, Debug)]
pub(crate) struct StepOptions {
    /// Base optimizer.
    #[arg(long, value_enum, default_value_t = BaseChoice::Momentum)]
    pub(crate) base: BaseChoice,

    /// Form of WSAM's step. Other methods have one form.
    #[arg(long, value_enum, default_value_t = Mode::Decoupled)]
    pub(crate) mode: Mode,

    /// Method whose step is timed.
    #[arg(long, value_enum, default_value_t = MethodChoice::Wsam)]
    pub(crate) method: MethodChoice,

    /// Seconds to time each row for; each runs at least ten times.
    #[arg(long, value_name = "S", default_value_t = 1.0, value_parser = seconds)]
    pub(crate) seconds: f64,
}

/// Where the results go.
#[derive(Args, Debug)]
pub(crate) struct OutputOptions {
    /// Print JSON in place of the table.
    #[arg(long)]
    pub(crate) json: bool,

    /// Also draw the results to this file, .svg or .png.
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<Picture>,
}

/// Run the paper's two-basin example with the base optimizer, SAM and WSAM.
#[derive(Args, Debug)]
pub(crate) struct ToyOptions {
    /// Draw the paths to this file, .svg or .png.
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<Picture>,

    /// Also run these methods; by default the paper's runs alone.
    #[arg(long, value_name = "METHOD", value_delimiter = ',')]
    pub(crate) method: Vec<ToyMethod>,

    /// Run in `f32` on the engine of this adapter (part of its name, or `best`); by default in `f64` by the
    /// reference implementation.
    #[arg(long, value_name = "NAME")]
    pub(crate) adapter: Option<String>,
}

/// Draw saved reports of `bench --json`, `scaling --json` or `cargo bench`.
#[derive(Args, Debug)]
pub(crate) struct PlotOptions {
    /// JSON reports, all of kernels or all of scaling.
    #[arg(required = true, value_name = "REPORT")]
    pub(crate) reports: Vec<PathBuf>,

    /// File to draw to, .svg or .png.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Picture,

    /// Draw only this parameter set, by its name in the report; may be given several times.
    #[arg(long, value_name = "SET")]
    pub(crate) set: Vec<String>,
}

/// The base optimizer.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum BaseChoice {
    /// Plain SGD.
    Sgd,
    /// SGD with momentum 0.9 and weight decay.
    Momentum,
    /// AdamW.
    #[value(name = "adamw")]
    AdamW,
}

/// A method to run on the two-basin example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ToyMethod {
    /// GSAM, alpha 0.4.
    Gsam,
    /// Friendly-SAM, sigma 1 and lambda 0.6.
    Friendly,
    /// LookSAM, alpha 0.7 and k 5.
    Looksam,
    /// Momentum-SAM.
    Msam,
}

/// The method whose step is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum MethodChoice {
    /// WSAM.
    Wsam,
    /// GSAM.
    Gsam,
    /// Friendly-SAM.
    Friendly,
    /// LookSAM's SAM step.
    Looksam,
    /// LookSAM's step between its SAM steps.
    LooksamBetween,
    /// Momentum-SAM.
    Msam,
}

/// The form of the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// The paper's default: the sharpness term is subtracted separately from the base step.
    Decoupled,
    /// The sharpness term goes through the base optimizer.
    Coupled,
    /// The decoupled form in lean mode, which keeps no gradient through the second pass.
    Lean,
}

impl Mode {
    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Decoupled => "decoupled",
            Self::Coupled => "coupled",
            Self::Lean => "lean",
        }
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if value > 0.0 && value <= 600.0 { Ok(value) } else { Err("not in (0, 600]".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::Options;
    use clap::CommandFactory;

    #[test]
    fn options_are_consistent() {
        Options::command().debug_assert();
    }
}
