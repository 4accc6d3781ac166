//! Bars of each stage's rate, with a line at the rate of a copy. One panel for each adapter and parameter set.

use super::figure::{BLUE, Drawn, FONT, Figure, GREEN, GREY, ORANGE, RED};
use super::saved::{Report, Row};
use plotters::coord::Shift;
use plotters::prelude::{
    ChartBuilder, Color, DrawingArea, DrawingBackend, IntoFont, PathElement, RGBColor, Rectangle,
    Text, TextStyle,
};
use plotters::style::text_anchor::{HPos, Pos, VPos};

const WIDTH: u32 = 900;
/// Height of a bar with its margins, in pixels.
const BAR: u32 = 30;
/// Height of the title and of the axis, in pixels.
const HEAD: u32 = 40;
const FOOT: u32 = 52;

pub(crate) struct BarsFigure {
    panels: Vec<Panel>,
    /// Ends of the axes, GB/s.
    ends: Vec<f64>,
}

struct Panel {
    title: String,
    copy_rate: f64,
    bars: Vec<Bar>,
}

struct Bar {
    name: String,
    /// GB/s: at the lower quartile of time, the median and the upper quartile.
    rates: [f64; 3],
    /// Of the copy's rate.
    share: f64,
}

impl BarsFigure {
    pub(crate) fn new(reports: &[Report]) -> Result<Self, String> {
        let mut panels = Vec::new();
        for report in reports {
            // In the order of their first rows.
            let mut sets: Vec<&str> = Vec::new();
            for row in &report.rows {
                if !sets.contains(&row.set.as_str()) {
                    sets.push(&row.set);
                }
            }
            for set in sets {
                panels.push(panel(report, set).map_err(|e| format!("{}: {e}", report.source))?);
            }
        }
        let fastest = |panel: &Panel| {
            let rates = panel.bars.iter().map(|bar| bar.rates[0]);
            rates.fold(panel.copy_rate, f64::max)
        };
        // The numbers stand to the right of the bars.
        let ends = panels.iter().map(|panel| 1.4 * fastest(panel)).collect();
        Ok(Self { panels, ends })
    }
}

fn panel(report: &Report, set: &str) -> Result<Panel, String> {
    let rows = || report.rows.iter().filter(|row| row.set == set);
    let copy_rate = rows().find(|row| row.name == "copy").and_then(Row::rates);
    let copy_rate =
        copy_rate.ok_or_else(|| format!("{set}: the report has no copy with a count of bytes"))?[1];
    let bar = |row: &Row| {
        let rates = row.rates()?;
        let share = row.share_of_copy.unwrap_or(rates[1] / copy_rate);
        Some(Bar { name: row.name.clone(), rates, share })
    };
    let bars: Vec<_> = rows().filter(|row| row.name != "copy").filter_map(bar).collect();
    if bars.is_empty() {
        return Err(format!("{set}: no row but the copy has a count of bytes"));
    }
    Ok(Panel { title: format!("{set}: {}", report.adapter), copy_rate, bars })
}

fn colour(name: &str) -> RGBColor {
    match name.split(',').next() {
        Some("norm") => BLUE,
        Some("ascent" | "lean_ascent") => GREEN,
        Some("descent" | "lean_descent") => ORANGE,
        _ => RED,
    }
}

impl Figure for BarsFigure {
    fn size(&self) -> (u32, u32) {
        (WIDTH, self.panels.iter().map(height).fold(0, u32::saturating_add))
    }

    fn draw<DB: DrawingBackend>(&self, root: &DrawingArea<DB, Shift>) -> Drawn<DB> {
        root.fill(&plotters::style::WHITE)?;
        let mut rest = root.clone();
        for (panel, end) in self.panels.iter().zip(&self.ends) {
            let (area, below) = rest.split_vertically(height(panel));
            draw_panel(&area, panel, *end)?;
            rest = below;
        }
        Ok(())
    }
}

fn height(panel: &Panel) -> u32 {
    // `save` refuses pictures that are too tall.
    let bars = u32::try_from(panel.bars.len()).unwrap_or(u32::MAX);
    BAR.saturating_mul(bars).saturating_add(HEAD + FOOT)
}

fn draw_panel<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    panel: &Panel,
    end: f64,
) -> Drawn<DB> {
    let count = panel.bars.len() as f64;
    let mut chart = ChartBuilder::on(area)
        .caption(&panel.title, (FONT, 19))
        .margin_right(16)
        .x_label_area_size(FOOT - 6)
        .y_label_area_size(250)
        .build_cartesian_2d(0.0..end, 0.0..count)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(0)
        .y_label_style((FONT, 1))
        .x_desc("GB/s of tensors, read and written (median; whiskers: quartiles)")
        .label_style((FONT, 15))
        .axis_desc_style((FONT, 15))
        .max_light_lines(0)
        .x_label_formatter(&|rate| format!("{rate}"))
        .bold_line_style(GREY.mix(0.25))
        .draw()?;
    for (i, bar) in panel.bars.iter().enumerate() {
        // The first bar is at the top.
        let y = count - i as f64 - 0.5;
        let [high, median, low] = bar.rates;
        let fill = colour(&bar.name).mix(0.85).filled();
        chart.draw_series([Rectangle::new([(0.0, y - 0.34), (median, y + 0.34)], fill)])?;
        let whisker = vec![(low, y), (high, y)];
        chart.draw_series([PathElement::new(whisker, plotters::style::BLACK.stroke_width(2))])?;
        let text = format!("{median:.2}, {:.0} % of the copy", 100.0 * bar.share);
        // To the right of the copy's line.
        let at = chart.backend_coord(&(high.max(panel.copy_rate), y));
        let style = |horizontal| {
            let style = TextStyle::from((FONT, 15).into_font());
            style.pos(Pos::new(horizontal, VPos::Center))
        };
        let place = relative(area, at);
        area.draw(&Text::new(text, (place.0 + 8, place.1), style(HPos::Left)))?;
        let left = relative(area, chart.backend_coord(&(0.0, y)));
        area.draw(&Text::new(bar.name.clone(), (left.0 - 8, left.1), style(HPos::Right)))?;
    }
    let copy_rate = vec![(panel.copy_rate, 0.0), (panel.copy_rate, count)];
    chart.draw_series([PathElement::new(copy_rate, plotters::style::BLACK.stroke_width(2))])?;
    let top = relative(area, chart.backend_coord(&(panel.copy_rate, count)));
    let style = TextStyle::from((FONT, 14).into_font()).pos(Pos::new(HPos::Center, VPos::Bottom));
    area.draw(&Text::new(format!("copy, {:.2}", panel.copy_rate), (top.0, top.1 - 1), style))
}

/// Converts pixels of the whole picture to pixels of one area.
fn relative<DB: DrawingBackend>(area: &DrawingArea<DB, Shift>, at: (i32, i32)) -> (i32, i32) {
    let base = area.get_base_pixel();
    (at.0 - base.0, at.1 - base.1)
}
