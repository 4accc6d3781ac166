//! Reading text files.

use crate::error::Error;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Largest text that is read, in bytes. Without a limit, a device such as /dev/zero would be read until memory
/// is full.
const MAX_BYTES: u64 = 64 << 20;

/// Reads a UTF-8 text from a file, pipe or device, and removes the byte order mark that some editors and shells
/// write.
pub(crate) fn text(path: &Path) -> Result<String, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text))
        .map_err(failed)?;
    if text.len() as u64 > MAX_BYTES {
        let reason = format!("more than {MAX_BYTES} bytes of text");
        return Err(failed(io::Error::new(io::ErrorKind::FileTooLarge, reason)));
    }
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    Ok(text)
}
