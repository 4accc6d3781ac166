//! Curves of a step's time over the number of parameters and over the number of tensors.

use super::figure::{Drawn, FONT, Figure, GREY, PALETTE};
use super::saved::{Report, Row};
use plotters::coord::Shift;
use plotters::prelude::{
    ChartBuilder, Circle, Color, DashedLineSeries, DrawingArea, DrawingBackend, IntoFont,
    IntoLogRange, LineSeries, PathElement, ShapeStyle, Text, TextStyle,
};
use plotters::style::text_anchor::{HPos, Pos, VPos};

pub(crate) struct ScalingFigure {
    /// For each report.
    curves: Vec<Curves>,
}

struct Curves {
    label: String,
    /// Step and copy over the number of parameters.
    by_parameters: Curve,
    by_tensors: Curve,
}

#[derive(Default)]
struct Curve {
    /// Number and milliseconds.
    step: Vec<(f64, f64)>,
    /// Time that the step's bytes take at the copy's rate.
    floor: Vec<(f64, f64)>,
    /// The count that does not vary.
    fixed: f64,
}

impl ScalingFigure {
    pub(crate) fn new(reports: &[Report]) -> Result<Self, String> {
        let curves = reports
            .iter()
            .map(|report| curves(report).map_err(|reason| format!("{}: {reason}", report.source)));
        Ok(Self { curves: curves.collect::<Result<_, _>>()? })
    }
}

fn curves(report: &Report) -> Result<Curves, String> {
    let (mut by_parameters, mut by_tensors) = (Curve::default(), Curve::default());
    let mut dispatches = Vec::new();
    let mut step_name = String::new();
    let mut rows = report.rows.iter().peekable();
    while let Some(mut step) = rows.next() {
        // Older reports have the step with a wait after each phase only.
        let pipelined = format!("{}, pipelined", step.name);
        if let Some(row) = rows.next_if(|row| row.set == step.set && row.name == pipelined) {
            step = row;
        }
        let copy = rows.next().filter(|copy| copy.set == step.set && copy.name == "copy");
        let copy =
            copy.ok_or_else(|| format!("{}: the step is not followed by a copy", step.set))?;
        let count = |name: &str, count: Option<f64>| {
            count.ok_or_else(|| format!("{}: no counts.{name}", step.set))
        };
        let parameters = count("parameters", step.counts.parameters)?;
        let tensors = count("tensors", step.counts.tensors)?;
        let (curve, number, fixed) = match step.counts.axis.as_deref() {
            Some("parameters") => (&mut by_parameters, parameters, tensors),
            Some("tensors") => (&mut by_tensors, tensors, parameters),
            axis => {
                let set = &step.set;
                return Err(format!("{set}: counts.axis is {axis:?}, not parameters or tensors"));
            }
        };
        curve.step.push((number, 1e3 * step.seconds[1]));
        curve.floor.push((number, 1e3 * floor(step, copy)?));
        curve.fixed = fixed;
        dispatches.push(count("dispatches", step.counts.dispatches)?);
        step_name.clone_from(&step.name);
    }
    dispatches.sort_by(f64::total_cmp);
    dispatches.dedup();
    let dispatches: Vec<_> = dispatches.iter().map(f64::to_string).collect();
    let dispatches = dispatches.join(" or ");
    let label = format!("{step_name}, {}: {dispatches} dispatches at every point", report.adapter);
    Ok(Curves { label, by_parameters, by_tensors })
}

fn floor(step: &Row, copy: &Row) -> Result<f64, String> {
    let rate = copy.bytes.zip(step.bytes).map(|(copied, moved)| moved / copied);
    let ratio = rate.ok_or_else(|| format!("{}: no bytes of the step or the copy", step.set))?;
    Ok(ratio * copy.seconds[1])
}

/// Height of a line of the legend, in pixels.
const LEGEND: u32 = 26;

impl Figure for ScalingFigure {
    fn size(&self) -> (u32, u32) {
        let lines = u32::try_from(self.curves.len() + 1).unwrap_or(u32::MAX);
        (900, LEGEND.saturating_mul(lines).saturating_add(400))
    }

