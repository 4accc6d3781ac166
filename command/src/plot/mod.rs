//! Pictures of reports, and `wsam plot`.

mod bars;
mod figure;
pub(crate) mod saved;
mod scaling;
mod toy;

pub(crate) use figure::save;
pub(crate) use toy::{Path, ToyFigure};

use crate::error::Error;
use crate::options::PlotOptions;
use crate::picture::Picture;
use serde_json::Value;

/// Draws the reports of `wsam bench` or `wsam scaling`, one for each adapter.
pub(crate) fn draw_reports(reports: &[Value], picture: &Picture) -> Result<(), Error> {
    draw(&saved::parse("the measurements", reports).map_err(Error::Plot)?, picture)
}

fn draw(reports: &[saved::Report], picture: &Picture) -> Result<(), Error> {
    if reports.iter().all(|report| report.bench == "scaling") {
        save(&scaling::ScalingFigure::new(reports).map_err(Error::Plot)?, picture)
    } else if reports.iter().all(|report| report.bench == "kernels") {
        save(&bars::BarsFigure::new(reports).map_err(Error::Plot)?, picture)
    } else {
        let kinds: Vec<_> = reports.iter().map(|report| report.bench.as_str()).collect();
        Err(Error::Plot(format!("reports must all be of kernels or all of scaling, not {kinds:?}")))
    }
}

/// `wsam plot`.
pub(crate) fn plot(options: &PlotOptions) -> Result<(), Error> {
    let mut reports = Vec::new();
    for path in &options.reports {
        reports.extend(saved::read(path)?);
    }
    if !options.set.is_empty() {
        for report in &mut reports {
            report.rows.retain(|row| options.set.contains(&row.set));
        }
        reports.retain(|report| !report.rows.is_empty());
        if reports.is_empty() {
            return Err(Error::Plot(format!(
                "no report has a parameter set named {:?}",
                options.set
            )));
        }
    }
    draw(&reports, &options.out)
}
