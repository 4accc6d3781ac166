//! Times in the READMEs are those of the reports committed beside them.

use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;

/// One cell's number, or a bracket's: of what report, which row, and how.
#[derive(Clone, Copy)]
enum Figure {
    /// Median, in ms.
    Time(&'static str, &'static str),
    /// The share of the copy's rate.
    Share(&'static str, &'static str),
    /// The copy's GB/s.
    CopyRate(&'static str),
    /// How many times the second row's median the first row's is.
    Times((&'static str, &'static str), (&'static str, &'static str)),
}
use Figure::{CopyRate, Share, Time, Times};

struct Reports(HashMap<&'static str, Value>);

impl Reports {
    fn read() -> Self {
        let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/results");
        let read = |(key, machine, name)| {
            let file = results.join(machine).join(format!("{name}.json"));
            let text = std::fs::read_to_string(file).expect("committed");
            let json: Value = serde_json::from_str(&text).expect("JSON");
            // The command `wsam` writes a list, of an adapter each.
            (key, json.get(0).cloned().unwrap_or(json))
        };
        let first = "llvmpipe-22.3.6-two-cores";
        let third = "llvmpipe-22.3.6-two-cores-third-machine";
        let now = ["step", "kernels", "burn", "host", "host-before", "tuning"];
        let before = [("burn before", first, "burn"), ("unfused", first, "unfused")];
        Self(now.map(|name| (name, third, name)).into_iter().chain(before).map(read).collect())
    }

    fn row(&self, report: &str, set: &str, name: &str) -> &Value {
        let rows = self.0[report]["rows"].as_array().expect("rows");
        let found = rows.iter().find(|row| row["set"] == set && row["name"] == name);
        found.unwrap_or_else(|| panic!("no {name} over {set} in {report}.json"))
    }

    fn ms(&self, set: &str, (report, name): (&str, &str)) -> f64 {
        self.row(report, set, name)["seconds"]["median"].as_f64().expect("a median") * 1e3
    }

    fn value(&self, set: &str, figure: Figure) -> f64 {
        match figure {
            Time(report, name) => self.ms(set, (report, name)),
            Share(report, name) => {
                self.row(report, set, name)["of_copy"].as_f64().expect("a share")
            }
            CopyRate(report) => self.row(report, set, "copy")["gb_per_s"].as_f64().expect("a rate"),
            Times(one, other) => self.ms(set, one) / self.ms(set, other),
        }
    }
}

/// The rows of the table with this header, cell by cell.
fn table(page: &str, header: &str) -> Vec<Vec<String>> {
    let text =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).expect("a page");
    let mut lines = text.lines().skip_while(|line| *line != header);
    assert!(lines.next().is_some(), "{page} has no table {header}");
    let rows = lines.skip(1).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect())
        .collect()
}

/// Numbers of a cell: `98.5 (0.94)` has two.
fn numbers(cell: &str) -> Vec<&str> {
    let number = |text: &&str| !text.is_empty();
    cell.split([' ', '(', ')']).filter(number).collect()
}

/// Whether `value`, rounded to as many places as `printed` has, is `printed`.
fn agrees(printed: &str, value: f64) -> bool {
    let places = printed.split_once('.').map_or(0, |(_, places)| places.len());
    format!("{value:.places$}") == printed
}

fn holds(page: &str, header: &str, sets: &[&str], columns: &[&[Figure]]) {
    let reports = Reports::read();
    let rows = table(page, header);
    assert_eq!(rows.len(), sets.len(), "rows of {header} in {page}");
    for (row, set) in rows.iter().zip(sets) {
        assert!(row[0].starts_with(set), "{page}: {set} is {}", row[0]);
        assert_eq!(row.len(), columns.len() + 1, "{page}: cells of {row:?}");
        for (cell, figures) in row[1..].iter().zip(columns) {
            let printed = numbers(cell);
            assert_eq!(printed.len(), figures.len(), "{page}, {set}: {cell}");
            for (printed, figure) in printed.iter().zip(*figures) {
                let value = reports.value(set, *figure);
                assert!(agrees(printed, value), "{page}, {set}: {printed} for {value}");
            }
        }
    }
}

