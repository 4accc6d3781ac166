//! What can go wrong, and the exit code it ends in.

use burn_wsam::engine::EngineError;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

/// The exit codes, as the help lists them.
pub(crate) const EXIT_CODES: &str = "Exit codes:
  0    success
  1    a check, a measurement or an input file failed; what was measured before is printed
  2    bad arguments
  3    no adapter was found, or none of that name or backend
  4    the results could not be written to standard output or to the picture, as on a full disk
  141  the reader of standard output closed it, as in `wsam adapters | head -1`; no message";

/// Shown to the user after `wsam: `.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "no Vulkan, Metal or DX12 adapter was found; a software adapter comes with a Vulkan driver \
         (Debian: apt install mesa-vulkan-drivers){}",
        also(hints)
    )]
    NoAdapter { hints: Vec<String> },
    #[error("no adapter has {wanted:?} in its name; there are {}{}", found.join(", "), also(hints))]
    NoSuchAdapter { wanted: String, found: Vec<String>, hints: Vec<String> },
    #[error("{0}")]
    Backend(String),
    /// At an adapter, and the parameter set where there is one.
    #[error("{at}: {source}")]
    Engine { at: String, source: EngineError },
    #[cfg(feature = "burn")]
    #[error("{at}: {reason}")]
    Burn { at: String, reason: String },
    #[error("{at}: the work on it panicked: {reason}")]
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
    #[error("standard output: its reader closed it")]
    ClosedPipe,
    #[error("{}, line {line}: {text:?} is no tensor, which is written as 64x3x7x7 or 1000", path.display())]
    Shape { path: PathBuf, line: usize, text: String },
    #[error("{}: there is no tensor in it", path.display())]
    NoTensors { path: PathBuf },
    #[error(
        "{set}: {bytes} bytes a role are more than the largest buffer of {adapter}, \
         {largest} bytes"
    )]
    TooLarge { set: String, bytes: u64, adapter: String, largest: u64 },
    #[error("{set}: {adapter} has no memory for it: {reason}")]
    Memory { set: String, adapter: String, reason: String },
    #[error("{}: {reason}", path.display())]
    Report { path: PathBuf, reason: String },
    #[error("the picture could not be drawn: {0}")]
    Plot(String),
    /// Each is shown after a `wsam: ` of its own.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\nwsam: "))]
    Several(Vec<Error>),
}

/// What may be the reason, after the message.
fn also(hints: &[String]) -> String {
    hints.iter().map(|hint| format!("; {hint}")).collect()
}

impl Error {
    /// What became of a write to standard output.
    pub(crate) fn output(source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::BrokenPipe => Self::ClosedPipe,
            _ => Self::Output(source),
        }
    }

    /// All failures as one error; none is `Ok`.
    pub(crate) fn all(mut failures: Vec<Self>) -> Result<(), Self> {
        // A closed pipe needs no message, and the code of any other failure tells more.
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

    /// Whether it ends the command without a message, as it ends other commands of a pipeline.
    pub(crate) fn is_quiet(&self) -> bool {
        matches!(self, Self::ClosedPipe)
    }

    /// As [`EXIT_CODES`] lists them. 2 is clap's.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::NoAdapter { .. } | Self::NoSuchAdapter { .. } | Self::Backend(_) => {
                ExitCode::from(3)
            }
            Self::Output(_) | Self::Write { .. } => ExitCode::from(4),
            // 128 and the number of SIGPIPE: what a shell shows for a program that the signal ended.
            Self::ClosedPipe => ExitCode::from(141),
            _ => ExitCode::FAILURE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Error;

    #[test]
    fn failures_are_told_together() {
        let plot = |what: &str| Error::Plot(what.to_owned());
        let all = |failures| Error::all(failures).map_err(|error| error.to_string());
        assert_eq!(all(vec![]), Ok(()));
        let one = "the picture could not be drawn: a";
        assert_eq!(all(vec![plot("a")]), Err(one.to_owned()));
        // A closed pipe is no news beside another failure.
        assert_eq!(all(vec![plot("a"), Error::ClosedPipe]), Err(one.to_owned()));
        let two = format!("{one}\nwsam: the picture could not be drawn: b");
        assert_eq!(all(vec![plot("a"), plot("b")]), Err(two));
        assert!(matches!(Error::all(vec![Error::ClosedPipe]), Err(Error::ClosedPipe)));
    }
}
