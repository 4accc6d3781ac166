//! Picture of the paper's two-basin example: level lines of the loss, and the paths of the runs.

use super::figure::{
    BLUE, BROWN, Drawn, FONT, Figure, GREEN, GREY, OLIVE, ORANGE, PINK, PURPLE, RED,
};
use burn_wsam_support::contours::Grid;
use burn_wsam_support::toy::{FLAT, SHARP, toy_loss_grad};
use plotters::coord::Shift;
use plotters::prelude::{
    ChartBuilder, Circle, Color, Cross, DrawingArea, DrawingBackend, EmptyElement, IntoFont,
    LineSeries, PathElement, SeriesLabelPosition, Text, TextStyle,
};

/// The path of one run.
pub(crate) struct Path {
    pub(crate) label: String,
    pub(crate) points: Vec<[f64; 2]>,
}

pub(crate) struct ToyFigure {
    pub(crate) paths: Vec<Path>,
}

const MU: [f64; 2] = [-32.0, 36.0];
const SIGMA: [f64; 2] = [4.0, 42.0];
const LEVELS: [f64; 14] =
    [0.28, 0.29, 0.31, 0.33, 0.36, 0.37, 0.38, 0.39, 0.4, 0.42, 0.46, 0.52, 0.6, 0.75];

impl Figure for ToyFigure {
    fn size(&self) -> (u32, u32) {
        (900, 560)
    }

    fn draw<DB: DrawingBackend>(&self, root: &DrawingArea<DB, Shift>) -> Drawn<DB> {
        root.fill(&plotters::style::WHITE)?;
        let mut chart = ChartBuilder::on(root)
            .margin(12)
            .x_label_area_size(46)
            .y_label_area_size(58)
            .build_cartesian_2d(MU[0]..MU[1], SIGMA[0]..SIGMA[1])?;
        chart
            .configure_mesh()
            .disable_mesh()
            .x_desc("μ")
            .y_desc("σ")
            .x_label_formatter(&|mu| format!("{mu}"))
            .y_label_formatter(&|sigma| format!("{sigma}"))
            .label_style((FONT, 15))
            .axis_desc_style((FONT, 18))
            .draw()?;
        let loss = |mu, sigma| toy_loss_grad(mu, sigma).0;
        let grid = Grid::sample(MU, SIGMA, 120, loss);
        for (i, level) in LEVELS.into_iter().enumerate() {
            let shade = GREY.mix(0.75 - 0.5 * i as f64 / LEVELS.len() as f64);
            for line in grid.lines(level) {
                chart.draw_series([PathElement::new(line, shade)])?;
            }
        }
        let colours = [BLUE, ORANGE, GREEN, RED, PURPLE, BROWN, PINK, OLIVE];
        for (path, colour) in self.paths.iter().zip(colours.into_iter().cycle()) {
            let points: Vec<_> = path.points.iter().map(|[mu, sigma]| (*mu, *sigma)).collect();
            let end = points.last().copied();
            let line = LineSeries::new(points, colour.stroke_width(2));
            let line = chart.draw_series(line)?;
            line.label(&path.label).legend(move |(x, y)| {
                PathElement::new(vec![(x, y), (x + 22, y)], colour.stroke_width(3))
            });
            chart.draw_series(end.map(|end| Circle::new(end, 6, colour.filled())))?;
        }
        let note = |at: [f64; 2], text: String, by: (i32, i32)| {
            let style = TextStyle::from((FONT, 15).into_font());
            EmptyElement::at((at[0], at[1]))
                + Cross::new((0, 0), 6, plotters::style::BLACK.stroke_width(2))
                + Text::new(text, by, style)
        };
        let minimum = |name: &str, [mu, sigma]: [f64; 2]| format!("{name}, {:.3}", loss(mu, sigma));
        chart.draw_series([
            note(SHARP, minimum("sharp minimum", SHARP), (-60, 16)),
            note(FLAT, minimum("flat minimum", FLAT), (16, -22)),
        ])?;
        let start = self.paths.first().and_then(|path| path.points.first().copied());
        chart.draw_series(start.map(|at| note(at, "start".to_owned(), (10, -4))))?;
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .label_font((FONT, 15))
            .background_style(plotters::style::WHITE.mix(0.85))
            .border_style(GREY.mix(0.4))
            .draw()
    }
}
