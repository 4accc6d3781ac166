//! WSAM's relatives in `wsam check` and `wsam toy`.

use super::{folder, name, repository, text, wsam};
use burn_wsam_support::gpu::Gpu;
use serde_json::Value;
use std::fs;

fn golden(file: &str) -> Value {
    let text = fs::read_to_string(repository().join("tests/golden-family").join(file)).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// A damaged file is refused before an adapter is opened, with its name.
pub(crate) fn damaged() {
    let folder = folder("damaged-relative");
    let mut json = golden("gsam_sgd.json");
    json["config"]["method"]["kind"] = Value::from("gram");
    fs::write(folder.join("bad.json"), json.to_string()).unwrap();
    let ran = wsam(&["check", "--golden", text(&folder)]);
    assert!(ran.err.contains("bad.json"), "{}", ran.err);
    ran.fails(1, "kind is not one of");
}

/// `check` fails on a value of a method's state and on a weight that are wrong by 1 %.
pub(crate) fn wrong_numbers(gpu: &Gpu) -> Result<(), String> {
    let raise = |number: &mut Value| *number = Value::from(1.01 * number.as_f64().unwrap());
    let last = |json: &mut Value| -> usize { json["expected"].as_array().unwrap().len() - 1 };
    let mut direction = golden("looksam_sgd_k2.json");
    let step = last(&mut direction);
    raise(&mut direction["expected"][step]["direction"][0][1]);
    let mut weight = golden("msam_momentum.json");
    let step = last(&mut weight);
    raise(&mut weight["expected"][step]["weight"][0][1]);
    for (what, json) in [("direction", direction), ("weight", weight)] {
        let folder = folder(&format!("wrong-{what}"));
        fs::write(folder.join("wrong.json"), json.to_string()).unwrap();
        let ran = wsam(&["check", "--golden", text(&folder), "--adapter", &name(gpu)]);
        assert!(ran.out.contains(&format!("{what}, tensor 0, element 1")), "{}", ran.out);
        assert!(!ran.out.contains("within the tolerance"));
        ran.fails(1, "2 of 2 replays failed");
    }
    Ok(())
}

/// The paths of methods, with the number of gradients that each takes.
pub(crate) fn toy() {
    let svg = folder("toy-methods").join("toy.svg");
    let methods = "gsam,friendly,looksam,msam";
    let out = wsam(&["toy", "--method", methods, "--plot", text(&svg)]).ok();
    for (name, gradients) in
        [("GSAM", 300), ("Friendly-SAM", 300), ("LookSAM", 180), ("Momentum-SAM", 150)]
    {
        let found = out.lines().any(|line| {
            line.trim_start().starts_with(name) && line.ends_with(&format!("{gradients} gradients"))
        });
        assert!(found, "{name} with {gradients} gradients:\n{out}");
        assert!(fs::read_to_string(&svg).unwrap().contains(name), "no {name} in the picture");
    }
    wsam(&["toy", "--method", "sgd"]).fails(2, "sgd");
}
