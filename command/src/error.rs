//! The command's errors and their exit codes.

use burn_wsam::engine::EngineError;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

/// The exit codes, as the help lists them.
pub(crate) const EXIT_CODES: &str = "Exit codes:
  0    success
  1    a check, a measurement or an input file failed; earlier measurements are printed
  2    bad arguments
  3    no adapter was found, or none with that name or backend
  4    the results could not be written to standard output or to the picture, as on a full disk
  141  the reader of standard output closed it, as in `wsam adapters | head -1`; no message";

/// An error of the command. Its message is printed after `wsam: `.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "no Vulkan, Metal or DX12 adapter was found; mesa-vulkan-drivers (on Debian: apt install \
         mesa-vulkan-drivers) provides a software adapter{}",
        also(hints)
    )]
    NoAdapter { hints: Vec<String> },
    #[error("no adapter has {wanted:?} in its name; found: {}{}", found.join(", "), also(hints))]
    NoSuchAdapter { wanted: String, found: Vec<String>, hints: Vec<String> },
    #[error("{0}")]
    Backend(String),
    /// Options that make no sense together.
    #[error("{reason}")]
    Options { reason: String },
    /// `at` names the adapter, and the parameter set if there is one.
    #[error("{at}: {source}")]
    Engine { at: String, source: EngineError },
    #[cfg(feature = "burn")]
    #[error("{at}: {reason}")]
    Burn { at: String, reason: String },
    #[error("{at}: panicked: {reason}")]
    Panicked { at: String, reason: String },
    #[error("{0}")]
    Golden(String),
    #[error("{failed} of {all} replays failed")]
    Check { failed: usize, all: usize },
    #[error("{}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("standard output: {0}")]
    Output(io::Error),
    #[error("standard output was closed by its reader")]
    ClosedPipe,
    #[error("{}, line {line}: {text:?} is not a tensor shape, such as 64x3x7x7 or 1000", path.display())]
    Shape { path: PathBuf, line: usize, text: String },
    #[error("{}: no tensor shape found", path.display())]
    NoTensors { path: PathBuf },
    #[error(
        "{set}: buffers of {bytes} bytes are more than the largest buffer of {adapter}, {largest} \
         bytes; choose smaller --params"
    )]
    TooLarge { set: String, bytes: u64, adapter: String, largest: u64 },
    #[error("{set}: does not fit the memory of {adapter}: {reason}")]
    Memory { set: String, adapter: String, reason: String },
    #[error("{}: {reason}", path.display())]
    Report { path: PathBuf, reason: String },
    #[error("the picture could not be drawn: {0}")]
    Plot(String),
    /// Each message is printed after its own `wsam: `.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\nwsam: "))]
    Several(Vec<Error>),
}

/// Formats possible reasons to append to a message.
fn also(hints: &[String]) -> String {
    hints.iter().map(|hint| format!("; {hint}")).collect()
}

impl Error {
    /// The error for a failed write to standard output.
    pub(crate) fn output(source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::BrokenPipe => Self::ClosedPipe,
            _ => Self::Output(source),
        }
    }

    /// Combines failures into one error; `Ok` if there are no failures.
    pub(crate) fn all(mut failures: Vec<Self>) -> Result<(), Self> {
        // A closed pipe has no message, and the exit code of any other failure says more.
        if failures.iter().any(|error| !error.is_quiet()) {
            failures.retain(|error| !error.is_quiet());
        }
        match (failures.pop(), failures.is_empty()) {
            (None, _) => Ok(()),
            (Some(error), true) => Err(error),
            (Some(last), false) => {
                failures.push(last);
                Err(Self::Several(failures))
            }
        }
    }

    /// Whether the command ends without a message, as other commands of a pipeline do.
    pub(crate) fn is_quiet(&self) -> bool {
        matches!(self, Self::ClosedPipe)
    }

    /// The exit code, as listed in [`EXIT_CODES`]. clap also returns 2.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Options { .. } => ExitCode::from(2),
            Self::NoAdapter { .. } | Self::NoSuchAdapter { .. } | Self::Backend(_) => {
                ExitCode::from(3)
            }
            Self::Output(_) | Self::Write { .. } => ExitCode::from(4),
            // 128 + SIGPIPE, which a shell shows for a program that the signal ended.
            Self::ClosedPipe => ExitCode::from(141),
            _ => ExitCode::FAILURE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Error;

    #[test]
    fn failures_are_combined() {
        let plot = |what: &str| Error::Plot(what.to_owned());
        let all = |failures| Error::all(failures).map_err(|error| error.to_string());
        assert_eq!(all(vec![]), Ok(()));
        let one = "the picture could not be drawn: a";
        assert_eq!(all(vec![plot("a")]), Err(one.to_owned()));
        // A closed pipe is not reported if there is another failure.
        assert_eq!(all(vec![plot("a"), Error::ClosedPipe]), Err(one.to_owned()));
        let two = format!("{one}\nwsam: the picture could not be drawn: b");
        assert_eq!(all(vec![plot("a"), plot("b")]), Err(two));
        assert!(matches!(Error::all(vec![Error::ClosedPipe]), Err(Error::ClosedPipe)));
    }
}
