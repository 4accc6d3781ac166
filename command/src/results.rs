//! Measurements and failures of `bench`, `scaling` and `tune`.

use crate::adapters::full_name;
use crate::compare::{Baseline, Comparison};
use crate::error::Error;
use crate::options::{OutputOptions, StepOptions};
use crate::output;
use crate::plot;
use crate::timing::Timing;
use burn_wsam_support::adapters::Gpu;
use burn_wsam_support::bench::engine_steps::machine;
use burn_wsam_support::bench::rows::{self, Row};
use indicatif::ProgressBar;
use serde_json::Value;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Measurements on all adapters. A failure skips the rest of its parameter set or adapter; the others are still
/// measured.
#[derive(Default)]
pub(crate) struct Results {
    /// A saved report to compare with.
    baseline: Option<Baseline>,
    reports: Vec<Report>,
    pub(crate) failures: Vec<Error>,
}

/// Rows of one adapter.
struct Report {
    machine: Value,
    rows: Vec<Row>,
}

impl Results {
    /// Results that are printed next to those of a saved report, if there is one.
    pub(crate) fn compared_with(baseline: Option<Baseline>) -> Self {
        Self { baseline, ..Self::default() }
    }

    /// Measures on one adapter: `measure` adds rows.
    pub(crate) fn on<'a>(
        &mut self,
        gpu: &Gpu,
        step: &'a StepOptions,
        progress: &'a ProgressBar,
        measure: impl FnOnce(&Timing<'a>, &mut Rows),
    ) {
        let mut rows = Rows { adapter: full_name(gpu), rows: Vec::new(), failures: Vec::new() };
        match Timing::new(gpu, step, progress) {
            Ok(timing) => measure(&timing, &mut rows),
            Err(error) => rows.failures.push(error),
        }
        self.failures.append(&mut rows.failures);
        if !rows.rows.is_empty() {
            self.reports
                .push(Report { machine: machine(&gpu.adapter.get_info()), rows: rows.rows });
        }
    }

    /// Prints the measurements and, below the tables, `remarks`; draws them if `--plot` is given.
    ///
    /// # Errors
    ///
    /// All failures of measuring, printing and drawing.
    pub(crate) fn finish(
        mut self,
        bench: &str,
        remarks: &[String],
        output: &OutputOptions,
    ) -> Result<(), Error> {
        let printed = self.print(bench, remarks, output.json);
        // The picture is drawn even if printing failed, so that the measurements are not lost.
        let drawn = output.plot.as_ref().map_or(Ok(()), |picture| {
            let complete: Vec<_> =
                self.reports.iter().filter_map(|r| r.complete_sets(bench)).collect();
            if complete.is_empty() { Ok(()) } else { plot::draw_reports(&complete, picture) }
        });
        self.failures.extend([printed, drawn].into_iter().filter_map(Result::err));
        Error::all(self.failures)
    }

    fn comparison<'a>(&'a self, report: &'a Report) -> Option<Comparison<'a>> {
        self.baseline.as_ref()?.compare(&report.machine, &report.rows)
    }

    fn print(&self, bench: &str, remarks: &[String], json: bool) -> Result<(), Error> {
        if json {
            let all = self.reports.iter().map(|report| {
                let mut json = rows::json(bench, &report.machine, &report.rows);
                if let Some(comparison) = self.comparison(report) {
                    json["compared"] = comparison.json();
                }
                json
            });
            return output::line(format_args!("{:#}", all.collect::<Value>()));
        }
        for report in &self.reports {
            let Report { machine, rows } = report;
            output::line(format_args!("{machine}\n{}\n", rows::table(rows)))?;
            if let Some(comparison) = self.comparison(report) {
                comparison.print()?;
            }
        }
        remarks.iter().try_for_each(|remark| output::line(format_args!("{remark}")))
    }
}

impl Report {
    /// The report without the sets whose copy was not timed because of a failure; pictures need the copy.
    fn complete_sets(&self, bench: &str) -> Option<Value> {
        let copied = |set: &str| self.rows.iter().any(|row| row.set == set && row.name == "copy");
        let rows: Vec<_> = self.rows.iter().filter(|row| copied(&row.set)).cloned().collect();
        if rows.is_empty() { None } else { Some(rows::json(bench, &self.machine, &rows)) }
    }
}

/// Rows and failures of one adapter.
pub(crate) struct Rows {
    adapter: String,
    pub(crate) rows: Vec<Row>,
    pub(crate) failures: Vec<Error>,
}

impl Rows {
    /// Measures one parameter set. If it fails, the rows that it has added stay, and the failure is recorded.
    pub(crate) fn measure(
        &mut self,
        set: &str,
        measure: impl FnOnce(&mut Self) -> Result<(), Error>,
    ) {
        let at = format!("{}, {set}", self.adapter);
        let failure = caught(&at, || measure(self)).err();
        self.failures.extend(failure);
    }
}

/// Runs `work` and returns a panic as an error. wgpu panics if a device is lost or out of memory; other sets and
/// adapters are still measured.
pub(crate) fn caught(at: &str, work: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let reason = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Err(Error::Panicked { at: at.to_owned(), reason: reason.unwrap_or_default() })
    })
}

#[cfg(test)]
mod tests {
    use super::Rows;
    use crate::error::Error;
    use burn_wsam_support::bench::rows::Row;
    use serde_json::Value;

    #[test]
    fn a_failure_ends_one_set_only() {
        let mut rows = Rows { adapter: "a".to_owned(), rows: Vec::new(), failures: Vec::new() };
        let row = |set: &str| Row {
            set: set.to_owned(),
            name: "copy".to_owned(),
            bytes: Some(1),
            counts: Value::Null,
            clock: "host",
            seconds: vec![1.0],
            interleaved: None,
        };
        rows.measure("refused", |rows| {
            rows.rows.push(row("refused"));
            Err(Error::Plot("why".to_owned()))
        });
        rows.measure("panicked", |_| panic!("the device is lost"));
        rows.measure("last", |rows| {
            rows.rows.push(row("last"));
            Ok(())
        });
        let sets: Vec<_> = rows.rows.iter().map(|row| row.set.as_str()).collect();
        assert_eq!(sets, ["refused", "last"]);
        let failures: Vec<_> = rows.failures.iter().map(ToString::to_string).collect();
        let panicked = "a, panicked: panicked: the device is lost";
        assert_eq!(failures, ["the picture could not be drawn: why", panicked]);
    }
}
