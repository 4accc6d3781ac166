//! Tests of `wsam bench`, `scaling` and `tune`.

use super::{finished, folder, name, text, wsam};
use assert_cmd::Command;
use burn_wsam_support::gpu::Gpu;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// Writes a small parameter set.
pub(crate) fn small(folder: &Path) -> PathBuf {
    let sizes = folder.join("small.txt");
    fs::write(&sizes, "64x3x7x7 # stem\n64\n1000x33\n").unwrap();
    sizes
}

pub(crate) fn benched(gpu: &Gpu, folder: &Path, more: &[&str]) -> Value {
    let (sizes, name) = (small(folder), name(gpu));
    let mut arguments = vec!["bench", "--adapter", &name, "--params", text(&sizes), "--json"];
    arguments.extend(["--seconds", "0.01"]);
    arguments.extend(more);
    let json: Value = serde_json::from_str(&wsam(&arguments).ok()).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 1, "one report");
    json[0].clone()
}

pub(crate) fn row<'a>(report: &'a Value, name: &str) -> &'a Value {
    let mut rows = report["rows"].as_array().unwrap().iter();
    rows.find(|row| row["name"] == name).unwrap_or_else(|| panic!("no {name} in {report:#}"))
}

pub(crate) fn bench(gpu: &Gpu) -> Result<(), String> {
    let folder = folder("bench");
    let picture = folder.join("bars.svg");
    let report = benched(gpu, &folder, &["--plot", text(&picture)]);
    assert_eq!(report["machine"]["adapter"], name(gpu).as_str());
    let step = row(&report, "step, SGD + momentum");
    let parameters = 64 * 3 * 49 + 64 + 33_000;
    assert_eq!(step["counts"]["parameters"], parameters);
    assert_eq!(step["counts"]["dispatches"], 4);
    assert_eq!(step["bytes"], 40 * parameters);
    assert!(step["samples"].as_u64() >= Some(10));
    for name in [
        "copy",
        "step, SGD + momentum",
        "step, SGD + momentum, pipelined",
        "recording, SGD + momentum",
        "submitting, SGD + momentum",
    ] {
        let times = &row(&report, name)["seconds"];
        let [low, median, high] =
            ["quartile_1", "median", "quartile_3"].map(|name| times[name].as_f64().unwrap());
        assert!(0.0 < low && low <= median && median <= high, "{name}: {times}");
    }
    assert_eq!(step["clock"], "host");
    let pipelined = &row(&report, "step, SGD + momentum, pipelined")["counts"];
    assert!(pipelined["pipelined_steps"].as_u64() >= Some(3), "{pipelined}");
    for host in ["recording_us", "submitting_us"] {
        assert!(pipelined[host].as_f64() > Some(0.0), "{pipelined}");
    }
    // Stages, or phases without timestamps, and the copy by one clock.
    let copy = row(&report, "copy");
    assert!(copy["bytes"].as_u64() >= step["bytes"].as_u64(), "{copy}");
    assert_eq!(copy["share_of_copy"], 1.0);
    let names = if copy["clock"] == "device" {
        assert!(gpu.adapter.features().contains(wgpu::Features::TIMESTAMP_QUERY));
        ["ascent", "descent, SGD + momentum"]
    } else {
        ["ascent phase, SGD + momentum", "descent phase, SGD + momentum"]
    };
    let bytes = if copy["clock"] == "device" { 12 } else { 16 };
    for (name, bytes) in names.into_iter().zip([bytes, 24]) {
        let stage = row(&report, name);
        assert_eq!(stage["bytes"], bytes * parameters);
        assert_eq!(stage["clock"], copy["clock"]);
        let share = stage["gb_per_s"].as_f64().unwrap() / copy["gb_per_s"].as_f64().unwrap();
        assert!((stage["share_of_copy"].as_f64().unwrap() / share - 1.0).abs() < 1e-9, "{stage}");
    }
    // A bound is named with timestamps only where the step takes longer than its stages.
    if let (Some(device), Some("host" | "launches")) =
        (pipelined["device_us"].as_f64(), pipelined["bound_by"].as_str())
    {
        let pipelined = row(&report, "step, SGD + momentum, pipelined");
        assert!(1e6 * pipelined["seconds"]["quartile_1"].as_f64().unwrap() > 1.1 * device);
    }
    assert!(fs::read_to_string(&picture).unwrap().contains("small: "));
    Ok(())
}

/// From builds with Burn.
#[cfg(feature = "burn")]
pub(crate) fn bench_tensor_ops(gpu: &Gpu) -> Result<(), String> {
    let report = benched(gpu, &folder("tensor-ops"), &["--tensor-ops"]);
    let median = |name| row(&report, name)["seconds"]["median"].as_f64().unwrap();
    let want = median("step, tensor operations") / median("step, SGD + momentum");
    let times = row(&report, "step, tensor operations")["counts"]["times_the_step"].as_f64();
    assert!((times.unwrap() / want - 1.0).abs() < 1e-9 && want > 0.0, "{report:#}");
    Ok(())
}

pub(crate) fn bench_lean(gpu: &Gpu) -> Result<(), String> {
    let report = benched(gpu, &folder("lean"), &["--mode", "lean", "--base", "adamw"]);
    let step = row(&report, "step, AdamW, lean");
    assert_eq!(step["counts"]["bytes_a_parameter"], 48.0);
    Ok(())
}

