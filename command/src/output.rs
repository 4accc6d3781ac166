//! Printing: results to standard output, remarks and errors to standard error.
//!
//! `println!` and `eprintln!` panic if the reader of a pipe is gone or a disk is full, so the command uses the
//! functions of this module instead.

use crate::error::Error;
use std::fmt::Arguments;
use std::io::{self, Write};

/// Writes a line to standard output.
///
/// # Errors
///
/// [`Error::ClosedPipe`] or [`Error::Output`], if it cannot be written.
pub(crate) fn line(text: Arguments<'_>) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    // Flushed here, because errors of the flush at the end of the process are lost.
    let written = writeln!(out, "{text}").and_then(|()| out.flush());
    written.map_err(Error::output)
}

/// Writes a message of clap: help and version to standard output, errors to standard error.
///
/// # Errors
///
/// As [`line()`] for standard output. Failures to write to standard error are ignored, as by [`note()`].
pub(crate) fn clap(message: &clap::Error) -> Result<(), Error> {
    let printed = message.print().and_then(|()| io::stdout().flush());
    if message.use_stderr() { Ok(()) } else { printed.map_err(Error::output) }
}

/// Writes a line to standard error.
///
/// A failure is ignored: it cannot be reported anywhere else, and the exit code does not depend on it.
pub(crate) fn note(text: Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