const ALL: [&str; 6] =
    ["ResNet-50", "ResNet-18 (CIFAR)", "ViT-B/16", "GPT-2 124M", "1000 x 1000", "134M + 3"];

const fn step(name: &'static str) -> [Figure; 2] {
    [Time("step", name), Share("step", name)]
}

const fn against(report: &'static str, name: &'static str, fused: &'static str) -> [Figure; 2] {
    [Time(report, name), Times((report, name), ("burn", fused))]
}

const IN_BURN: [&str; 4] = ["ResNet-50", "ResNet-18 (CIFAR)", "ViT-B/16", "1000 x 1000"];
const SGD: &str = "SGD + momentum, fused";
const SGD_OPS: &str = "SGD + momentum, tensor operations";
const SGD_ALONE: &str = "SGD + momentum, Burn's own alone";
const ADAMW: &str = "AdamW, fused";
const ADAMW_OPS: &str = "AdamW, tensor operations";
const ADAMW_ALONE: &str = "AdamW, Burn's own alone";

#[test]
fn engine_in_the_readme() {
    let header = "| The engine's step | SGD | SGD + momentum | AdamW |";
    let sets = ["ResNet-50", "ViT-B/16", "1000 x 1000"];
    holds("README.md", header, &sets, &[&step("SGD"), &step("SGD + momentum"), &step("AdamW")]);
}

#[test]
fn burn_in_the_readme() {
    let header = "| In Burn, end to end | SGD + momentum | in tensor operations | AdamW | in tensor operations |";
    let sets = ["ResNet-50", "ViT-B/16", "1000 x 1000"];
    let columns: [&[Figure]; 4] = [
        &[Time("burn", SGD)],
        &against("burn", SGD_OPS, SGD),
        &[Time("burn", ADAMW)],
        &against("burn", ADAMW_OPS, ADAMW),
    ];
    holds("README.md", header, &sets, &columns);
}

#[test]
fn engine_in_the_benchmarks() {
    let header = "| Parameter set | SGD | SGD + momentum | lean | AdamW | lean | Copy, GB/s |";
    let columns: [&[Figure]; 6] = [
        &step("SGD"),
        &step("SGD + momentum"),
        &step("SGD + momentum, lean"),
        &step("AdamW"),
        &step("AdamW, lean"),
        &[CopyRate("step")],
    ];
    holds("benches/README.md", header, &ALL, &columns);
}

#[test]
fn stages_in_the_benchmarks() {
    let names = [
        "norm",
        "norm_finish",
        "ascent",
        "descent, SGD",
        "descent, SGD + momentum",
        "descent, AdamW",
        "lean_ascent, SGD + momentum",
        "lean_descent",
    ];
    let reports = Reports::read();
    let rows = table("benches/README.md", "| Stage | ResNet-50 | ViT-B/16 | 1000 x 1000 |");
    assert_eq!(rows.len(), names.len());
    for (row, name) in rows.iter().zip(names) {
        assert_eq!(row[0].replace('`', ""), name);
        for (cell, set) in row[1..].iter().zip(["ResNet-50", "ViT-B/16", "1000 x 1000"]) {
            let printed = numbers(cell);
            // norm_finish moves next to nothing, and has no rate.
            let figures = [Time("kernels", name), Share("kernels", name)];
            assert_eq!(printed.len(), if name == "norm_finish" { 1 } else { 2 }, "{cell}");
            for (printed, figure) in printed.iter().zip(figures) {
                let value = reports.value(set, figure);
                assert!(agrees(printed, value), "{name}, {set}: {printed} for {value}");
            }
        }
    }
}

#[test]
fn tunings_in_the_benchmarks() {
    let reports = Reports::read();
    let header = "| Workgroups of | chunks of 2,048 | 4,096 | 8,192 | 16,384 | 32,768 |";
    let rows = table("benches/README.md", header);
    assert_eq!(rows.len(), 3);
    for row in &rows {
        assert_eq!(row.len(), 6, "{row:?}");
        for (printed, chunk_len) in row[1..].iter().zip([2048, 4096, 8192, 16_384, 32_768]) {
            let name = format!("step, workgroups of {}, chunks of {chunk_len}", row[0]);
            let value = reports.ms("ResNet-50", ("tuning", &name));
            assert!(agrees(printed, value), "{name}: {printed} for {value}");
        }
    }
}