/// Phases in place of stages, by the host's clock like the copy.
pub(crate) fn bench_without_timestamps(gpu: &Gpu) -> Result<(), String> {
    let (sizes, name) = (small(&folder("host-clock")), name(gpu));
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("wsam"));
    command.args(["bench", "--adapter", &name, "--params", text(&sizes), "--json"]);
    let ran = finished(command.args(["--seconds", "0.01"]).env("WSAM_BENCH_CLOCK", "host"));
    assert!(ran.err.contains("timed by the host's clock"), "{}", ran.err);
    let json: Value = serde_json::from_str(&ran.ok()).unwrap();
    let rows = json[0]["rows"].as_array().unwrap();
    assert!(rows.iter().all(|row| row["clock"] == "host"), "{json:#}");
    let parameters = 64 * 3 * 49 + 64 + 33_000;
    for (name, bytes) in [("ascent", 16), ("descent", 24)] {
        let phase = row(&json[0], &format!("{name} phase, SGD + momentum"));
        assert_eq!(phase["bytes"], bytes * parameters);
        assert!(phase["seconds"]["quartile_1"].as_f64() > Some(0.0));
    }
    row(&json[0], "copy");
    let pipelined = &row(&json[0], "step, SGD + momentum, pipelined")["counts"];
    assert!(pipelined["device_us"].is_null() && pipelined["bound_by"] != "launches");
    Ok(())
}

pub(crate) fn bench_too_large(gpu: &Gpu) -> Result<(), String> {
    let sizes = folder("large").join("large.txt");
    let len = gpu.adapter.limits().max_buffer_size / 4 + 1;
    fs::write(&sizes, format!("{len}\n{}x1000\n", u64::MAX / 1000)).unwrap();
    let arguments = ["bench", "--adapter", &name(gpu), "--params", text(&sizes)];
    wsam(&arguments).fails(1, "more than the largest buffer");
    Ok(())
}

pub(crate) fn scaling(gpu: &Gpu) -> Result<(), String> {
    let picture = folder("scaling").join("scaling.png");
    let name = name(gpu);
    let arguments = ["scaling", "--adapter", &name, "--max-params", "1", "--seconds", "0.01"];
    let more = ["--json", "--plot", text(&picture)];
    let out = wsam(&[&arguments as &[&str], &more].concat()).ok();
    let json: Value = serde_json::from_str(&out).unwrap();
    let rows = json[0]["rows"].as_array().unwrap();
    // A step with waits, a pipelined one and a copy for each point.
    for point in rows.chunks(3) {
        let names = [0, 1, 2].map(|i| point[i]["name"].as_str().unwrap());
        assert_eq!(names, ["step, SGD + momentum", "step, SGD + momentum, pipelined", "copy"]);
        assert!(point[2]["bytes"].as_u64() >= point[0]["bytes"].as_u64());
        assert!(point[1]["counts"]["pipelined_steps"].as_u64() >= Some(3));
    }
    for step in rows.iter().filter(|row| row["name"] != "copy") {
        // 3 where the norm finishes itself, which the engine decides by the number of partial sums.
        let dispatches = step["counts"]["dispatches"].as_u64().unwrap();
        let counts = &step["counts"];
        assert!(
            (3..=4).contains(&dispatches),
            "the number of dispatches grows with the tensors: {counts}"
        );
    }
    assert!(fs::read(&picture).unwrap().starts_with(b"\x89PNG"));
    Ok(())
}

pub(crate) fn tune(gpu: &Gpu) -> Result<(), String> {
    let (sizes, name) = (small(&folder("tune")), name(gpu));
    let tune = |more: &[&str]| {
        let mut arguments = vec!["tune", "--adapter", &name, "--params", text(&sizes)];
        arguments.extend(["--seconds", "0.01"]);
        arguments.extend(more);
        wsam(&arguments)
    };
    let sizes = ["--workgroup", "8,64", "--chunk-len", "4,16384"];
    let json = tune(&[&sizes as &[&str], &["--json"]].concat()).ok();
    let json: Value = serde_json::from_str(&json).unwrap();
    for (workgroup, chunk_len) in [(8, 4), (8, 16_384), (64, 4), (64, 16_384)] {
        let name = format!("step, workgroups of {workgroup}, chunks of {chunk_len}");
        for name in [format!("{name}, pipelined"), name] {
            let row = row(&json[0], &name);
            assert_eq!(row["counts"]["workgroup"], workgroup);
            assert!(row["samples"].as_u64() >= Some(10));
            assert!(row["seconds"]["median"].as_f64() > Some(0.0));
        }
    }
    row(&json[0], "copy");
    let out = tune(&sizes).ok();
    assert!(out.contains("fastest with Tuning { workgroup: "), "{out}");
    tune(&["--workgroup", "7"]).fails(1, "workgroup");
    tune(&["--chunk-len", "0"]).fails(1, "chunk_len");
    // Chunks that are too long for the loops of workgroups of 8, and valid with workgroups of 64.
    tune(&["--workgroup", "8", "--chunk-len", "4194304"]).fails(1, "chunk_len");
    let found = tune(&["--workgroup", "8,64", "--chunk-len", "4194304"]);
    assert!(found.err.contains("workgroups of 8"), "{}", found.err);
    let out = found.ok();
    assert!(out.contains("workgroups of 64") && !out.contains("workgroups of 8,"), "{out}");
    tune(&["--chunk-len", "4096", "--max-norm-chunk-len", "5000"]).fails(1, "max_norm_chunk_len");
    Ok(())
}
