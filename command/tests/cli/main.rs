//! Tests of the command `wsam`: output, errors and exit codes.

// A panic reports a test's failure.
#![allow(clippy::unwrap_used)]

mod compare;
mod environment;
mod measurements;
mod output;
mod pictures;
mod relatives;

use assert_cmd::Command;
use burn_wsam_support::gpu::{Gpu, Test, run, trials};
use burn_wsam_support::repository;
use libtest_mimic::{Failed, Trial};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// Tests that need no adapter.
const TESTS: &[(&str, fn())] = &[
    ("bad arguments exit with 2", bad_arguments),
    #[cfg(target_os = "linux")]
    ("no adapter exits with 3", environment::no_adapter),
    ("damaged golden files", damaged_golden_files),
    ("damaged golden files of other methods", relatives::damaged),
    ("other methods on the toy example", relatives::toy),
    ("the toy example, as SVG and PNG", toy),
    ("plot of a saved report", plot),
    ("invalid reports", invalid_reports),
    ("reports with invalid values", pictures::invalid_values),
    ("reports with extreme values", pictures::extreme_values),
    ("reports with random values", pictures::random_values),
    ("reports with missing parts", pictures::missing_parts),
    ("an unknown backend", environment::unknown_backend),
    ("a backend of another platform", environment::absent_backend),
    #[cfg(target_os = "linux")]
    ("missing drivers", environment::missing_drivers),
    ("output goes through one writer", output::one_writer),
    ("the help lists the exit codes", output::help_lists_exit_codes),
    #[cfg(unix)]
    ("a closed pipe exits with 141", output::closed_pipe),
    #[cfg(unix)]
    ("a closed stderr keeps the exit code", output::closed_stderr),
    #[cfg(target_os = "linux")]
    ("a full disk exits with 4", output::full_disk),
    #[cfg(unix)]
    ("parameters from pipes", output::params_from_pipes),
];

const ON_ADAPTERS: &[(&str, Test)] = &[
    ("adapters lists the adapter", lists_adapter),
    ("check passes", check_passes),
    ("check fails on a wrong number", wrong_number),
    ("bench writes JSON and a picture", measurements::bench),
    #[cfg(feature = "burn")]
    ("bench compares with tensor operations", measurements::bench_tensor_ops),
    ("bench in lean mode", measurements::bench_lean),
    ("bench without timestamps", measurements::bench_without_timestamps),
    ("bench compares with a report", compare::with_a_report),
    ("bench compares with another adapter's report", compare::refused),
    ("bench refuses too large tensors", measurements::bench_too_large),
    ("scaling writes JSON and a picture", measurements::scaling),
    ("tune times each tuning", measurements::tune),
    ("the toy example on the engine", toy_on_engine),
    ("a wrong number in a golden file of another method", relatives::wrong_numbers),
    ("bench keeps results when a set fails", output::bench_keeps_results),
    ("tune keeps results when a tuning fails", output::tune_keeps_results),
    #[cfg(unix)]
    ("measurements with failing output", output::output_of_measurements),
    #[cfg(unix)]
    ("bench reads parameters from stdin", output::bench_from_stdin),
];

fn main() {
    let trial = |(name, test): &(&str, fn())| {
        let test = *test;
        Trial::test(*name, move || {
            test();
            Ok::<_, Failed>(())
        })
    };
    let mut all: Vec<_> = TESTS.iter().map(trial).collect();
    all.extend(trials(ON_ADAPTERS));
    run(all)
}

/// Exit code and output of a run of the command.
struct Finished {
    code: Option<i32>,
    out: String,
    err: String,
}

fn wsam(arguments: &[&str]) -> Finished {
    finished(Command::new(assert_cmd::cargo::cargo_bin!("wsam")).args(arguments))
}