#[test]
fn burn_in_the_benchmarks() {
    let header = "| | SGD + momentum: fused | lean | tensor ops | Burn's SGD | AdamW: fused | lean | tensor ops | Burn's AdamW |";
    let columns: [&[Figure]; 8] = [
        &[Time("burn", SGD)],
        &[Time("burn", "SGD + momentum, fused, lean")],
        &against("burn", SGD_OPS, SGD),
        &against("burn", SGD_ALONE, SGD),
        &[Time("burn", ADAMW)],
        &[Time("burn", "AdamW, fused, lean")],
        &against("burn", ADAMW_OPS, ADAMW),
        &against("burn", ADAMW_ALONE, ADAMW),
    ];
    holds("benches/README.md", header, &IN_BURN, &columns);
}

#[test]
fn unfused_in_the_benchmarks() {
    let header = "| Without Burn's fusion | SGD + momentum: fused | unfused tensor ops | AdamW: fused | unfused tensor ops |";
    let times =
        |ops, fused| [Time("unfused", ops), Times(("unfused", ops), ("burn before", fused))];
    let (sgd, adamw) = (times(SGD_OPS, SGD), times(ADAMW_OPS, ADAMW));
    let columns: [&[Figure]; 4] =
        [&[Time("burn before", SGD)], &sgd, &[Time("burn before", ADAMW)], &adamw];
    holds("benches/README.md", header, &IN_BURN, &columns);
}

/// Whole training steps, and what they take more than the two passes alone.
#[test]
fn trainings_in_the_benchmarks() {
    let reports = Reports::read();
    let tables = [
        (
            "| | two passes | fused | lean | tensor ops |",
            "burn",
            &["fused", "fused, lean", "tensor operations"][..],
        ),
        ("| | two passes, unfused | tensor ops, unfused |", "unfused", &["tensor operations"][..]),
    ];
    for (header, report, ways) in tables {
        let rows = table("benches/README.md", header);
        assert_eq!(rows.len(), 4, "{header}");
        for row in &rows {
            let (set, base) = row[0].split_once(", ").expect("a set and a base optimizer");
            let passes = reports.ms(set, (report, "two passes alone"));
            assert!(agrees(&row[1], passes), "{row:?}: {passes}");
            assert_eq!(row.len(), ways.len() + 2, "{row:?}");
            for (cell, way) in row[2..].iter().zip(ways) {
                let name = format!("{base}, {way}");
                let time = reports.ms(set, (report, &name));
                // Those that ran in turns with it, if any did.
                let beside = &reports.row(report, set, &name)["beside"]["seconds"]["median"];
                let passes = beside.as_f64().map_or(passes, |seconds| 1e3 * seconds);
                let [printed, more] = numbers(cell)[..] else { panic!("{cell}") };
                assert!(agrees(printed, time), "{row:?}, {way}: {time}");
                let more = more.trim_start_matches('+');
                assert!(agrees(more, time - passes), "{row:?}, {way}: {}", time - passes);
            }
        }
    }
}

#[test]
fn host_in_the_benchmarks() {
    let reports = Reports::read();
    let rows = table("benches/README.md", "| | SGD + momentum | AdamW |");
    let names = [
        ("fused", "host", "fused"),
        ("fused, before", "host-before", "fused"),
        ("tensor operations", "host", "tensor operations"),
        ("Burn's own alone", "host", "Burn's own alone"),
    ];
    assert_eq!(rows.len(), names.len());
    for (row, (label, report, name)) in rows.iter().zip(names) {
        assert_eq!(row[0], label);
        for (printed, base) in row[1..].iter().zip(["SGD + momentum", "AdamW"]) {
            let value = reports.ms("160 tensors in Burn", (report, &format!("{base}, {name}")));
            assert!(agrees(printed, value), "{base}, {name}: {printed} for {value}");
        }
    }
}

#[test]
fn printed_numbers_are_rounded() {
    assert!(agrees("98.5", 98.53) && agrees("117", 116.66) && agrees("4.0", 3.98));
    assert!(!agrees("98.5", 98.57) && !agrees("117", 117.6) && !agrees("1", f64::NAN));
}
