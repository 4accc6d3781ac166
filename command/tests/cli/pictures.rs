//! Plots of reports with invalid and extreme values: an error with file, row and field, or a picture, within a time
//! limit.

use super::{Finished, finished, folder, text};
use assert_cmd::Command;
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A picture usually takes a few milliseconds.
const LIMIT: Duration = Duration::from_secs(20);

struct Pictures {
    report: PathBuf,
    picture: PathBuf,
}

impl Pictures {
    fn new(name: &str) -> Self {
        let folder = folder(name);
        Self { report: folder.join("wild.json"), picture: folder.join("out.svg") }
    }

    fn draw_text(&self, report: &[u8], picture: &str) -> Finished {
        fs::write(&self.report, report).unwrap();
        let _ = fs::remove_file(&self.picture);
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("wsam"));
        let start = Instant::now();
        let ran =
            finished(command.args(["plot", text(&self.report), "--out", picture]).timeout(LIMIT));
        let shown = &report[..report.len().min(2000)];
        assert!(start.elapsed() < LIMIT, "it ran too long on {}", String::from_utf8_lossy(shown));
        ran
    }

    fn draw(&self, report: &Value) -> Finished {
        self.draw_text(report.to_string().as_bytes(), text(&self.picture))
    }

    /// Checks that the report is refused with all of `words`, and that no picture is written.
    fn refused(&self, report: &Value, words: &[&str]) {
        let ran = self.draw(report);
        for word in words {
            assert!(ran.err.contains(word), "no {word:?} in {:?} for {report}", ran.err);
        }
        ran.fails(1, "wild.json");
        assert!(!self.picture.exists(), "drawn: {report}");
    }

    /// Checks that the report is refused, or drawn without NaN and infinity. Returns whether it was drawn.
    fn draws(&self, report: &Value) -> bool {
        let ran = self.draw(report);
        match ran.code {
            Some(0) => {
                let drawn = fs::read_to_string(&self.picture).unwrap();
                assert!(!drawn.contains("NaN") && !drawn.contains("inf"), "{report}");
                assert!(drawn.len() < 1 << 20, "{} bytes for {report}", drawn.len());
                true
            }
            Some(1) => {
                assert!(ran.err.contains("wild.json"), "{} for {report}", ran.err);
                false
            }
            code => panic!("{code:?}, {} for {report}", ran.err),
        }
    }
}

fn row(set: &str, name: &str, counts: &Value) -> Value {
    let seconds = json!({ "quartile_1": 0.9e-3, "median": 1e-3, "quartile_3": 1.1e-3 });
    json!({
        "set": set, "name": name, "seconds": seconds, "bytes": 4_000_000, "of_copy": 0.5,
        "counts": counts,
    })
}

fn report(bench: &str) -> Value {
    let rows = match bench {
        "kernels" => {
            let more = row("s", "ascent", &Value::Null);
            vec![row("s", "step", &Value::Null), more, row("s", "copy", &Value::Null)]
        }
        _ => {
            let points = [("parameters", 16_384, 100), ("parameters", 65_536, 100)];
            let points =
                points.into_iter().chain([("tensors", 1 << 20, 1), ("tensors", 1 << 20, 64)]);
            let rows = points.enumerate().flat_map(|(i, (axis, parameters, tensors))| {
                let counts = json!({
                    "axis": axis, "parameters": parameters, "tensors": tensors, "dispatches": 4,
                });
                let set = format!("s{i}");
                [row(&set, "step", &counts), row(&set, "copy", &Value::Null)]
            });
            rows.collect()
        }
    };
    json!({ "bench": bench, "machine": { "adapter": "a" }, "rows": rows })
}

const BENCHES: [&str; 2] = ["kernels", "scaling"];

/// The numeric fields of a row that `plot` reads.
const FIELDS: [&[&str]; 8] = [
    &["bytes"],
    &["of_copy"],
    &["seconds", "quartile_1"],
    &["seconds", "median"],
    &["seconds", "quartile_3"],
    &["counts", "parameters"],
    &["counts", "tensors"],
    &["counts", "dispatches"],
];

fn set(report: &mut Value, row: usize, field: &[&str], value: Value) {
    let row = &mut report["rows"][row];
    match field {
        [name] => row[*name] = value,
        [group, name] => {
            if row[*group].is_null() {
                row[*group] = json!({});
            }
            row[*group][*name] = value;
        }
        _ => panic!("{field:?}"),
    }
}

/// Values that are invalid as a time, a number of bytes, a share and a count.
fn invalid() -> Vec<Value> {
    let mut invalid: Vec<Value> = [
        0.0,
        -0.0,
        -1.0,
        1e308,
        -1e308,
        f64::MAX,
        1e-320,
        f64::MIN_POSITIVE,
        5e-324,
        1e200,
        1e-200,
    ]
    .map(Value::from)
    .into();
    invalid.extend([json!(-1), json!(0), json!(i64::MIN), json!(u64::MAX)]);
    invalid.extend([json!("many"), json!("NaN"), json!([1]), json!({ "a": 1 }), json!(true)]);
    invalid
}

