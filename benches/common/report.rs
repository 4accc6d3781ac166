//! What every benchmark hands out beside criterion's own output: a table and a JSON file.

#[path = "rows.rs"]
mod rows;

use criterion::{BenchmarkGroup, Throughput, measurement::WallTime};
use rows::Row;
use serde_json::Value;
use std::cell::RefCell;
use std::time::Duration;

/// Rows of one benchmark on one adapter.
pub(crate) struct Report {
    bench: &'static str,
    machine: Value,
    rows: RefCell<Vec<Row>>,
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
        println!("\n{}", rows::table(&rows));
        let whole = rows::json(self.bench, &self.machine, &rows);
        let folder = std::env::var("WSAM_BENCH_OUT")
            .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/target/wsam").to_owned());
        std::fs::create_dir_all(&folder)?;
        let path = format!("{folder}/{}.json", self.bench);
        std::fs::write(&path, serde_json::to_string_pretty(&whole)?)?;
        println!("\n{path}");
        Ok(())
    }
}
