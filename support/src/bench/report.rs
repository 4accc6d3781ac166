//! Reports of the benchmarks: a table and a JSON file, in addition to criterion's output.

use super::rows::{self, Row};
use criterion::{BenchmarkGroup, Throughput, measurement::WallTime};
use serde_json::Value;
use std::cell::RefCell;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Seconds to time each row for, in place of the benchmark's own.
const SECONDS: &str = "WSAM_BENCH_SECONDS";
/// Seconds after which a benchmark times no more rows.
const LIMIT: &str = "WSAM_BENCH_LIMIT";

fn seconds(variable: &str) -> Option<Duration> {
    let text = std::env::var(variable).ok()?;
    let seconds = text.parse().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
    let seconds = seconds.filter(|seconds| !seconds.is_zero());
    Some(seconds.unwrap_or_else(|| panic!("{variable} is {text:?}, not a number of seconds")))
}

/// Ten samples a row, with these times of warm-up and measurement; `WSAM_BENCH_SECONDS` replaces them.
pub fn configure(group: &mut BenchmarkGroup<'_, WallTime>, warm_up: Duration, timed: Duration) {
    let short = seconds(SECONDS);
    let [warm_up, timed] = short.map_or([warm_up, timed], |timed| [timed / 4, timed]);
    // The quartiles are those of the samples; criterion's own estimates are not reported.
    group.sample_size(10).warm_up_time(warm_up).measurement_time(timed).nresamples(2000);
}

/// Rows of one benchmark on one adapter.
pub struct Report {
    bench: &'static str,
    machine: Value,
    rows: RefCell<Vec<Row>>,
    /// When to stop, and the rows that were skipped because of it.
    end: Option<Instant>,
    skipped: RefCell<Vec<String>>,
}

/// A run that is interleaved with a timed one.
pub struct Other<'a> {
    pub name: &'static str,
    pub bytes: Option<u64>,
    pub clock: &'static str,
    pub run: &'a dyn Fn() -> Duration,
}

impl Report {
    /// `machine` describes the adapter and the driver.
    pub fn new(bench: &'static str, machine: Value) -> Self {
        println!("{bench} on {machine}");
        let end = seconds(LIMIT).map(|limit| Instant::now() + limit);
        Self { bench, machine, rows: RefCell::default(), end, skipped: RefCell::default() }
    }

    /// Whether the seconds of `WSAM_BENCH_LIMIT` have passed. Further rows are skipped, and named at the end.
    pub fn is_over(&self) -> bool {
        self.end.is_some_and(|end| Instant::now() >= end)
    }

    /// Times `run`, which returns its time, under criterion. `interleaved` runs after each run and is timed
    /// separately, so that other load on the machine slows both down equally.
    pub fn time(
        &self,
        group: &mut BenchmarkGroup<'_, WallTime>,
        (set, name): (&str, &str),
        (bytes, clock): (Option<u64>, &'static str),
        counts: Value,
        interleaved: Option<&Other<'_>>,
        mut run: impl FnMut() -> Duration,
    ) {
        if self.is_over() {
            self.skipped.borrow_mut().push(format!("{set}: {name}"));
            return;
        }
        if let Some(bytes) = bytes {
            group.throughput(Throughput::Bytes(bytes));
        }
        let (mut seconds, mut others) = (Vec::new(), Vec::new());
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|count| {
                if seconds.is_empty() {
                    // The first run compiles and allocates.
                    run();
                }
                let mut sum = Duration::ZERO;
                for _ in 0..count {
                    let time = run();
                    sum += time;
                    seconds.push(time.as_secs_f64());
                    others.extend(interleaved.map(|other| (other.run)().as_secs_f64()));
                }
                sum
            });
        });
        // Empty if a filter on the command line excludes the row. Zero for a stage that has no dispatch of its own.
        if seconds.iter().any(|seconds| *seconds > 0.0) {
            let (set, name) = (set.to_owned(), name.to_owned());
            let interleaved = interleaved.map(|other| {
                Box::new(Row {
                    set: set.clone(),
                    name: other.name.to_owned(),
                    bytes: other.bytes,
                    counts: Value::Null,
                    clock: other.clock,
                    seconds: others,
                    interleaved: None,
                })
            });
            let row = Row { set, name, bytes, counts, clock, seconds, interleaved };
            self.rows.borrow_mut().push(row);
            if self.end.is_some() {
                // So that a benchmark that is stopped keeps its rows.
                self.write().expect("the report can be written");
            }
        }
    }

    /// Whether the rest of a set has to be skipped, because the time is over. It is named at the end.
    pub fn skips(&self, set: &str) -> bool {
        if self.is_over() {
            self.skipped.borrow_mut().push(set.to_owned());
        }
        self.is_over()
    }

    /// Adds counts to a row, if it was timed.
    pub fn add_counts(&self, (set, name): (&str, &str), counts: impl FnOnce(&Row) -> Value) {
        let mut rows = self.rows.borrow_mut();
        if let Some(row) = rows.iter_mut().find(|row| row.set == set && row.name == name) {
            for (count, value) in counts(row).as_object().into_iter().flatten() {
                row.counts[count] = value.clone();
            }
        }
    }

    /// Adds a row with all interleaved runs of a set.
    pub fn others(&self, set: &str) {
        let mut rows = self.rows.borrow_mut();
        let of_set = rows.iter().filter(|row| row.set == set);
        let mut of_set = of_set.filter_map(|row| row.interleaved.as_deref());
        let Some(mut all) = of_set.next().cloned() else {
            return;
        };
        for other in of_set {
            all.seconds.extend(&other.seconds);
        }
        rows.push(all);
    }

    /// Prints the table and writes it, and the JSON file, named after the benchmark, to the folder
    /// `WSAM_BENCH_OUT` or `target/wsam`.
    ///
    /// # Errors
    ///
    /// If a file cannot be written.
    pub fn finish(&self) -> std::io::Result<()> {
        println!("\n{}", rows::table(&self.rows.borrow()));
        println!("\n{}", self.write()?.display());
        for row in self.skipped.borrow().iter() {
            println!("skipped after {LIMIT}: {row}");
        }
        Ok(())
    }

    /// Writes `<bench>.json` and the table, `<bench>.md`, and returns the path of the first.
    fn write(&self) -> std::io::Result<PathBuf> {
        let rows = self.rows.borrow();
        let whole = rows::json(self.bench, &self.machine, &rows);
        let chosen = std::env::var_os("WSAM_BENCH_OUT");
        let folder = chosen.map_or_else(|| crate::repository().join("target/wsam"), PathBuf::from);
        let named = |error: std::io::Error| {
            let path = folder.display();
            std::io::Error::new(error.kind(), format!("{path} (WSAM_BENCH_OUT): {error}"))
        };
        let path = folder.join(format!("{}.json", self.bench));
        std::fs::create_dir_all(&folder).map_err(named)?;
        std::fs::write(&path, serde_json::to_string_pretty(&whole)?).map_err(named)?;
        let table = rows::table(&rows) + "\n";
        std::fs::write(path.with_extension("md"), table).map_err(named)?;
        Ok(path)
    }
}
