//! The reader of the relatives' trajectories.

use serde_json::{Value, json};

use burn_wsam_support::family::{self, FamilyGolden};
use burn_wsam_support::golden;

fn good() -> Value {
    json!({
        "config": {
            "base": {"kind": "sgd", "lr": 0.1}, "rho": 0.1, "eps": 1e-12, "adaptive": false,
            "method": {"kind": "looksam", "alpha": 0.5, "k": 2}
        },
        "shapes": [[2]], "weight": [[1, 2]],
        "grad": [[[1, 1]], [[1, 1]]], "grad_perturbed": [[[1, 1]], null],
        "expected": [
            {"perturbed": [[1, 2]], "weight": [[1, 2]], "state": {}, "direction": [[0, 0]]},
            {"perturbed": null, "weight": [[1, 2]], "state": {"momentum_buffer": [[0, 0]]},
             "direction": [[0, 0]]}
        ]
    })
}

fn parse(json: &Value) -> Result<FamilyGolden, String> {
    family::parse("case.json".into(), json)
}

#[test]
fn steps_without_a_second_pass_are_read() {
    let golden = parse(&good()).unwrap();
    assert!(golden.grad_perturbed[0].is_some() && golden.grad_perturbed[1].is_none());
    assert!(golden.expected[0].perturbed.is_some() && golden.expected[1].perturbed.is_none());
}

#[test]
fn unreadable_files_name_the_place() {
    let cases: [(&str, Value, &str); 10] = [
        ("/config/method/kind", json!("lion"), "method: kind"),
        ("/config/method/k", json!(0), "k is 0"),
        ("/config/method/k", json!(-1), "k: -1"),
        ("/config/method/alpha", json!(-1), "alpha is -1"),
        ("/config/method", json!({"kind": "msam"}), "Momentum-SAM cannot be combined"),
        ("/config/method", json!({"kind": "friendly", "sigma": 1}), "lambda: missing"),
        ("/grad_perturbed", json!([[[1, 1]]]), "1 grad_perturbed"),
        ("/expected/0/direction", json!([[0]]), "direction: len"),
        ("/expected/1/state", json!({"momentum_buffer": [[0, 1]]}), "momentum_buffer is no state"),
        ("/expected/1/state", json!({"exp_avg": [[0, 0]]}), "exp_avg is no state"),
    ];
    for (place, value, want) in cases {
        let mut json = good();
        *json.pointer_mut(place).unwrap() = value;
        let error = parse(&json).unwrap_err();
        assert!(error.contains(want), "{place}: {error}");
    }
}

/// Files of both forms may lie in one folder.
#[test]
fn forms_are_told_apart_by_their_content() {
    assert!(golden::is_family(&good()));
    let mut wsam = good();
    wsam["config"]["method"] = Value::Null;
    assert!(!golden::is_family(&wsam));
    let texts = [("case.json".into(), good().to_string())];
    let error = golden::parse(&texts).unwrap_err();
    assert!(error.contains("case.json") && error.contains("method"), "{error}");
}
