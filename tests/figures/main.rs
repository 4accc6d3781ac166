//! Checks that times in the READMEs and in `docs` are those of the committed reports.

mod h200;

use burn_wsam_support::repository;
use serde_json::Value;
use std::collections::HashMap;

/// The source of one printed number: report, row and quantity.
#[derive(Clone, Copy, Debug)]
enum Figure<'a> {
    /// Median, in ms.
    Time(&'a str, &'a str),
    /// Bandwidth as a share of the copy's.
    Share(&'a str, &'a str),
    /// Bandwidth of the copy, in GB/s.
    CopyRate(&'a str),
    /// Median of the first row divided by that of the second.
    Ratio((&'a str, &'a str), (&'a str, &'a str)),
    /// Time of a training step minus that of its two passes, interleaved with it if the report has them, otherwise
    /// measured alone.
    Extra(&'a str, &'a str),
}
use Figure::{CopyRate, Extra, Ratio, Share, Time};

struct Reports(HashMap<&'static str, Value>);

impl Reports {
    fn read() -> Self {
        let results = repository().join("benches/results");
        let read = |(key, machine, name)| {
            let file = results.join(machine).join(format!("{name}.json"));
            let text = std::fs::read_to_string(file).expect("committed");
            let json: Value = serde_json::from_str(&text).expect("JSON");
            // The command `wsam` writes a list with one report for each adapter.
            (key, json.get(0).cloned().unwrap_or(json))
        };
        let first = "llvmpipe-22.3.6-two-cores";
        let third = "llvmpipe-22.3.6-two-cores-third-machine";
        let now = ["step", "kernels", "burn", "host", "host-before", "tuning"];
        let before = [("burn before", first, "burn"), ("unfused", first, "unfused")];
        let h200 = [("h200", "nvidia-h200", "optimizer")];
        let now = now.map(|name| (name, third, name)).into_iter();
        Self(now.chain(before).chain(h200).map(read).collect())
    }

    fn row(&self, report: &str, set: &str, name: &str) -> &Value {
        let rows = self.0[report]["rows"].as_array().expect("rows");
        let found = rows.iter().find(|row| row["set"] == set && row["name"] == name);
        found.unwrap_or_else(|| panic!("no {name} over {set} in {report}.json"))
    }

    fn ms(&self, set: &str, (report, name): (&str, &str)) -> f64 {
        self.row(report, set, name)["seconds"]["median"].as_f64().expect("a median") * 1e3
    }

    fn value(&self, set: &str, figure: Figure<'_>) -> f64 {
        match figure {
            Time(report, name) => self.ms(set, (report, name)),
            Share(report, name) => {
                self.row(report, set, name)["of_copy"].as_f64().expect("a share")
            }
            CopyRate(report) => self.row(report, set, "copy")["gb_per_s"].as_f64().expect("a rate"),
            Ratio(one, other) => self.ms(set, one) / self.ms(set, other),
            Extra(report, name) => {
                let interleaved = &self.row(report, set, name)["beside"]["seconds"]["median"];
                let alone = || self.ms(set, (report, "two passes alone"));
                let passes = interleaved.as_f64().map_or_else(alone, |seconds| 1e3 * seconds);
                self.ms(set, (report, name)) - passes
            }
        }
    }
}

/// Cells of the table with this header, row by row.
fn table(page: &str, header: &str) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(repository().join(page)).expect("a page");
    let mut lines = text.lines().skip_while(|line| *line != header);
    assert!(lines.next().is_some(), "{page} has no table {header}");
    let rows = lines.skip(1).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect())
        .collect()
}

/// The numbers in a cell. `98.5 (0.94)` and `163 (+12)` have two.
fn numbers(cell: &str) -> Vec<&str> {
    let number = |text: &&str| !text.is_empty();
    let parts = cell.split([' ', '(', ')']).map(|part| part.trim_start_matches('+'));
    parts.filter(number).collect()
}

/// Whether `value`, rounded to the number of decimal places of `printed`, equals `printed`.
fn agrees(printed: &str, value: f64) -> bool {
    let places = printed.split_once('.').map_or(0, |(_, places)| places.len());
    format!("{value:.places$}") == printed
}

