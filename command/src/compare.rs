//! `wsam bench --compare`: the rows of this run and of a saved report.

use crate::adapters::full_name;
use crate::error::Error;
use crate::output;
use crate::plot::saved::{self, Report};
use burn_wsam_support::adapters::Gpu;
use burn_wsam_support::bench::rows::Row;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// A saved report of `wsam bench`, to compare with.
pub(crate) struct Baseline {
    path: PathBuf,
    reports: Vec<Report>,
}

/// Rows of one adapter, compared with a saved report.
pub(crate) struct Comparison<'a> {
    /// The saved report's file and driver, and this run's driver, if they differ.
    drivers: Option<[String; 2]>,
    pairs: Vec<Pair<'a>>,
    /// Names of rows that only one has, or that were measured differently.
    only_old: Vec<String>,
    only_new: Vec<String>,
    different: Vec<String>,
    path: &'a Path,
}

/// Medians of one row, in seconds.
struct Pair<'a> {
    row: &'a Row,
    old: f64,
    new: f64,
}

impl Baseline {
    /// Reads the file, before anything is measured.
    ///
    /// # Errors
    ///
    /// [`Error::Read`], or [`Error::Report`] if a field cannot be read, if the report is of another benchmark, or if it
    /// has none of these adapters.
    pub(crate) fn read(path: &Path, gpus: &[Gpu]) -> Result<Self, Error> {
        let reports = saved::read(path)?;
        let bad = |reason| Err(Error::Report { path: path.to_owned(), reason });
        if let Some(other) = reports.iter().find(|report| report.bench != "kernels") {
            return bad(format!("a report of {:?}, not of `wsam bench`", other.bench));
        }
        let names: Vec<_> = reports.iter().map(|report| report.adapter.as_str()).collect();
        let absent = gpus.iter().map(full_name).find(|name| !names.contains(&name.as_str()));
        if let Some(name) = absent {
            return bad(format!("a report of {}, not of {name}", names.join(" and ")));
        }
        Ok(Self { path: path.to_owned(), reports })
    }

    /// Compares the rows of the adapter that `machine` describes.
    pub(crate) fn compare<'a>(
        &'a self,
        machine: &Value,
        rows: &'a [Row],
    ) -> Option<Comparison<'a>> {
        let report = self.reports.iter().find(|report| machine["adapter"] == *report.adapter)?;
        let driver = machine["driver"].as_str().unwrap_or_default();
        let drivers = report.driver.as_ref().filter(|old| *old != driver);
        let drivers = drivers.map(|old| [old.clone(), driver.to_owned()]);
        let name = |set: &str, name: &str| format!("{set}, {name}");
        let mut found = Comparison {
            drivers,
            pairs: Vec::new(),
            only_old: Vec::new(),
            only_new: Vec::new(),
            different: Vec::new(),
            path: &self.path,
        };
        for row in rows {
            let same = |old: &&saved::Row| old.set == row.set && old.name == row.name;
            match report.rows.iter().find(same) {
                None => found.only_new.push(name(&row.set, &row.name)),
                Some(old) if differs(old, row) => {
                    found.different.push(name(&row.set, &row.name));
                }
                Some(old) => {
                    let (old, new) = (old.seconds[1], row.quartiles()[1]);
                    found.pairs.push(Pair { row, old, new });
                }
            }
        }
        let is_new =
            |old: &&saved::Row| !rows.iter().any(|row| row.set == old.set && row.name == old.name);
        let only_old = report.rows.iter().filter(is_new);
        found.only_old.extend(only_old.map(|old| name(&old.set, &old.name)));
        Some(found)
    }
}

/// Whether the rows' times cannot be compared. Older reports do not say which clock it was.
fn differs(old: &saved::Row, new: &Row) -> bool {
    let clock = old.clock.as_deref().is_some_and(|clock| clock != new.clock);
    clock || old.bytes != new.bytes.map(|bytes| bytes as f64)
}

impl Comparison<'_> {
    /// Prints a table, and the rows that are not in it.
    pub(crate) fn print(&self) -> Result<(), Error> {
        let path = self.path.display();
        output::line(format_args!("compared with {path}:"))?;
        if let Some([old, new]) = &self.drivers {
            output::line(format_args!("another driver: {old}, now {new}"))?;
        }
        output::line(format_args!("| set | | old, ms | new, ms | new / old |"))?;
        output::line(format_args!("| --- | --- | --- | --- | --- |"))?;
        for Pair { row: Row { set, name, .. }, old, new } in &self.pairs {
            let [old_ms, new_ms] = [old, new].map(|seconds| 1e3 * seconds);
            let ratio = new / old;
            output::line(format_args!(
                "| {set} | {name} | {old_ms:.3} | {new_ms:.3} | {ratio:.3} |"
            ))?;
        }
        let others = [
            (format!("only in {path}"), &self.only_old),
            ("only in this run".to_owned(), &self.only_new),
            ("of other bytes or by another clock".to_owned(), &self.different),
        ];
        for (what, rows) in others {
            for row in rows {
                output::line(format_args!("{what}: {row}"))?;
            }
        }
        output::line(format_args!(""))
    }

    pub(crate) fn json(&self) -> Value {
        let pair = |Pair { row, old, new }: &Pair<'_>| json!({ "set": row.set, "name": row.name, "old": old, "new": new, "ratio": new / old });
        json!({
            "file": self.path.display().to_string(),
            "old_driver": self.drivers.as_ref().map(|[old, _]| old),
            "rows": self.pairs.iter().map(pair).collect::<Vec<_>>(),
            "only_old": self.only_old,
            "only_new": self.only_new,
            "different": self.different,
        })
    }
}
