//! Reports, as `measured::rows::json` writes them.

use serde_json::Value;

/// One benchmark on one adapter.
pub(crate) struct Report {
    pub(crate) bench: String,
    pub(crate) adapter: String,
    pub(crate) rows: Vec<Row>,
}

/// One thing that was timed.
pub(crate) struct Row {
    pub(crate) set: String,
    pub(crate) name: String,
    /// Lower quartile, median, upper quartile.
    pub(crate) seconds: [f64; 3],
    pub(crate) bytes: Option<f64>,
    /// The rate as a share of the copy's that ran with it.
    pub(crate) of_copy: Option<f64>,
    pub(crate) counts: Value,
}

impl Row {
    /// GB/s at the quartiles of time, so the fastest first.
    pub(crate) fn rates(&self) -> Option<[f64; 3]> {
        let bytes = self.bytes?;
        Some(self.seconds.map(|seconds| bytes / seconds / 1e9))
    }
}

pub(crate) fn parse(reports: &[Value]) -> Result<Vec<Report>, String> {
    reports.iter().map(report).collect()
}

fn report(json: &Value) -> Result<Report, String> {
    let rows = json["rows"].as_array().ok_or("no list of rows: not a report")?;
    Ok(Report {
        bench: text(json, "bench")?,
        adapter: text(&json["machine"], "adapter")?,
        rows: rows.iter().map(row).collect::<Result<_, _>>()?,
    })
}

fn row(json: &Value) -> Result<Row, String> {
    let name = text(json, "name")?;
    let time = |quartile| {
        let seconds = json["seconds"][quartile].as_f64().filter(|seconds| *seconds > 0.0);
        seconds.ok_or_else(|| format!("{name}: no time at its {quartile}"))
    };
    let seconds = [time("quartile_1")?, time("median")?, time("quartile_3")?];
    let [bytes, of_copy] = ["bytes", "of_copy"].map(|key| json[key].as_f64());
    let (set, counts) = (text(json, "set")?, json["counts"].clone());
    Ok(Row { set, name, seconds, bytes, of_copy, counts })
}

fn text(json: &Value, name: &str) -> Result<String, String> {
    json[name].as_str().map(str::to_owned).ok_or_else(|| format!("no {name} in it: not a report"))
}
