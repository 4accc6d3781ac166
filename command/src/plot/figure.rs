//! What all pictures have in common: font, colours, and writing to a file.

use crate::error::Error;
use crate::output;
use crate::picture::{Format, Picture};
use plotters::coord::Shift;
use plotters::prelude::{
    BitMapBackend, DrawingArea, DrawingAreaErrorKind, DrawingBackend, FontStyle, IntoDrawingArea,
    RGBColor, SVGBackend,
};
use plotters::style::register_font;
use std::io::{self, Read, Seek, SeekFrom};

/// Name under which DejaVu Sans, which is compiled in, is registered.
pub(crate) const FONT: &str = "sans-serif";

pub(crate) const BLUE: RGBColor = RGBColor(0x1f, 0x5f, 0xa8);
pub(crate) const ORANGE: RGBColor = RGBColor(0xd9, 0x7b, 0x1c);
pub(crate) const GREEN: RGBColor = RGBColor(0x2b, 0x8a, 0x4f);
pub(crate) const RED: RGBColor = RGBColor(0xc0, 0x36, 0x2c);
pub(crate) const PURPLE: RGBColor = RGBColor(0x7a, 0x4f, 0xa3);
pub(crate) const BROWN: RGBColor = RGBColor(0x7f, 0x5a, 0x3c);
pub(crate) const PINK: RGBColor = RGBColor(0xd0, 0x5f, 0xa6);
pub(crate) const OLIVE: RGBColor = RGBColor(0x8a, 0x8c, 0x2a);
pub(crate) const GREY: RGBColor = RGBColor(0x70, 0x70, 0x70);
pub(crate) const PALETTE: [RGBColor; 4] = [BLUE, ORANGE, GREEN, RED];

/// A picture that can be drawn on any backend.
pub(crate) trait Figure {
    /// Width and height in pixels.
    fn size(&self) -> (u32, u32);

    fn draw<DB: DrawingBackend>(&self, root: &DrawingArea<DB, Shift>) -> Drawn<DB>;
}

/// Result of drawing on a backend.
pub(crate) type Drawn<DB> = Result<(), DrawingAreaErrorKind<<DB as DrawingBackend>::ErrorType>>;

/// Largest height of a picture, in pixels.
const MAX_HEIGHT: u32 = 20_000;

/// Draws a figure to a file and prints the path on standard error.
///
/// # Errors
///
/// [`Error::Plot`] for a figure that is too tall or cannot be drawn, [`Error::Write`] for a file that cannot be
/// written.
pub(crate) fn save(figure: &impl Figure, picture: &Picture) -> Result<(), Error> {
    fn not_drawn<E: std::error::Error + Send + Sync>(error: DrawingAreaErrorKind<E>) -> Error {
        Error::Plot(error.to_string())
    }
    let (_, height) = figure.size();
    if height > MAX_HEIGHT {
        return Err(Error::Plot(format!(
            "its rows take {height} pixels, and a picture has at most {MAX_HEIGHT}; choose parameter sets with --set"
        )));
    }
    let registered = register_font(FONT, FontStyle::Normal, dejavu::sans::regular());
    registered.map_err(|_| Error::Plot("the font cannot be read".to_owned()))?;
    let not_written = |source| Error::Write { path: picture.path.clone(), source };
    match picture.format {
        Format::Svg => {
            let mut text = String::new();
            let root = SVGBackend::with_string(&mut text, figure.size()).into_drawing_area();
            figure.draw(&root).and_then(|()| root.present()).map_err(not_drawn)?;
            drop(root);
            std::fs::write(&picture.path, text).map_err(not_written)?;
        }
        Format::Png => {
            // Created here, because the backend's error does not name the file.
            std::fs::File::create(&picture.path).map_err(not_written)?;
            let root = BitMapBackend::new(&picture.path, figure.size()).into_drawing_area();
            figure.draw(&root).map_err(not_drawn)?;
            root.present().map_err(|error| not_written(io::Error::other(error.to_string())))?;
            drop(root);
            check_png_end(&picture.path).map_err(not_written)?;
        }
    }
    output::note(format_args!("{}", picture.path.display()));
    Ok(())
}

/// Checks that the file ends with a PNG's last chunk. The backend writes through a buffer and ignores errors when it
/// drops the buffer, as on a full disk.
fn check_png_end(path: &std::path::Path) -> io::Result<()> {
    let mut file = std::fs::File::open(path)?;
    if !file.metadata()?.is_file() {
        return Ok(());
    }
    let mut end = [0; 8];
    file.seek(SeekFrom::End(-8))?;
    file.read_exact(&mut end)?;
    if end.starts_with(b"IEND") {
        Ok(())
    } else {
        Err(io::Error::other("the end of the picture was not written"))
    }
}
