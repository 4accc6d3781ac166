//! What every benchmark hands out beside criterion's own output: a table and a JSON file.

use criterion::{BenchmarkGroup, Throughput, measurement::WallTime};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::time::Duration;

/// Rows of one benchmark on one adapter.
pub(crate) struct Report {
    bench: &'static str,
    machine: Value,
    rows: RefCell<Vec<Row>>,
}

struct Row {
    set: String,
    name: String,
    /// Bytes of tensors moved, where they are counted.
    bytes: Option<u64>,
    /// What else was counted.
    counts: Value,
    seconds: Vec<f64>,
}

impl Row {
    /// Lower quartile, median, upper quartile.
    fn quartiles(&self) -> [f64; 3] {
        let mut sorted = self.seconds.clone();
        sorted.sort_by(f64::total_cmp);
        [1, 2, 3].map(|quarter| sorted[sorted.len() * quarter / 4])
    }

    fn rate(&self) -> Option<f64> {
        Some(self.bytes? as f64 / self.quartiles()[1] / 1e9)
    }
}

impl Report {
    /// `machine` says what it runs on.
    pub(crate) fn new(bench: &'static str, machine: Value) -> Self {
        println!("{bench} on {machine}");
        Self { bench, machine, rows: RefCell::default() }
    }

    /// Times `run` under criterion. It returns the time that counts.
    pub(crate) fn time(
        &self,
        group: &mut BenchmarkGroup<'_, WallTime>,
        (set, name): (&str, &str),
        bytes: Option<u64>,
        counts: Value,
        mut run: impl FnMut() -> Duration,
    ) {
        if let Some(bytes) = bytes {
            group.throughput(Throughput::Bytes(bytes));
        }
        // The first run compiles and allocates.
        run();
        let mut seconds = Vec::new();
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|count| {
                let times: Vec<Duration> = (0..count).map(|_| run()).collect();
                seconds.extend(times.iter().map(Duration::as_secs_f64));
                times.into_iter().sum()
            });
        });
        // A filter on the command line leaves it out.
        if !seconds.is_empty() {
            let (set, name) = (set.to_owned(), name.to_owned());
            self.rows.borrow_mut().push(Row { set, name, bytes, counts, seconds });
        }
    }

    /// Prints the table and writes the JSON file, named after the benchmark, to the folder
    /// `WSAM_BENCH_OUT` or `target/wsam`.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub(crate) fn finish(&self) -> std::io::Result<()> {
        let rows = self.rows.borrow();
        let copy = |set: &str| {
            let found = rows.iter().find(|row| row.set == set && row.name == "copy")?;
            found.rate()
        };
        println!("\n| set | | median ms | quartiles | GB/s | of the copy | |");
        println!("| --- | --- | --- | --- | --- | --- | --- |");
        for row in rows.iter() {
            let [low, median, high] = row.quartiles().map(|seconds| 1e3 * seconds);
            let rate = row.rate().map_or(String::new(), |rate| format!("{rate:.2}"));
            let share = row.rate().zip(copy(&row.set));
            let share = share.map_or(String::new(), |(rate, copy)| format!("{:.2}", rate / copy));
            let Row { set, name, counts, .. } = row;
            let counts = if counts.is_null() { String::new() } else { counts.to_string() };
            println!(
                "| {set} | {name} | {median:.3} | {low:.3} - {high:.3} | {rate} | {share} | {counts} |"
            );
        }
        let rows: Vec<_> = rows
            .iter()
            .map(|row| {
                let [low, median, high] = row.quartiles();
                json!({
                    "set": row.set,
                    "name": row.name,
                    "seconds": { "median": median, "quartile_1": low, "quartile_3": high },
                    "samples": row.seconds.len(),
                    "bytes": row.bytes,
                    "gb_per_s": row.rate(),
                    "of_copy": row.rate().zip(copy(&row.set)).map(|(rate, copy)| rate / copy),
                    "counts": row.counts,
                })
            })
            .collect();
        let whole = json!({ "bench": self.bench, "machine": self.machine, "rows": rows });
        let folder = std::env::var("WSAM_BENCH_OUT")
            .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/target/wsam").to_owned());
        std::fs::create_dir_all(&folder)?;
        let path = format!("{folder}/{}.json", self.bench);
        std::fs::write(&path, serde_json::to_string_pretty(&whole)?)?;
        println!("\n{path}");
        Ok(())
    }
}
