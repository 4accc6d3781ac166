//! Pictures, as SVG or PNG.

mod bars;
mod saved;
mod scaling;
mod toy;

pub(crate) use toy::{Path, ToyFigure};

use crate::error::Error;
use crate::options::PlotOptions;
use crate::{output, read};
use plotters::coord::Shift;
use plotters::prelude::{
    BitMapBackend, DrawingArea, DrawingAreaErrorKind, DrawingBackend, FontStyle, IntoDrawingArea,
    RGBColor, SVGBackend,
};
use plotters::style::register_font;
use serde_json::Value;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::str::FromStr;

/// The one font: DejaVu Sans, which comes with the command.
const FONT: &str = "sans-serif";

const BLUE: RGBColor = RGBColor(0x1f, 0x5f, 0xa8);
const ORANGE: RGBColor = RGBColor(0xd9, 0x7b, 0x1c);
const GREEN: RGBColor = RGBColor(0x2b, 0x8a, 0x4f);
const RED: RGBColor = RGBColor(0xc0, 0x36, 0x2c);
const GREY: RGBColor = RGBColor(0x70, 0x70, 0x70);
const PALETTE: [RGBColor; 4] = [BLUE, ORANGE, GREEN, RED];

/// A file to draw to.
#[derive(Clone, Debug)]
pub(crate) struct Picture {
    path: PathBuf,
    format: Format,
}

#[derive(Clone, Copy, Debug)]
enum Format {
    Svg,
    Png,
}

impl FromStr for Picture {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = PathBuf::from(text);
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
        let format = match ending.as_deref() {
            Some("svg") => Format::Svg,
            Some("png") => Format::Png,
            _ => return Err("pictures end in .svg or .png".to_owned()),
        };
        // Found out now, not after minutes of measuring.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(missing) = folder.filter(|folder| !folder.is_dir()) {
            return Err(format!("there is no folder {}", missing.display()));
        }
        Ok(Self { path, format })
    }
}

/// What can be drawn on any backend.
pub(crate) trait Figure {
    /// Width and height in pixels.
    fn size(&self) -> (u32, u32);

    fn draw<DB: DrawingBackend>(&self, root: &DrawingArea<DB, Shift>) -> Drawn<DB>;
}

pub(crate) type Drawn<DB> = Result<(), DrawingAreaErrorKind<<DB as DrawingBackend>::ErrorType>>;

/// The most pixels that a picture has in height.
const TALLEST: u32 = 20_000;

/// Draws a figure to its file, and says so on stderr.
pub(crate) fn save(figure: &impl Figure, picture: &Picture) -> Result<(), Error> {
    fn drawn<E: std::error::Error + Send + Sync>(error: DrawingAreaErrorKind<E>) -> Error {
        Error::Plot(error.to_string())
    }
    let (_, height) = figure.size();
    if height > TALLEST {
        return Err(Error::Plot(format!(
            "its rows take {height} pixels, and a picture has at most {TALLEST}; choose with --set"
        )));
    }
    let fits = register_font(FONT, FontStyle::Normal, dejavu::sans::regular());
    fits.map_err(|_| Error::Plot("its font cannot be read".to_owned()))?;
    let written = |source| Error::Write { path: picture.path.clone(), source };
    match picture.format {
        Format::Svg => {
            let mut text = String::new();
            let root = SVGBackend::with_string(&mut text, figure.size()).into_drawing_area();
            figure.draw(&root).and_then(|()| root.present()).map_err(drawn)?;
            drop(root);
            std::fs::write(&picture.path, text).map_err(written)?;
        }
        Format::Png => {
            // The backend's own error does not tell the file.
            std::fs::File::create(&picture.path).map_err(written)?;
            let root = BitMapBackend::new(&picture.path, figure.size()).into_drawing_area();
            figure.draw(&root).map_err(drawn)?;
            root.present().map_err(|error| written(io::Error::other(error.to_string())))?;
            drop(root);
            whole_png(&picture.path).map_err(written)?;
        }
    }
    output::note(format_args!("{}", picture.path.display()));
    Ok(())
}

/// Whether a PNG has its end. The backend buffers what it writes, and does not report a disk that is
/// full when the buffer is dropped.
fn whole_png(path: &std::path::Path) -> io::Result<()> {
    let mut file = std::fs::File::open(path)?;
    if !file.metadata()?.is_file() {
        return Ok(());
    }
    let mut end = [0; 8];
    file.seek(SeekFrom::End(-8))?;
    file.read_exact(&mut end)?;
    if end.starts_with(b"IEND") { Ok(()) } else { Err(io::Error::other("its end was not written")) }
}

/// Draws what `bench` or `scaling` found on one adapter or several.
pub(crate) fn reports(reports: &[Value], picture: &Picture) -> Result<(), Error> {
    figure(&saved::parse("the measurements", reports).map_err(Error::Plot)?, picture)
}

fn figure(reports: &[saved::Report], picture: &Picture) -> Result<(), Error> {
    if reports.iter().all(|report| report.bench == "scaling") {
        save(&scaling::ScalingFigure::new(reports).map_err(Error::Plot)?, picture)
    } else if reports.iter().all(|report| report.bench == "kernels") {
        save(&bars::BarsFigure::new(reports).map_err(Error::Plot)?, picture)
    } else {
        let kinds: Vec<_> = reports.iter().map(|report| report.bench.as_str()).collect();
        Err(Error::Plot(format!("reports are all of kernels or all of scaling, not {kinds:?}")))
    }
}

/// `wsam plot`.
pub(crate) fn again(options: &PlotOptions) -> Result<(), Error> {
    let mut reports = Vec::new();
    for path in &options.reports {
        let bad = |reason: String| Error::Report { path: path.clone(), reason };
        let text = read::text(path)?;
        let json: Value = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
        let list = match json {
            Value::Array(list) => list,
            one => vec![one],
        };
        reports.extend(saved::parse(&path.display().to_string(), &list).map_err(bad)?);
    }
    if !options.set.is_empty() {
        for report in &mut reports {
            report.rows.retain(|row| options.set.contains(&row.set));
        }
        reports.retain(|report| !report.rows.is_empty());
        if reports.is_empty() {
            return Err(Error::Plot(format!("no report has a set {:?}", options.set)));
        }
    }
    figure(&reports, &options.out)
}