fn finished(command: &mut Command) -> Finished {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Finished { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

impl Finished {
    /// Checks that the exit code is 0, and returns the standard output.
    fn ok(self) -> String {
        let Self { code, out, err } = self;
        assert_eq!(code, Some(0), "{out}\n{err}");
        out
    }

    /// Checks the exit code, and that the output contains `what`.
    fn fails(self, code: i32, what: &str) {
        let Self { code: found, out, err } = self;
        assert_eq!(found, Some(code), "{out}\n{err}");
        assert!(out.contains(what) || err.contains(what), "no {what:?} in\n{out}\n{err}");
    }
}

/// Creates an empty folder for one test.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cli").join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn golden(file: &str) -> String {
    fs::read_to_string(repository().join("tests/golden").join(file)).unwrap()
}

fn bad_arguments() {
    wsam(&[]).fails(2, "Usage");
    wsam(&["train"]).fails(2, "train");
    wsam(&["bench", "--params", "resnet51"]).fails(2, "neither a file nor one of resnet50");
    wsam(&["bench", "--base", "lion"]).fails(2, "lion");
    wsam(&["bench", "--seconds", "0"]).fails(2, "not in (0, 600]");
    wsam(&["bench", "--seconds", "nan"]).fails(2, "not in (0, 600]");
    wsam(&["scaling", "--max-params", "0"]).fails(2, "max-params");
    wsam(&["tune", "--chunk-len", "many"]).fails(2, "many");
    wsam(&["toy", "--plot", "toy.jpg"]).fails(2, "pictures end in .svg or .png");
    wsam(&["plot", "--out", "out.svg"]).fails(2, "REPORT");
    wsam(&["--version"]).ok();

    let sizes = folder("sizes").join("sizes.txt");
    fs::write(&sizes, "10\n3y4\n").unwrap();
    wsam(&["bench", "--params", text(&sizes)]).fails(1, "line 2: \"3y4\" is not a tensor shape");
    fs::write(&sizes, "# nothing\n").unwrap();
    wsam(&["bench", "--params", text(&sizes)]).fails(1, "no tensor shape found");
}

/// Damaged golden files are refused before an adapter is opened.
fn damaged_golden_files() {
    let whole = golden("sgd_coupled.json");
    let missing = whole.replacen("\"rho\"", "\"rhubarb\"", 1);
    let word = whole.replacen("\"shapes\": [", "\"shapes\": [\"many\", ", 1);
    assert!(missing != whole && word != whole);
    let damages = [
        ("half", &whole[..whole.len() / 2], "EOF"),
        ("missing", &missing, "rho"),
        ("word", &word, "shapes"),
    ];
    for (name, damaged, what) in damages {
        let folder = folder(name);
        fs::write(folder.join("good.json"), &whole).unwrap();
        fs::write(folder.join("bad.json"), damaged).unwrap();
        let ran = wsam(&["check", "--golden", text(&folder)]);
        assert!(ran.err.contains("bad.json"), "{}", ran.err);
        ran.fails(1, what);
    }
    let empty = folder("empty");
    wsam(&["check", "--golden", text(&empty)]).fails(1, "no *.json file");
    fs::write(empty.join("toy.json"), golden("toy_gaussian.json")).unwrap();
    wsam(&["check", "--golden", text(&empty)]).fails(1, "no trajectory");
    wsam(&["check", "--golden", text(&empty.join("nowhere"))]).fails(1, "nowhere");
}

fn toy() {
    let folder = folder("toy");
    let (svg, png) = (folder.join("toy.svg"), folder.join("toy.png"));
    let out = wsam(&["toy", "--plot", text(&svg)]).ok();
    let ends = |out: &str| {
        let end = |line: &str| Some(line.split(", the ").nth(1)?.split(',').next()?.to_owned());
        out.lines().filter_map(end).collect::<Vec<_>>()
    };
    assert_eq!(ends(&out), ["sharp basin", "sharp basin", "sharp basin", "flat basin"], "{out}");
    let picture = fs::read_to_string(&svg).unwrap();
    assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"));
    for words in ["SAM", "0.95", "sharp minimum", "flat minimum", "start"] {
        assert!(picture.contains(words), "no {words:?} in the picture");
    }
    assert!(!picture.contains("NaN") && !picture.contains("inf"));
    wsam(&["toy", "--plot", text(&png)]).ok();
    assert!(fs::read(&png).unwrap().starts_with(b"\x89PNG"));
    wsam(&["toy", "--plot", text(&folder.join("no/where.svg"))]).fails(2, "there is no folder");
}

fn plot() {
    let report = repository().join("benches/results/llvmpipe-22.3.6-two-cores/kernels.json");
    let picture = folder("plot").join("stages.svg");
    wsam(&["plot", text(&report), "--set", "ResNet-50", "--out", text(&picture)]).ok();
    let drawn = fs::read_to_string(&picture).unwrap();
    for words in ["ResNet-50: llvmpipe", "lean_descent", "GB/s", "of the copy"] {
        assert!(drawn.contains(words), "no {words:?} in the picture");
    }
    assert!(!drawn.contains("ViT"), "another set is drawn too");
}

fn invalid_reports() {
    let folder = folder("reports");
    let (json, out) = (folder.join("report.json"), folder.join("out.svg"));
    let draw = |content: &str| {
        fs::write(&json, content).unwrap();
        wsam(&["plot", text(&json), "--out", text(&out)])
    };
    draw("{").fails(1, "report.json");
    draw("{}").fails(1, "not a report");
    draw("[]").fails(1, "no report");
    let row = r#"{"set":"s","name":"copy","bytes":1,"seconds":{"quartile_1":1,"median":0,"quartile_3":1}}"#;
    let report = format!(r#"{{"bench":"kernels","machine":{{"adapter":"a"}},"rows":[{row}]}}"#);
    draw(&report).fails(1, "no time at its median");
    wsam(&["plot", text(&folder.join("gone.json")), "--out", text(&out)]).fails(1, "gone.json");
    assert!(!out.exists());
}

/// The adapter's full name. No two adapters of the test machines share one.
fn name(gpu: &Gpu) -> String {
    gpu.adapter.get_info().name
}

fn lists_adapter(gpu: &Gpu) -> Result<(), String> {
    let list: Value = serde_json::from_str(&wsam(&["adapters", "--json"]).ok()).unwrap();
    let found = list.as_array().unwrap().iter().find(|found| found["name"] == name(gpu).as_str());
    let found = found.ok_or("it is not listed")?;
    assert_eq!(found["route"]["fused"], true, "{found:#}");
    let binding = &found["limits"]["max_storage_buffer_binding_size"];
    assert_eq!(binding.as_u64(), Some(gpu.adapter.limits().max_storage_buffer_binding_size));
    assert!(wsam(&["adapters"]).ok().contains(&name(gpu)));
    Ok(())
}

fn check_passes(gpu: &Gpu) -> Result<(), String> {
    let out = wsam(&["check", "--adapter", &name(gpu)]).ok();
    let files: usize = ["tests/golden", "tests/golden-family"]
        .map(|folder| {
            let files = fs::read_dir(repository().join(folder)).unwrap();
            files
                .filter(|file| {
                    file.as_ref().unwrap().path().extension().is_some_and(|e| e == "json")
                })
                .count()
        })
        .iter()
        .sum();
    let lines = out.lines().filter(|line| line.contains(".json")).count();
    assert_eq!(lines, files, "one line a file:\n{out}");
    assert!(out.contains("within the tolerance") && !out.contains("FAILED"), "{out}");
    Ok(())
}

/// `check` fails on a value of the last step that is wrong by 0.1 %.
fn wrong_number(gpu: &Gpu) -> Result<(), String> {
    let mut json: Value = serde_json::from_str(&golden("adamw_decoupled.json")).unwrap();
    let last = json["expected"].as_array_mut().unwrap().last_mut().unwrap();
    let number = &mut last["state"]["exp_avg_sq"][1][0];
    *number = Value::from(1.001 * number.as_f64().unwrap());
    let folder = folder("wrong");
    fs::write(folder.join("wrong.json"), json.to_string()).unwrap();
    let ran = wsam(&["check", "--golden", text(&folder), "--adapter", &name(gpu)]);
    assert!(ran.out.contains("exp_avg_sq, tensor 1, element 0"), "{}", ran.out);
    assert!(!ran.out.contains("within the tolerance"));
    ran.fails(1, "3 of 3 replays failed");
    Ok(())
}

fn toy_on_engine(gpu: &Gpu) -> Result<(), String> {
    let out = wsam(&["toy", "--adapter", &name(gpu)]).ok();
    assert!(out.contains(&name(gpu)), "{out}");
    assert!(out.lines().last().unwrap_or("").contains("flat basin"), "{out}");
    Ok(())
}
