//! Everything that the command prints: results on standard output, remarks and errors on standard
//! error.
//!
//! `print!` and `eprintln!` panic where the reader of a pipe is gone or a disk is full, so nothing
//! else in the command uses them.

use crate::error::Error;
use std::fmt::Arguments;
use std::io::{self, Write};

/// Writes a result and the end of its line to standard output.
///
/// # Errors
///
/// [`Error::ClosedPipe`] or [`Error::Output`], if it cannot be written.
pub(crate) fn line(text: Arguments<'_>) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    // Flushed here: what is written at the end of the process reports no errors.
    let written = writeln!(out, "{text}").and_then(|()| out.flush());
    written.map_err(Error::output)
}

/// Writes what clap has to say: help and the version to standard output, complaints to standard error.
///
/// # Errors
///
/// As [`line()`] for standard output. Complaints are written as by [`note()`].
pub(crate) fn clap(message: &clap::Error) -> Result<(), Error> {
    let printed = message.print().and_then(|()| io::stdout().flush());
    if message.use_stderr() { Ok(()) } else { printed.map_err(Error::output) }
}

/// Writes a remark and the end of its line to standard error.
///
/// If that cannot be written, there is no other place to report it; the exit code tells how the command
/// ended in any case.
pub(crate) fn note(text: Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
