//! Draws test accuracy against noise, with a line for each method.

use crate::Error;
use crate::options::Options;
use crate::results::Results;
use plotters::prelude::*;
use plotters::style::register_font;
use std::path::Path;

pub(crate) const FONT: &str = "sans-serif";

/// Registers the font of the pictures.
pub(crate) fn font() -> Result<(), Error> {
    let fits = register_font(FONT, FontStyle::Normal, dejavu::sans::regular());
    fits.map_err(|_| Error::Picture("its font cannot be read".to_owned()))
}

pub(crate) fn draw(path: &Path, results: &Results, options: &Options) -> Result<(), Error> {
    // A line needs at least two noise levels.
    if options.noise.len() < 2 {
        return Ok(());
    }
    font()?;
    lines(path, results, options).map_err(|error| Error::Picture(error.to_string()))?;
    println!("{}", path.display());
    Ok(())
}

fn lines(
    path: &Path,
    results: &Results,
    options: &Options,
) -> Result<(), Box<dyn std::error::Error>> {
    let trials = options.trials();
    let first = options.noise[0];
    let kinds: Vec<_> =
        trials.iter().filter(|trial| trial.seed == 1 && trial.noise == first).collect();
    let line = |kind: &&crate::options::Trial| -> Vec<(f64, f64, f64)> {
        let mut noise = options.noise.clone();
        noise.sort_unstable();
        noise
            .into_iter()
            .map(|noise| {
                let kind = crate::options::Trial { noise, ..**kind };
                let (mean, spread) =
                    results.over_seeds(&trials, &kind, |outcome| 100.0 * outcome.test_accuracy);
                (f64::from(noise), mean, spread)
            })
            .collect()
    };
    let drawn: Vec<_> = kinds.iter().map(line).collect();
    let all = || drawn.iter().flatten().filter(|(_, mean, _)| mean.is_finite());
    let low = all().map(|(_, mean, spread)| mean - spread).fold(100.0, f64::min);
    let right = all().map(|(noise, ..)| *noise).fold(0.0, f64::max);

    let root = SVGBackend::new(path, (900, 520)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .margin(12)
        .x_label_area_size(46)
        .y_label_area_size(64)
        .build_cartesian_2d(-2.0..right + 2.0, (low - 1.0).floor()..100.5)?;
    chart
        .configure_mesh()
        .x_desc("wrong training labels, %")
        .y_desc("test accuracy, % (mean, standard deviation)")
        .x_label_formatter(&|noise| format!("{noise}"))
        .y_label_formatter(&|accuracy| format!("{accuracy}"))
        .label_style((FONT, 15))
        .axis_desc_style((FONT, 16))
        .max_light_lines(0)
        .bold_line_style(BLACK.mix(0.15))
        .draw()?;
    for (i, (kind, line)) in kinds.iter().zip(&drawn).enumerate() {
        let colour = Palette99::pick(i).to_rgba();
        // Shifted, so that the error bars do not overlap.
        let shift = 0.35 * (i as f64 - 0.5 * (kinds.len() - 1) as f64);
        let points = line.iter().map(|(noise, mean, _)| (noise + shift, *mean));
        let series = chart.draw_series(LineSeries::new(points, colour.stroke_width(2)))?;
        series
            .label(format!("{}, {} epochs", kind.method, kind.epochs))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(3)));
        chart.draw_series(line.iter().map(|(noise, mean, spread)| {
            let x = noise + shift;
            PathElement::new([(x, mean - spread), (x, mean + spread)], colour.stroke_width(2))
        }))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerLeft)
        .label_font((FONT, 15))
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    root.present()?;
    Ok(())
}