    fn draw<DB: DrawingBackend>(&self, root: &DrawingArea<DB, Shift>) -> Drawn<DB> {
        root.fill(&plotters::style::WHITE)?;
        let (panels, legend) = root.split_vertically(392);
        let by = |of: fn(&Curves) -> &Curve| self.curves.iter().map(of).collect::<Vec<_>>();
        let (parameters, tensors) =
            (by(|curves| &curves.by_parameters), by(|curves| &curves.by_tensors));
        // Both panels have the same range, so that a flat curve looks flat in both.
        let all = || parameters.iter().chain(&tensors).flat_map(|curve| curve.points());
        let range = decades(all().map(|(_, ms)| *ms));
        let fixed = |curves: &[&Curve]| {
            // A report may have points on one of the axes only.
            let drawn = curves.iter().find(|curve| !curve.step.is_empty());
            drawn.map(|curve| short(&curve.fixed))
        };
        let (left, right) = panels.split_horizontally(450);
        if let Some(fixed) = fixed(&parameters) {
            panel(&left, &format!("in {fixed} tensors"), "parameters", &parameters, range)?;
        }
        if let Some(fixed) = fixed(&tensors) {
            panel(&right, &format!("{fixed} parameters"), "tensors", &tensors, range)?;
        }

        let style = TextStyle::from((FONT, 15).into_font());
        let style = style.pos(Pos::new(HPos::Left, VPos::Center));
        let labels = self.curves.iter().map(|curves| curves.label.as_str());
        let floor = "dashed: the step's bytes at the rate of a plain copy";
        for (i, label) in labels.chain([floor]).enumerate() {
            let y = (LEGEND * i as u32 + LEGEND / 2) as i32;
            if i < self.curves.len() {
                let line = PALETTE[i % PALETTE.len()].stroke_width(3);
                legend.draw(&PathElement::new(vec![(64, y), (88, y)], line))?;
            }
            legend.draw(&Text::new(label, (96, y), style.clone()))?;
        }
        Ok(())
    }
}

impl Curve {
    fn points(&self) -> impl Iterator<Item = &(f64, f64)> {
        self.step.iter().chain(&self.floor)
    }
}

/// Returns powers of ten around the values, at least one decade apart, because an axis of length 0 has no ticks.
fn decades(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((f64::MAX, 0.0_f64), |(low, high), x| (low.min(x), high.max(x)));
    let (low, high) = (low.log10().floor(), high.log10().ceil());
    (10_f64.powf(low), 10_f64.powf(high.max(low + 1.0)))
}

fn panel<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    title: &str,
    axis: &str,
    curves: &[&Curve],
    (low, high): (f64, f64),
) -> Drawn<DB> {
    let numbers = curves.iter().flat_map(|curve| curve.points());
    let (left, right) = decades(numbers.map(|(number, _)| *number));
    let mut chart = ChartBuilder::on(area)
        .caption(title, (FONT, 18))
        .margin(8)
        .margin_right(20)
        .x_label_area_size(46)
        .y_label_area_size(64)
        .build_cartesian_2d((left..right).log_scale(), (low..high).log_scale())?;
    chart
        .configure_mesh()
        .x_desc(axis)
        .y_desc("one step, ms (median)")
        .x_labels(8)
        .x_label_formatter(&short)
        .y_label_formatter(&|ms| format!("{ms}"))
        .label_style((FONT, 14))
        .axis_desc_style((FONT, 15))
        .max_light_lines(0)
        .bold_line_style(GREY.mix(0.25))
        .draw()?;
    for (i, curve) in curves.iter().enumerate() {
        let colour = PALETTE[i % PALETTE.len()];
        let style = ShapeStyle { color: colour.to_rgba(), filled: true, stroke_width: 2 };
        chart.draw_series(LineSeries::new(curve.step.iter().copied(), style))?;
        chart.draw_series(curve.step.iter().map(|point| Circle::new(*point, 4, style)))?;
        let thin = ShapeStyle { color: colour.mix(0.7), filled: false, stroke_width: 2 };
        chart.draw_series(DashedLineSeries::new(curve.floor.iter().copied(), 6, 4, thin))?;
    }
    Ok(())
}

/// Formats a count: 16384 as 16k.
fn short(number: &f64) -> String {
    let (value, unit) = match *number {
        n if n >= 1e6 => (n / 1e6, "M"),
        n if n >= 1e3 => (n / 1e3, "k"),
        n => (n, ""),
    };
    if value >= 9.95 || value.fract() < 0.05 {
        format!("{value:.0}{unit}")
    } else {
        format!("{value:.1}{unit}")
    }
}
