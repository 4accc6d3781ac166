//! What can go wrong, and the exit code it ends in.

use burn_wsam::engine::EngineError;
use std::path::PathBuf;
use std::process::ExitCode;

/// Shown to the user after `wsam: `.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "no Vulkan, Metal or DX12 adapter was found; a software adapter comes with a Vulkan driver \
         (Debian: apt install mesa-vulkan-drivers)"
    )]
    NoAdapter,
    #[error("no adapter has {wanted:?} in its name; there are {}", found.join(", "))]
    NoSuchAdapter { wanted: String, found: Vec<String> },
    #[error("{adapter}: {source}")]
    Engine { adapter: String, source: EngineError },
    #[cfg(feature = "burn")]
    #[error("{adapter}: {reason}")]
    Burn { adapter: String, reason: String },
    #[error("{0}")]
    Golden(String),
    #[error("{failed} of {all} replays failed")]
    Check { failed: usize, all: usize },
    #[error("{}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}: {source}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
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
}

impl Error {
    /// 3 if there is no adapter to work on, else 1. (2 is clap's, for bad arguments.)
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::NoAdapter | Self::NoSuchAdapter { .. } => ExitCode::from(3),
            _ => ExitCode::FAILURE,
        }
    }
}