/// Checks that the numbers of a set's cell are these figures.
fn cell_holds(reports: &Reports, (page, set): (&str, &str), cell: &str, figures: &[Figure<'_>]) {
    let printed = numbers(cell);
    assert_eq!(printed.len(), figures.len(), "{page}, {set}: {cell}");
    for (printed, figure) in printed.iter().zip(figures) {
        let value = reports.value(set, *figure);
        assert!(agrees(printed, value), "{page}, {set}: {printed}, expected {value}, {figure:?}");
    }
}

fn holds(page: &str, header: &str, sets: &[&str], columns: &[&[Figure<'_>]]) {
    let reports = Reports::read();
    let rows = table(page, header);
    assert_eq!(rows.len(), sets.len(), "rows of {header} in {page}");
    for (row, set) in rows.iter().zip(sets) {
        assert!(row[0].starts_with(set), "{page}: {set} is {}", row[0]);
        assert_eq!(row.len(), columns.len() + 1, "{page}: cells of {row:?}");
        for (cell, figures) in row[1..].iter().zip(columns) {
            cell_holds(&reports, (page, set), cell, figures);
        }
    }
}

const BENCHES: &str = "benches/README.md";
const ALL: [&str; 6] =
    ["ResNet-50", "ResNet-18 (CIFAR)", "ViT-B/16", "GPT-2 124M", "1000 x 1000", "134M + 3"];

const fn step(name: &'static str) -> [Figure<'static>; 2] {
    [Time("step", name), Share("step", name)]
}

const fn against(
    report: &'static str,
    name: &'static str,
    fused: &'static str,
) -> [Figure<'static>; 2] {
    [Time(report, name), Ratio((report, name), ("burn", fused))]
}

const IN_BURN: [&str; 4] = ["ResNet-50", "ResNet-18 (CIFAR)", "ViT-B/16", "1000 x 1000"];
const SGD: &str = "SGD + momentum, fused";
const SGD_OPS: &str = "SGD + momentum, tensor operations";
const SGD_ALONE: &str = "SGD + momentum, Burn's own alone";
const ADAMW: &str = "AdamW, fused";
const ADAMW_OPS: &str = "AdamW, tensor operations";
const ADAMW_ALONE: &str = "AdamW, Burn's own alone";

const COSTS: &str = "docs/costs.md";

#[test]
fn engine_in_the_costs() {
    let header = "| The engine's step | SGD | SGD + momentum | AdamW |";
    let sets = ["ResNet-50", "ViT-B/16", "1000 x 1000"];
    holds(COSTS, header, &sets, &[&step("SGD"), &step("SGD + momentum"), &step("AdamW")]);
}

#[test]
fn burn_in_the_costs() {
    let header = "| In Burn, end to end | SGD + momentum | in tensor operations | AdamW | in tensor operations |";
    let sets = ["ResNet-50", "ViT-B/16", "1000 x 1000"];
    let columns: [&[Figure<'_>]; 4] = [
        &[Time("burn", SGD)],
        &against("burn", SGD_OPS, SGD),
        &[Time("burn", ADAMW)],
        &against("burn", ADAMW_OPS, ADAMW),
    ];
    holds(COSTS, header, &sets, &columns);
}

/// Row names in the report of the H200, with `{}` for the base optimizer, and the sets that were measured.
const H200: [(&str, &[&str]); 11] = [
    ("{}, engine, pipelined", &H200_SETS),
    ("{}, checked, engine, pipelined", &H200_SETS),
    ("{}, lean, engine, pipelined", &H200_SETS),
    ("{}, engine, halves waited for", &H200_SETS),
    ("{}, PyTorch, CUDA graph, pipelined", &H200_SETS),
    ("{}, PyTorch, foreach and fused base, pipelined", &H200_SETS),
    ("{}, PyTorch, public WSAM", &H200_SETS),
    ("{}, PyTorch, fused base alone, pipelined", &H200_SETS),
    ("{}, in Burn, fused, pipelined", &["ResNet-50", "ViT-B/16", "1000 x 1000"]),
    ("{}, in Burn, tensor operations, pipelined", &["ResNet-50"]),
    ("{}, Burn's own alone, pipelined", &["ResNet-50"]),
];
const H200_SETS: [&str; 5] = ["ResNet-50", "ViT-B/16", "GPT-2 124M", "1000 x 1000", "134M + 3"];

/// Checks a table with a row for each of these indices of [`H200`] and a column for each set. A cell is empty if and
/// only if nothing was measured.
fn h200_holds(page: &str, header: &str, base: &str, sets: &[&str], places: &[usize]) {
    let reports = Reports::read();
    let rows = table(page, header);
    assert_eq!(rows.len(), places.len(), "rows of {header} in {page}");
    for (row, place) in rows.iter().zip(places) {
        let (name, measured) = H200[*place];
        let name = name.replace("{}", base);
        assert_eq!(row.len(), sets.len() + 1, "{page}: cells of {row:?}");
        for (cell, set) in row[1..].iter().zip(sets) {
            let figures: &[Figure<'_>] =
                if measured.contains(set) { &[Time("h200", &name)] } else { &[] };
            cell_holds(&reports, (page, set), cell, figures);
        }
    }
}

#[test]
fn h200_in_the_costs() {
    let header =
        "| H200, SGD + momentum | ResNet-50 | ViT-B/16 | GPT-2 124M | 1000 x 1000 | 134M + 3 |";
    h200_holds(COSTS, header, "SGD + momentum", &H200_SETS, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    let header = "| H200, AdamW | ResNet-50 | ViT-B/16 | GPT-2 124M | 1000 x 1000 | 134M + 3 |";
    h200_holds(COSTS, header, "AdamW", &H200_SETS, &[0, 1, 4, 5, 6]);
}

#[test]
fn h200_in_the_readme() {
    let header = "| H200, SGD + momentum, ms | ResNet-50 | ViT-B/16 | 1000 x 1000 |";
    let sets = ["ResNet-50", "ViT-B/16", "1000 x 1000"];
    h200_holds("README.md", header, "SGD + momentum", &sets, &[0, 1, 4, 5, 6, 8, 9, 10]);
}

/// Each bar of the README's picture has the report's number and the length of that number.
#[test]
fn picture_in_the_readme() {
    const PIXELS_A_MS: f64 = 31.0;
    let file = repository().join("docs/img/optimizer-h200.svg");
    let text = std::fs::read_to_string(file).expect("committed");
    let reports = Reports::read();
    let bars: Vec<_> = text.lines().filter(|line| line.starts_with("<g>")).collect();
    let places = [0, 1, 4, 5, 8, 10, 6];
    assert_eq!(bars.len(), places.len());
    for (bar, place) in bars.into_iter().zip(places) {
        let name = H200[place].0.replace("{}", "SGD + momentum");
        let ms = reports.value("ResNet-50", Time("h200", &name));
        let (_, rest) = bar.split_once(" width=\"").expect("a bar");
        let (width, rest) = rest.split_once('"').expect("a width");
        assert!(agrees(width, PIXELS_A_MS * ms), "{bar}: {name} is {ms} ms");
        let (_, rest) = rest.rsplit_once("\">").expect("a text");
        let (printed, _) = rest.split_once(" ms</text>").expect("a time");
        assert!(agrees(printed, ms), "{bar}: {name} is {ms} ms");
    }
}

#[test]
fn engine_in_the_benchmarks() {
    let header = "| Parameter set | SGD | SGD + momentum | lean | AdamW | lean | Copy, GB/s |";
    let columns: [&[Figure<'_>]; 6] = [
        &step("SGD"),
        &step("SGD + momentum"),
        &step("SGD + momentum, lean"),
        &step("AdamW"),
        &step("AdamW, lean"),
        &[CopyRate("step")],
    ];
    holds(BENCHES, header, &ALL, &columns);
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
    let rows = table(BENCHES, "| Stage | ResNet-50 | ViT-B/16 | 1000 x 1000 |");
    assert_eq!(rows.len(), names.len());
    for (row, name) in rows.iter().zip(names) {
        assert_eq!(row[0].replace('`', ""), name);
        for (cell, set) in row[1..].iter().zip(["ResNet-50", "ViT-B/16", "1000 x 1000"]) {
            // norm_finish moves almost no memory, so it has no bandwidth.
            let count = if name == "norm_finish" { 1 } else { 2 };
            let figures = [Time("kernels", name), Share("kernels", name)];
            cell_holds(&reports, (BENCHES, set), cell, &figures[..count]);
        }
    }
}

#[test]
fn tunings_in_the_benchmarks() {
    let reports = Reports::read();
    let header = "| Workgroups of | chunks of 2,048 | 4,096 | 8,192 | 16,384 | 32,768 |";
    let rows = table(BENCHES, header);
    assert_eq!(rows.len(), 3);
    for row in &rows {
        assert_eq!(row.len(), 6, "{row:?}");
        for (cell, chunk_len) in row[1..].iter().zip([2048, 4096, 8192, 16_384, 32_768]) {
            let name = format!("step, workgroups of {}, chunks of {chunk_len}", row[0]);
            cell_holds(&reports, (BENCHES, "ResNet-50"), cell, &[Time("tuning", &name)]);
        }
    }
}

#[test]
fn burn_in_the_benchmarks() {
    let header = "| | SGD + momentum: fused | lean | tensor ops | Burn's SGD | AdamW: fused | lean | tensor ops | Burn's AdamW |";
    let columns: [&[Figure<'_>]; 8] = [
        &[Time("burn", SGD)],
        &[Time("burn", "SGD + momentum, fused, lean")],
        &against("burn", SGD_OPS, SGD),
        &against("burn", SGD_ALONE, SGD),
        &[Time("burn", ADAMW)],
        &[Time("burn", "AdamW, fused, lean")],
        &against("burn", ADAMW_OPS, ADAMW),
        &against("burn", ADAMW_ALONE, ADAMW),
    ];
    holds(BENCHES, header, &IN_BURN, &columns);
}

#[test]
fn unfused_in_the_benchmarks() {
    let header = "| Without Burn's fusion | SGD + momentum: fused | unfused tensor ops | AdamW: fused | unfused tensor ops |";
    let times =
        |ops, fused| [Time("unfused", ops), Ratio(("unfused", ops), ("burn before", fused))];
    let (sgd, adamw) = (times(SGD_OPS, SGD), times(ADAMW_OPS, ADAMW));
    let columns: [&[Figure<'_>]; 4] =
        [&[Time("burn before", SGD)], &sgd, &[Time("burn before", ADAMW)], &adamw];
    holds(BENCHES, header, &IN_BURN, &columns);
}

/// Times of whole training steps, and their extra time over the two passes.
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
    for (header, report, methods) in tables {
        let rows = table(BENCHES, header);
        assert_eq!(rows.len(), 4, "{header}");
        for row in &rows {
            let (set, base) = row[0].split_once(", ").expect("a set and a base optimizer");
            cell_holds(&reports, (BENCHES, set), &row[1], &[Time(report, "two passes alone")]);
            assert_eq!(row.len(), methods.len() + 2, "{row:?}");
            for (cell, method) in row[2..].iter().zip(methods) {
                let name = format!("{base}, {method}");
                let figures = [Time(report, &name), Extra(report, &name)];
                cell_holds(&reports, (BENCHES, set), cell, &figures);
            }
        }
    }
}

#[test]
fn host_in_the_benchmarks() {
    let reports = Reports::read();
    let rows = table(BENCHES, "| | SGD + momentum | AdamW |");
    let names = [
        ("fused", "host", "fused"),
        ("fused, before", "host-before", "fused"),
        ("tensor operations", "host", "tensor operations"),
        ("Burn's own alone", "host", "Burn's own alone"),
    ];
    assert_eq!(rows.len(), names.len());
    for (row, (label, report, name)) in rows.iter().zip(names) {
        assert_eq!(row[0], label);
        assert_eq!(row.len(), 3, "{row:?}");
        for (cell, base) in row[1..].iter().zip(["SGD + momentum", "AdamW"]) {
            let name = format!("{base}, {name}");
            cell_holds(&reports, (BENCHES, "160 tensors in Burn"), cell, &[Time(report, &name)]);
        }
    }
}

#[test]
fn printed_numbers_are_rounded() {
    assert!(agrees("98.5", 98.53) && agrees("117", 116.66) && agrees("4.0", 3.98));
    assert!(!agrees("98.5", 98.57) && !agrees("117", 117.6) && !agrees("1", f64::NAN));
}