pub(crate) fn invalid_values() {
    let pictures = Pictures::new("wild");
    for bench in BENCHES {
        pictures.draw(&report(bench)).ok();
        for field in FIELDS {
            for value in invalid() {
                for at in [0, 1] {
                    let mut report = report(bench);
                    set(&mut report, at, field, value.clone());
                    let (row, path) = (format!("row {} (", at + 1), field.join("."));
                    pictures.refused(&report, &[&row, &path]);
                }
            }
        }
    }
    // Numbers that JSON does not allow.
    for number in ["NaN", "Infinity", "1e999", "-1e999"] {
        let report = report("kernels").to_string().replacen("4000000", number, 1);
        pictures.draw_text(report.as_bytes(), text(&pictures.picture)).fails(1, "wild.json");
    }
    let mut fraction = report("scaling");
    set(&mut fraction, 0, &["counts", "tensors"], json!(1.5));
    pictures.refused(&fraction, &["row 1", "counts.tensors is 1.5, not a whole number"]);
    let mut order = report("scaling");
    set(&mut order, 0, &["seconds", "quartile_1"], json!(1.0));
    pictures.refused(&order, &["row 1", "seconds: quartiles"]);
}

/// Values at the limits of what is accepted, in every field: the axes stay finite.
pub(crate) fn extreme_values() {
    let pictures = Pictures::new("extreme");
    let ends =
        [json!(1e-12), json!(1e-9), json!(1), json!(100), json!(1e9), json!(1e15), json!(1e18)];
    let mut drawn = 0;
    for bench in BENCHES {
        for (i, field) in FIELDS.iter().enumerate() {
            for value in &ends {
                let mut report = report(bench);
                let rows = report["rows"].as_array().unwrap().len();
                // In all rows, or in one row.
                for row in if i % 2 == 0 { 0..rows } else { 0..1 } {
                    match field {
                        ["seconds", _] => {
                            for field in &FIELDS[2..5] {
                                set(&mut report, row, field, value.clone());
                            }
                        }
                        _ => set(&mut report, row, field, value.clone()),
                    }
                }
                drawn += usize::from(pictures.draws(&report));
            }
        }
    }
    assert!(drawn > 40, "{drawn} pictures");
}

/// Random values in several fields at once.
pub(crate) fn random_values() {
    let pictures = Pictures::new("random");
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: u64| {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    };
    let mut drawn = 0;
    for round in 0..300 {
        let mut report = report(BENCHES[round % 2]);
        let rows = report["rows"].as_array().unwrap().len() as u64;
        for _ in 0..1 + next(4) {
            let (row, field) = (next(rows) as usize, FIELDS[next(FIELDS.len() as u64) as usize]);
            let power = match next(4) {
                0 => next(600) as i32 - 300,
                _ => next(24) as i32 - 9,
            };
            let value = (1 + next(9)) as f64 * 10_f64.powi(power);
            if field[0] == "seconds" {
                FIELDS[2..5].iter().for_each(|f| set(&mut report, row, f, value.into()));
            } else {
                set(&mut report, row, field, value.into());
            }
        }
        drawn += usize::from(pictures.draws(&report));
    }
    assert!((30..270).contains(&drawn), "{drawn} of 300 were drawn");
}

pub(crate) fn missing_parts() {
    let pictures = Pictures::new("missing");
    for bench in BENCHES {
        let mut empty = report(bench);
        empty["rows"] = json!([]);
        pictures.refused(&empty, &["its list of rows is empty"]);
        pictures.refused(&json!([report(bench), empty]), &["report 2: its list of rows is empty"]);
        // Either row of a pair is missing, or a field of it.
        for at in [0, 1] {
            let mut report = report(bench);
            let rows = report["rows"].as_array_mut().unwrap();
            rows.truncate(2);
            rows.remove(at);
            pictures.refused(&report, &["s"]);
            for field in FIELDS {
                let mut report = super::pictures::report(bench);
                set(&mut report, at, field, Value::Null);
                pictures.draws(&report);
            }
        }
        for name in ["", "a\u{1}b", &"long".repeat(100)] {
            let mut report = report(bench);
            report["rows"][0]["name"] = name.into();
            pictures.refused(&report, &["row 1", "name is"]);
            report["machine"]["adapter"] = name.into();
            report["rows"][0]["name"] = "step".into();
            pictures.refused(&report, &["adapter is"]);
        }
    }
    // A report with one of the two axes is drawn.
    let mut one = report("scaling");
    one["rows"].as_array_mut().unwrap().truncate(2);
    pictures.draw(&one).ok();
    one["rows"][0]["counts"]["axis"] = "time".into();
    pictures.refused(&one, &["counts.axis is Some(\"time\"), not parameters or tensors"]);
    // More rows than fit into a picture.
    let mut many = report("kernels");
    let row = many["rows"][0].clone();
    many["rows"].as_array_mut().unwrap().extend(std::iter::repeat_n(row, 5000));
    pictures.draw(&many).fails(1, "choose parameter sets with --set");
    // A byte order mark, as some shells write before redirected output.
    let marked = format!("\u{feff}{}", report("kernels"));
    pictures.draw_text(marked.as_bytes(), text(&pictures.picture)).ok();
    // PNG uses another backend.
    let png = pictures.picture.with_extension("png");
    pictures.draw_text(report("scaling").to_string().as_bytes(), text(&png)).ok();
    assert!(fs::read(&png).unwrap().ends_with(b"IEND\xae\x42\x60\x82"));
}
