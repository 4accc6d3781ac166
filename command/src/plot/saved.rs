//! Parsing of reports that `burn_wsam_support::bench::rows::json` has written.
//!
//! Every number is checked against a range before anything is drawn, because plotters' axes panic or loop
//! endlessly on 0, infinity or denormals.

use crate::error::Error;
use crate::read;
use serde_json::Value;
use std::ops::RangeInclusive;
use std::path::Path;

/// One benchmark on one adapter.
pub(crate) struct Report {
    /// The file, or a name for measurements that come from no file.
    pub(crate) source: String,
    pub(crate) bench: String,
    pub(crate) adapter: String,
    pub(crate) driver: Option<String>,
    pub(crate) rows: Vec<Row>,
}

/// One timed step, stage or copy.
pub(crate) struct Row {
    pub(crate) set: String,
    pub(crate) name: String,
    /// Lower quartile, median, upper quartile.
    pub(crate) seconds: [f64; 3],
    pub(crate) bytes: Option<f64>,
    /// The rate as a share of the rate of the copy. Older reports name it `of_copy`; their copies were timed by the
    /// host's clock.
    pub(crate) share_of_copy: Option<f64>,
    /// What it was timed with; older reports do not say it.
    pub(crate) clock: Option<String>,
    pub(crate) counts: Counts,
}

/// Counts that the scaling picture uses.
pub(crate) struct Counts {
    pub(crate) parameters: Option<f64>,
    pub(crate) tensors: Option<f64>,
    pub(crate) dispatches: Option<f64>,
    /// Name of the count that varies.
    pub(crate) axis: Option<String>,
}

/// From one picosecond to thirty years.
const SECONDS: RangeInclusive<f64> = 1e-12..=1e9;
/// Up to an exabyte.
const BYTES: RangeInclusive<f64> = 1.0..=1e18;
const SHARE: RangeInclusive<f64> = 1e-9..=1e9;
const COUNT: RangeInclusive<f64> = 1.0..=1e15;
/// Longest name that fits a picture, in characters.
const MAX_NAME: usize = 200;

impl Row {
    /// GB/s at the quartiles of time, the fastest first.
    pub(crate) fn rates(&self) -> Option<[f64; 3]> {
        let bytes = self.bytes?;
        Some(self.seconds.map(|seconds| bytes / seconds / 1e9))
    }
}

/// Reads the reports of a file.
pub(crate) fn read(path: &Path) -> Result<Vec<Report>, Error> {
    let bad = |reason: String| Error::Report { path: path.to_owned(), reason };
    let text = read::text(path)?;
    let json: Value = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
    let list = match json {
        Value::Array(list) => list,
        one => vec![one],
    };
    parse(&path.display().to_string(), &list).map_err(bad)
}

/// Parses the reports of a source.
///
/// # Errors
///
/// Names the report, row and field, but not the source.
pub(crate) fn parse(source: &str, reports: &[Value]) -> Result<Vec<Report>, String> {
    if reports.is_empty() {
        return Err("no report found".to_owned());
    }
    let parsed = reports.iter().enumerate().map(|(i, json)| {
        let at = if reports.len() == 1 { String::new() } else { format!("report {}: ", i + 1) };
        report(source, json).map_err(|reason| format!("{at}{reason}"))
    });
    parsed.collect()
}

fn report(source: &str, json: &Value) -> Result<Report, String> {
    let rows = json["rows"].as_array().ok_or("not a report: it has no list of rows")?;
    if rows.is_empty() {
        return Err("its list of rows is empty".to_owned());
    }
    let rows = rows.iter().enumerate().map(|(i, json)| {
        let names = [&json["set"], &json["name"]].map(|name| name.as_str().unwrap_or("?"));
        let at = || format!("row {} ({:?} of {:?})", i + 1, cut(names[1]), cut(names[0]));
        row(json).map_err(|reason| format!("{}: {reason}", at()))
    });
    Ok(Report {
        source: source.to_owned(),
        bench: text(json, "bench")?,
        adapter: text(&json["machine"], "adapter")?,
        driver: json["machine"]["driver"].as_str().map(str::to_owned),
        rows: rows.collect::<Result<_, _>>()?,
    })
}

fn row(json: &Value) -> Result<Row, String> {
    let (set, name) = (text(json, "set")?, text(json, "name")?);
    let time = |quartile: &str| {
        number(&json["seconds"], "seconds.", quartile, SECONDS)
            .and_then(|time| time.ok_or_else(|| format!("seconds.{quartile} is missing")))
            .map_err(|reason| format!("no time at its {quartile}: {reason}"))
    };
    let seconds = [time("quartile_1")?, time("median")?, time("quartile_3")?];
    if !seconds.is_sorted() {
        return Err(format!("seconds: quartiles {seconds:?} are not in order"));
    }
    let count = |name| {
        let count = number(&json["counts"], "counts.", name, COUNT)?;
        match count.filter(|count| count.fract() != 0.0) {
            Some(count) => Err(format!("counts.{name} is {count}, not a whole number")),
            None => Ok(count),
        }
    };
    let axis = match &json["counts"]["axis"] {
        Value::Null => None,
        Value::String(axis) => Some(axis.clone()),
        other => return Err(format!("counts.axis is {}, not a string", shown(other))),
    };
    Ok(Row {
        set,
        name,
        seconds,
        bytes: number(json, "", "bytes", BYTES)?,
        share_of_copy: match number(json, "", "share_of_copy", SHARE)? {
            None => number(json, "", "of_copy", SHARE)?,
            share => share,
        },
        clock: match &json["clock"] {
            Value::Null => None,
            Value::String(clock) => Some(clock.clone()),
            other => return Err(format!("clock is {}, not a string", shown(other))),
        },
        counts: Counts {
            parameters: count("parameters")?,
            tensors: count("tensors")?,
            dispatches: count("dispatches")?,
            axis,
        },
    })
}

/// Reads a field that is null or a number in a range.
fn number(
    json: &Value,
    path: &str,
    name: &str,
    range: RangeInclusive<f64>,
) -> Result<Option<f64>, String> {
    let value = &json[name];
    match value.as_f64() {
        None if value.is_null() => Ok(None),
        Some(number) if range.contains(&number) => Ok(Some(number)),
        _ => {
            let (low, high) = range.into_inner();
            Err(format!("{path}{name} is {}, not a number from {low:e} to {high:e}", shown(value)))
        }
    }
}

fn text(json: &Value, name: &str) -> Result<String, String> {
    let text = json[name].as_str().ok_or_else(|| format!("not a report: it has no {name}"))?;
    // SVG cannot contain control characters.
    if text.is_empty() || text.chars().count() > MAX_NAME || text.contains(char::is_control) {
        let shown = cut(text);
        return Err(format!("{name} is {shown:?}, not 1 to {MAX_NAME} printable characters"));
    }
    Ok(text.to_owned())
}

fn shown(value: &Value) -> String {
    cut(&value.to_string())
}

/// Shortens a text for a message.
fn cut(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
