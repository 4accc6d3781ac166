//! Draws the training loss around minima, along two random directions with filter normalisation.

use crate::Error;
use crate::data::Sets;
use crate::options::{Options, Trial};
use crate::picture::{FONT, font};
use crate::train::around;
use burn_wsam::sharpness::{Plane, Surface};
use burn_wsam_support::contours::Grid;
use plotters::coord::Shift;
use plotters::prelude::*;
use std::path::Path;

/// Points along each direction of the plane.
const POINTS: usize = 25;

fn plane() -> Plane {
    Plane::default().with_radius(1.0).with_points(POINTS).with_seed(1)
}

/// Heights above the loss in the middle.
const LEVELS: [f64; 10] = [0.05, 0.1, 0.2, 0.4, 0.7, 1.0, 1.5, 2.5, 4.0, 7.0];

/// Each panel has level lines at the same heights above its own minimum.
pub(crate) fn draw(path: &Path, options: &Options, sets: &Sets) -> Result<(), Error> {
    font()?;
    let trials = options.surface_trials();
    let surface_of = |trial: &Trial| around(trial, options, sets, &plane());
    let surfaces = trials.iter().map(surface_of).collect::<Result<Vec<_>, _>>()?;
    panels(path, &trials, surfaces).map_err(|error| Error::Picture(error.to_string()))?;
    println!("{}", path.display());
    Ok(())
}

fn panels(
    path: &Path,
    trials: &[Trial],
    surfaces: Vec<Surface>,
) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::new(path, (900, 380)).into_drawing_area();
    root.fill(&WHITE)?;
    let (areas, below) = root.split_vertically(346);
    for ((trial, surface), area) in
        trials.iter().zip(surfaces).zip(areas.split_evenly((1, trials.len())))
    {
        panel(&area, trial, surface)?;
    }
    let levels = LEVELS.map(|level| level.to_string()).join(", ");
    let style = TextStyle::from((FONT, 14).into_font());
    let text = format!(
        "axes: two random directions, normalised by filters; lines: {levels} above the middle"
    );
    below.draw(&Text::new(text, (44, 8), style))?;
    root.present()?;
    Ok(())
}

fn panel(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    trial: &Trial,
    surface: Surface,
) -> Result<(), Box<dyn std::error::Error>> {
    let middle = surface.losses[POINTS / 2][POINTS / 2];
    let (ends, axis) = (-plane().radius..plane().radius, surface.coordinates);
    let grid = Grid { xs: axis.clone(), ys: axis, values: surface.losses.concat() };
    let mut chart = ChartBuilder::on(area)
        .caption(format!("{}: loss {middle:.2}", trial.method), (FONT, 16))
        .margin(8)
        .x_label_area_size(28)
        .y_label_area_size(40)
        .build_cartesian_2d(ends.clone(), ends)?;
    chart
        .configure_mesh()
        .disable_mesh()
        .x_labels(5)
        .y_labels(5)
        .x_label_formatter(&|x| format!("{x}"))
        .y_label_formatter(&|y| format!("{y}"))
        .label_style((FONT, 14))
        .draw()?;
    for (i, level) in LEVELS.into_iter().enumerate() {
        let shade = RGBColor(0x1f, 0x5f, 0xa8).mix(1.0 - 0.07 * i as f64);
        for line in grid.lines(middle + level) {
            chart.draw_series([PathElement::new(line, shade.stroke_width(2))])?;
        }
    }
    chart.draw_series([Cross::new((0.0, 0.0), 5, BLACK.stroke_width(2))])?;
    Ok(())
}
