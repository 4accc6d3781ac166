//! Text files that the user names.

use crate::error::Error;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// A text beyond this is a mistake. Without a limit, a device such as /dev/zero is read until memory is
/// full.
const LARGEST: u64 = 64 << 20;

/// A whole text in UTF-8, from a file, a pipe or a device, without the byte order mark that some
/// editors and shells put at its start.
pub(crate) fn text(path: &Path) -> Result<String, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(LARGEST + 1).read_to_string(&mut text))
        .map_err(failed)?;
    if text.len() as u64 > LARGEST {
        let reason = format!("more than {LARGEST} bytes of text");
        return Err(failed(io::Error::new(io::ErrorKind::FileTooLarge, reason)));
    }
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    Ok(text)
}
