//! Copies of record data that do not depend on the file or memory they were read from.

use super::names::failed;
use crate::optim::error::WsamError;
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
    // Check the header first, so that a large file that is not a record is rejected without reading it.
    drop(Reader::from_file_exact(&path).map_err(failed)?);
    let bytes = std::fs::read(&path)
        .map_err(|error| failed(format!("cannot read {}: {error}", path.display())))?;
    Ok(Bytes::from_bytes_vec(bytes))
}

/// Copies the data to its own memory. Burn reads data from a file lazily, and data from a record in memory keep
/// the whole record alive.
pub(in crate::optim) fn owned(data: TensorData) -> Result<TensorData, WsamError> {
    let (bytes, shape, dtype) = data.into_parts();
    let copy = bytes.read(Default::default());
    let copy = copy.map_err(|error| failed(format!("{error:?}")))?.to_vec();
    TensorData::try_from_bytes(Bytes::from_bytes_vec(copy), shape, dtype).map_err(failed)
}
