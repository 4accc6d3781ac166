//! The parameter sets that `--params` selects.

use crate::error::Error;
use crate::read;
use burn_wsam_support::bench::sets::{self, Set};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Short names of the benchmarks' parameter sets.
const NAMES: [(&str, &str); 6] = [
    ("resnet50", "ResNet-50"),
    ("resnet18", "ResNet-18 (CIFAR)"),
    ("vit", "ViT-B/16"),
    ("gpt2", "GPT-2 124M"),
    ("thousand", "1000 x 1000"),
    ("one", "134M + 3"),
];

/// The value of `--params`.
#[derive(Clone, Debug)]
pub(crate) enum Parameters {
    /// A parameter set of the benchmarks, by its full name.
    Known(&'static str),
    /// A file of shapes.
    File(PathBuf),
}

impl FromStr for Parameters {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((_, name)) = NAMES.iter().find(|(short, _)| *short == text) {
            return Ok(Self::Known(name));
        }
        // A pipe may be opened only once, so it is opened in `load`.
        match std::fs::metadata(text) {
            Ok(found) if found.is_dir() => Err("a folder, not a file".to_owned()),
            Ok(_) => Ok(Self::File(text.into())),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(error.to_string()),
            Err(_) => {
                let names: Vec<_> = NAMES.iter().map(|(short, _)| *short).collect();
                Err(format!("neither a file nor one of {}", names.join(", ")))
            }
        }
    }
}

/// Name and tensor lengths of a parameter set.
pub(crate) type Named = (String, Vec<u64>);

impl Parameters {
    /// Looks up the set, or reads the file.
    pub(crate) fn load(&self) -> Result<Named, Error> {
        match self {
            Self::Known(name) => {
                let set: Option<Set> = sets::sets().into_iter().find(|set| set.name == *name);
                let set = set.unwrap_or_else(|| unreachable!("{name} is a benchmark's set"));
                Ok((set.name.to_owned(), set.lens))
            }
            Self::File(path) => {
                let text = read::text(path)?;
                let name = path.file_stem().unwrap_or(path.as_os_str());
                Ok((name.to_string_lossy().into_owned(), lens(path, &text)?))
            }
        }
    }
}

/// Parses one tensor per line and returns the lengths. Empty lines and text after a `#` are ignored.
fn lens(path: &Path, text: &str) -> Result<Vec<u64>, Error> {
    let mut lens = Vec::new();
    for (line, text) in text.lines().enumerate() {
        let text = text.split('#').next().unwrap_or("").trim();
        if text.is_empty() {
            continue;
        }
        let len = text.split('x').try_fold(1_u64, |len, extent| {
            extent.trim().parse().ok().and_then(|extent| len.checked_mul(extent))
        });
        match len.filter(|len| *len > 0) {
            Some(len) => lens.push(len),
            None => {
                let (path, text) = (path.to_owned(), text.to_owned());
                return Err(Error::Shape { path, line: line + 1, text });
            }
        }
    }
    if lens.is_empty() { Err(Error::NoTensors { path: path.to_owned() }) } else { Ok(lens) }
}

#[cfg(test)]
mod tests {
    use super::{NAMES, lens};
    use burn_wsam_support::bench::sets;
    use std::path::Path;

    #[test]
    fn every_set_has_a_short_name() {
        let sets: Vec<_> = sets::sets().iter().map(|set| set.name).collect();
        assert_eq!(sets, NAMES.map(|(_, name)| name));
    }

    #[test]
    fn lines_are_shapes_or_lengths() {
        let read = |text| lens(Path::new("sizes"), text).map_err(|error| error.to_string());
        assert_eq!(read("64x3x7x7 # stem\n\n1000\n 2 x 5\n"), Ok(vec![9408, 1000, 10]));
        for (text, at) in
            [("1\n2y3", "line 2"), ("0", "line 1"), ("-4", "line 1"), ("4x", "line 1")]
        {
            let error = read(text).expect_err(text);
            assert!(error.contains(at), "{text:?}: {error}");
        }
        let largest = format!("{}x2", u64::MAX);
        assert!(read(&largest).is_err());
        assert!(read("# nothing").is_err());
    }
}
