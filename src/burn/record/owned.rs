//! Bytes that belong to the optimizer, whatever becomes of the file or the memory that they came from.

use super::failed;
use crate::burn::error::WsamError;
use burn::tensor::{Bytes, TensorData};
use burn_pack::Reader;
use std::path::Path;

/// A burnpack file in memory. As in Burn, `.bpk` is appended to a path without extension, unless that is a
/// file.
pub(super) fn file(path: &Path) -> Result<Bytes, WsamError> {
    let has_no_extension = path.extension().is_none() && !path.exists();
    let path = if has_no_extension {
        path.with_extension(burn_pack::EXTENSION)
    } else {
        path.to_path_buf()
    };
    // What is no record, and may be of any length, is refused by its first bytes.
    drop(Reader::from_file_exact(&path).map_err(failed)?);
    let bytes = std::fs::read(&path)
        .map_err(|error| failed(format!("cannot read {}: {error}", path.display())))?;
    Ok(Bytes::from_bytes_vec(bytes))
}

/// The data in memory of its own. Burn reads what it has from a file when somebody looks at it, and data out
/// of a record in memory share the memory of the whole record.
pub(in crate::burn) fn owned(data: TensorData) -> Result<TensorData, WsamError> {
    let (bytes, shape, dtype) = data.into_parts();
    let copy = bytes.read(Default::default());
    let copy = copy.map_err(|error| failed(format!("{error:?}")))?.to_vec();
    TensorData::try_from_bytes(Bytes::from_bytes_vec(copy), shape, dtype).map_err(failed)
}
