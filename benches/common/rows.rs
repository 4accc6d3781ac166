//! What a benchmark found: rows, as a table and as JSON.

use serde_json::{Value, json};

/// One thing that was timed.
pub(crate) struct Row {
    /// The parameter set.
    pub(crate) set: String,
    pub(crate) name: String,
    /// Bytes of tensors moved, where they are counted.
    pub(crate) bytes: Option<u64>,
    /// What else was counted.
    pub(crate) counts: Value,
    pub(crate) seconds: Vec<f64>,
    /// The copy, where the two ran in turns.
    pub(crate) copy: Option<Copies>,
}

/// Runs of the copy.
pub(crate) struct Copies {
    pub(crate) bytes: u64,
    pub(crate) seconds: Vec<f64>,
}

fn quartiles(seconds: &[f64]) -> [f64; 3] {
    let mut sorted = seconds.to_vec();
    sorted.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| sorted[sorted.len() * quarter / 4])
}

impl Row {
    /// Lower quartile, median, upper quartile.
    pub(crate) fn quartiles(&self) -> [f64; 3] {
        quartiles(&self.seconds)
    }

    /// GB/s at the median.
    pub(crate) fn rate(&self) -> Option<f64> {
        Some(self.bytes? as f64 / self.quartiles()[1] / 1e9)
    }
}

/// The rate as a share of the copy's: of the one that ran in turns with it, or else on the same set.
fn of_copy(rows: &[Row], row: &Row) -> Option<f64> {
    let copy = match &row.copy {
        Some(Copies { bytes, seconds }) => *bytes as f64 / quartiles(seconds)[1] / 1e9,
        None => rows.iter().find(|other| other.set == row.set && other.name == "copy")?.rate()?,
    };
    Some(row.rate()? / copy)
}

/// In Markdown.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut lines = vec![
        "| set | | median ms | quartiles | GB/s | of the copy | |".to_owned(),
        "| --- | --- | --- | --- | --- | --- | --- |".to_owned(),
    ];
    let text = |number: Option<f64>| number.map_or(String::new(), |number| format!("{number:.2}"));
    lines.extend(rows.iter().map(|row| {
        let [low, median, high] = row.quartiles().map(|seconds| 1e3 * seconds);
        let (rate, share) = (text(row.rate()), text(of_copy(rows, row)));
        let Row { set, name, counts, .. } = row;
        let counts = if counts.is_null() { String::new() } else { counts.to_string() };
        format!(
            "| {set} | {name} | {median:.3} | {low:.3} - {high:.3} | {rate} | {share} | {counts} |"
        )
    }));
    lines.join("\n")
}

/// For programs. `machine` says what it ran on.
pub(crate) fn json(bench: &str, machine: &Value, rows: &[Row]) -> Value {
    let row = |row: &Row| {
        let [low, median, high] = row.quartiles();
        json!({
            "set": row.set,
            "name": row.name,
            "seconds": { "median": median, "quartile_1": low, "quartile_3": high },
            "samples": row.seconds.len(),
            "bytes": row.bytes,
            "gb_per_s": row.rate(),
            "of_copy": of_copy(rows, row),
            "counts": row.counts,
        })
    };
    json!({
        "bench": bench,
        "machine": machine,
        "rows": rows.iter().map(row).collect::<Vec<_>>(),
    })
}
