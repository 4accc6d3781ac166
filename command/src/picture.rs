//! A file that a picture is written to, as an option names it.

use std::path::PathBuf;
use std::str::FromStr;

/// The file of a picture. Its extension chooses the format.
#[derive(Clone, Debug)]
pub(crate) struct Picture {
    pub(crate) path: PathBuf,
    pub(crate) format: Format,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Format {
    Svg,
    Png,
}

impl FromStr for Picture {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = PathBuf::from(text);
        let extension = path.extension().map(|text| text.to_string_lossy().to_lowercase());
        let format = match extension.as_deref() {
            Some("svg") => Format::Svg,
            Some("png") => Format::Png,
            _ => return Err("pictures end in .svg or .png".to_owned()),
        };
        // Checked here, so that a wrong path fails before the measurements, not after them.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(missing) = folder.filter(|folder| !folder.is_dir()) {
            return Err(format!("there is no folder {}", missing.display()));
        }
        Ok(Self { path, format })
    }
}
