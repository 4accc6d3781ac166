//! `wsam bench --compare`.

use super::measurements::{benched, row, small};
use super::{Finished, folder, name, text, wsam};
use burn_wsam_support::gpu::Gpu;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

const STEP: &str = "step, SGD + momentum";

fn saved(folder: &Path, report: &Value) -> PathBuf {
    let file = folder.join("before.json");
    fs::write(&file, json!([report]).to_string()).unwrap();
    file
}

fn run(gpu: &Gpu, folder: &Path, report: &Path, more: &[&str]) -> Finished {
    let (sizes, name) = (small(folder), name(gpu));
    let arguments = ["bench", "--adapter", &name, "--params", text(&sizes), "--seconds", "0.01"];
    wsam(&[&arguments as &[&str], &["--compare", text(report)], more].concat())
}

pub(crate) fn with_a_report(gpu: &Gpu) -> Result<(), String> {
    let folder = folder("compare");
    let mut before = benched(gpu, &folder, &[]);
    // As a report that was saved by another driver, has one more row, another copy, and no times of recording.
    before["machine"]["driver"] = "an older one".into();
    let rows = before["rows"].as_array_mut().unwrap();
    rows.retain(|row| row["name"] != "recording, SGD + momentum");
    let mut gone = rows[0].clone();
    gone["name"] = "a row of old".into();
    rows.push(gone);
    for row in rows {
        if row["name"] == "copy" {
            row["bytes"] = (row["bytes"].as_u64().unwrap() + 1).into();
        }
        if row["name"] == STEP {
            for (quartile, seconds) in [("quartile_1", 1.0), ("median", 2.0), ("quartile_3", 3.0)] {
                row["seconds"][quartile] = seconds.into();
            }
        }
    }
    let file = saved(&folder, &before);

    let json: Value = serde_json::from_str(&run(gpu, &folder, &file, &["--json"]).ok()).unwrap();
    let compared = &json[0]["compared"];
    let rows = compared["rows"].as_array().unwrap();
    let pair = |name: &str| rows.iter().find(|row| row["name"] == name);
    let step = pair(STEP).ok_or("the step is not compared")?;
    let new = row(&json[0], STEP)["seconds"]["median"].as_f64().unwrap();
    assert_eq!((step["old"].as_f64(), step["new"].as_f64()), (Some(2.0), Some(new)));
    assert!((step["ratio"].as_f64().unwrap() / (new / 2.0) - 1.0).abs() < 1e-9, "{step}");
    assert!(pair("step, SGD + momentum, pipelined").is_some() && pair("copy").is_none());
    assert_eq!(compared["only_old"], json!(["small, a row of old"]));
    assert_eq!(compared["only_new"], json!(["small, recording, SGD + momentum"]));
    assert_eq!(compared["different"], json!(["small, copy"]));
    assert_eq!(compared["old_driver"], "an older one");

    let out = run(gpu, &folder, &file, &[]).ok();
    for line in [
        "before.json:",
        "another driver: an older one, now ",
        "| set | | old, ms | new, ms | new / old |",
        "| small | step, SGD + momentum | 2000.000 | ",
        "before.json: small, a row of old",
        "only in this run: small, recording, SGD + momentum",
        "of other bytes or by another clock: small, copy",
    ] {
        assert!(out.contains(line), "no {line:?} in\n{out}");
    }
    // A report with a comparison is a report.
    let file = saved(&folder, &json[0]);
    let picture = folder.join("bars.svg");
    wsam(&["plot", text(&file), "--out", text(&picture)]).ok();
    Ok(())
}

/// A report of another adapter, of another benchmark or with a field that cannot be read is an error, before anything is
/// measured.
pub(crate) fn refused(gpu: &Gpu) -> Result<(), String> {
    let folder = folder("compare-refused");
    let times = json!({ "quartile_1": 1.0, "median": 1.0, "quartile_3": 1.0 });
    let row = json!({ "set": "small", "name": STEP, "seconds": times, "clock": "host" });
    let good =
        json!({ "bench": "kernels", "machine": { "adapter": name(gpu) }, "rows": [row.clone()] });
    let refused = |change: &dyn Fn(&mut Value), what: &str| {
        let mut report = good.clone();
        change(&mut report);
        let ran = run(gpu, &folder, &saved(&folder, &report), &[]);
        assert!(ran.err.contains("before.json") && ran.out.is_empty(), "{}", ran.err);
        ran.fails(1, what);
    };
    let other = |report: &mut Value| report["machine"]["adapter"] = "another card".into();
    refused(&other, "a report of another card, not of ");
    refused(&|report| report["bench"] = "scaling".into(), "a report of \"scaling\"");
    refused(&|report| report["rows"][0]["seconds"]["median"] = "fast".into(), "seconds.median is");
    refused(&|report| report["rows"][0]["clock"] = 3.into(), "clock is 3, not a string");
    refused(&|report| report["rows"] = json!([]), "its list of rows is empty");
    run(gpu, &folder, &folder.join("gone.json"), &[]).fails(1, "gone.json");
    Ok(())
}
