//! Rows of a report, as a table and as JSON.

use serde_json::{Value, json};

/// One timed step, stage or copy.
#[derive(Clone)]
pub struct Row {
    /// The parameter set.
    pub set: String,
    pub name: String,
    /// Bytes of tensors moved, where they are counted.
    pub bytes: Option<u64>,
    /// Other counts.
    pub counts: Value,
    /// What it was timed with: `device` or `host`.
    pub clock: &'static str,
    pub seconds: Vec<f64>,
    /// The run that was interleaved with it.
    pub interleaved: Option<Box<Row>>,
}

impl Row {
    /// Lower quartile, median, upper quartile.
    pub fn quartiles(&self) -> [f64; 3] {
        let mut sorted = self.seconds.clone();
        sorted.sort_by(f64::total_cmp);
        [1, 2, 3].map(|quarter| sorted[sorted.len() * quarter / 4])
    }

    /// GB/s at the median.
    pub fn rate(&self) -> Option<f64> {
        Some(self.bytes? as f64 / self.quartiles()[1] / 1e9)
    }
}

/// Median of numbers, which must not be empty.
pub fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// Rate as a share of the copy's rate: of the interleaved copy, or else of the copy on the same set.
fn share_of_copy(rows: &[Row], row: &Row) -> Option<f64> {
    let on_set = rows.iter().filter(|other| other.set == row.set);
    let copy =
        row.interleaved.as_deref().into_iter().chain(on_set).find(|other| other.name == "copy")?;
    Some(row.rate()? / copy.rate()?)
}

/// Formats rows as a Markdown table.
pub fn table(rows: &[Row]) -> String {
    let mut lines = vec![
        "| set | | median ms | quartiles | clock | GB/s | of the copy | |".to_owned(),
        "| --- | --- | --- | --- | --- | --- | --- | --- |".to_owned(),
    ];
    let text = |number: Option<f64>| number.map_or(String::new(), |number| format!("{number:.2}"));
    lines.extend(rows.iter().map(|row| {
        let [low, median, high] = row.quartiles().map(|seconds| 1e3 * seconds);
        let (rate, share) = (text(row.rate()), text(share_of_copy(rows, row)));
        let Row { set, name, counts, clock, .. } = row;
        let counts = if counts.is_null() { String::new() } else { counts.to_string() };
        format!(
            "| {set} | {name} | {median:.3} | {low:.3} - {high:.3} | {clock} | {rate} | {share} | {counts} |"
        )
    }));
    lines.join("\n")
}

/// Formats a report as JSON. `machine` describes the adapter and the driver.
pub fn json(bench: &str, machine: &Value, rows: &[Row]) -> Value {
    let seconds = |row: &Row| {
        let [low, median, high] = row.quartiles();
        json!({ "median": median, "quartile_1": low, "quartile_3": high })
    };
    let row = |row: &Row| {
        json!({
            "set": row.set,
            "name": row.name,
            "seconds": seconds(row),
            "samples": row.seconds.len(),
            "bytes": row.bytes,
            "gb_per_s": row.rate(),
            "clock": row.clock,
            "clock": row.clock,
            "share_of_copy": share_of_copy(rows, row),
            "counts": row.counts,
            "beside": row.interleaved.as_deref().map(|other| {
                json!({ "name": other.name, "seconds": seconds(other) })
            }),
        })
    };
    json!({
        "bench": bench,
        "machine": machine,
        "rows": rows.iter().map(row).collect::<Vec<_>>(),
    })
}
