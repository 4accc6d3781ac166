//! The command line.

use crate::error::EXIT_CODES;
use crate::parameters::Parameters;
use crate::plot::Picture;
use burn_wsam::layout::WORKGROUPS;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// WSAM on this machine: its adapters, whether they compute it right, and how fast.
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

/// List the adapters, the limits that matter, and the route that each would take.
#[derive(Args, Debug)]
pub(crate) struct AdaptersOptions {
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Replay the golden trajectories, recorded from the authors' code, on this machine's adapters.
///
/// Run this first on a new card. For each file it prints the worst error, as a share of what is
/// allowed.
#[derive(Args, Debug)]
pub(crate) struct CheckOptions {
    /// A folder of golden files, in place of those that come with the command.
    #[arg(long, value_name = "DIR")]
    pub(crate) golden: Option<PathBuf>,

    /// Part of an adapter's name; `all`; or `best`, the one that wgpu prefers.
    #[arg(long, value_name = "NAME", default_value = "all")]
    pub(crate) adapter: String,
}

/// Time the kernels, each stage by itself and whole steps, beside a plain copy.
///
/// Stages are timed by timestamps on the device. A step is recorded, submitted and waited for in
/// two halves, as they would run between backward passes. Times are medians with their quartiles.
#[derive(Args, Debug)]
pub(crate) struct BenchOptions {
    /// Part of an adapter's name; `all`; or `best`, the one that wgpu prefers.
    #[arg(long, value_name = "NAME", default_value = "best")]
    pub(crate) adapter: String,

    /// Whose parameters: resnet50, resnet18, vit, gpt2, thousand (1000 tensors of 1000), one (134 M
    /// in one tensor), or a text file with one tensor a line, as 64x3x7x7 or 1000; /dev/stdin and other
    /// pipes will do.
    #[arg(long, value_name = "SET", value_delimiter = ',', default_value = "resnet50")]
    pub(crate) params: Vec<Parameters>,

    /// Time the same step in Burn's tensor operations on the same adapter, too.
    #[cfg(feature = "burn")]
    #[arg(long)]
    pub(crate) tensor_ops: bool,

    #[command(flatten)]
    pub(crate) step: StepOptions,

    #[command(flatten)]
    pub(crate) output: OutputOptions,
}

/// Time whole steps against the number of parameters, and against that of tensors.
#[derive(Args, Debug)]
pub(crate) struct ScalingOptions {
    /// Part of an adapter's name; `all`; or `best`, the one that wgpu prefers.
    #[arg(long, value_name = "NAME", default_value = "best")]
    pub(crate) adapter: String,

    /// The most parameters, in millions.
    #[arg(long, value_name = "M", default_value_t = 64,
        value_parser = clap::value_parser!(u64).range(1..=4096))]
    pub(crate) max_params: u64,

    #[command(flatten)]
    pub(crate) step: StepOptions,

    #[command(flatten)]
    pub(crate) output: OutputOptions,
}

/// Time whole steps in several tunings, in turns, beside a plain copy, and name the fastest: for
/// `Engine::with_tuning`.
#[derive(Args, Debug)]
pub(crate) struct TuneOptions {
    /// Part of an adapter's name; `all`; or `best`, the one that wgpu prefers.
    #[arg(long, value_name = "NAME", default_value = "best")]
    pub(crate) adapter: String,

    /// Whose parameters, as in `bench`.
    #[arg(long, value_name = "SET", default_value = "resnet50")]
    pub(crate) params: Parameters,

    /// Invocations in a workgroup.
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = WORKGROUPS)]
    pub(crate) workgroup: Vec<u32>,

    /// Elements that a workgroup of an ascent or descent owns.
    #[arg(long, value_name = "N", value_delimiter = ',',
        default_values_t = [4096, 8192, 16_384, 32_768])]
    pub(crate) chunk_len: Vec<u32>,

    /// The most elements that a workgroup of a norm owns; without it the adapter's own, rounded up to
    /// whole chunks.
    #[arg(long, value_name = "N")]
    pub(crate) max_norm_chunk_len: Option<u32>,

    #[command(flatten)]
    pub(crate) step: StepOptions,

    /// Print JSON in place of the table.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which step to time, and how long.
#[derive(Args, Debug)]
pub(crate) struct StepOptions {
    /// The base optimizer.
    #[arg(long, value_enum, default_value_t = BaseChoice::Momentum)]
    pub(crate) base: BaseChoice,

    /// The form of the step.
    #[arg(long, value_enum, default_value_t = Mode::Decoupled)]
    pub(crate) mode: Mode,

    /// Seconds to time each thing for; at least ten times it runs in any case.
    #[arg(long, value_name = "S", default_value_t = 1.0, value_parser = seconds)]
    pub(crate) seconds: f64,
}

/// What to do with the numbers.
#[derive(Args, Debug)]
pub(crate) struct OutputOptions {
    /// Print JSON in place of the table.
    #[arg(long)]
    pub(crate) json: bool,

    /// Draw them, as SVG or PNG by the file's ending.
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<Picture>,
}

/// Draw the paper's two-basin example: the paths of the base optimizer, SAM and WSAM.
#[derive(Args, Debug)]
pub(crate) struct ToyOptions {
    /// Where to draw it, as SVG or PNG by the file's ending.
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<Picture>,

    /// Walk on the engine of this adapter (part of its name, or `best`), in `f32`; without it the
    /// `f64` oracle walks.
    #[arg(long, value_name = "NAME")]
    pub(crate) adapter: Option<String>,
}

/// Draw reports that `bench --json` or `scaling --json` printed, or `cargo bench` left.
#[derive(Args, Debug)]
pub(crate) struct PlotOptions {
    /// JSON reports of one kind.
    #[arg(required = true, value_name = "REPORT")]
    pub(crate) reports: Vec<PathBuf>,

    /// Where to draw, as SVG or PNG by the file's ending.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Picture,

    /// Only this parameter set, by its name in the report; may be given more than once.
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

/// The form of the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// The paper's default: the sharpness beside the base step.
    Decoupled,
    /// The sharpness through the base optimizer.
    Coupled,
    /// The decoupled form that keeps no gradient through the second pass.
    Lean,
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
    fn clap_finds_no_contradiction() {
        Options::command().debug_assert();
    }
}
