//! The golden trajectories of WSAM's relatives, told by `config.method`: the reader.

use std::path::PathBuf;

use burn_wsam::method::{Base, Hyperparameters, Method};
use serde_json::Value;

use super::golden::{self, Tensors, at, boolean, key, list, number, optional, size};

/// One recorded run of a method.
#[derive(Clone, Debug)]
pub struct FamilyGolden {
    pub file: String,
    pub hyper: Hyperparameters,
    pub lr: f64,
    pub shapes: Vec<Vec<usize>>,
    pub weight: Tensors,
    /// Outer index: step. For Momentum-SAM the gradient at `perturbed`, for the others that at the weights.
    pub grad: Vec<Tensors>,
    /// The second gradient of the steps that have one.
    pub grad_perturbed: Vec<Option<Tensors>>,
    pub expected: Vec<FamilyExpected>,
}

/// What one step must give.
#[derive(Clone, Debug)]
pub struct FamilyExpected {
    /// Absent where the step has no perturbation.
    pub perturbed: Option<Tensors>,
    pub weight: Tensors,
    /// In the order of `base.state_names()`.
    pub state: Vec<Tensors>,
    /// In the order of `method.state_names()`.
    pub method_state: Vec<Tensors>,
}

/// Where the files are: `WSAM_GOLDEN_DIR`, or else `tests/golden-family`.
pub fn folder() -> PathBuf {
    std::env::var_os("WSAM_GOLDEN_DIR")
        .map_or_else(|| crate::repository().join("tests/golden-family"), PathBuf::from)
}

/// Reads the trajectories of other methods in [`folder`], in name order. Other files are left to
/// [`golden::load`].
pub fn load() -> Result<Vec<FamilyGolden>, String> {
    let load = || {
        let mut found = Vec::new();
        for (path, text) in golden::read_texts(&folder())? {
            let json = golden::parse_json(&path, &text)?;
            if golden::is_family(&json) {
                let file =
                    path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into());
                found.push(parse(file, &json).map_err(|e| format!("{}: {e}", path.display()))?);
            }
        }
        Ok(found)
    };
    load().map_err(golden::name_variable)
}

/// Reads one file.
pub fn parse(file: String, json: &Value) -> Result<FamilyGolden, String> {
    let config = key(json, "config")?;
    let base_config = key(config, "base")?;
    let base = golden::parse_base(base_config)?;
    let hyper = Hyperparameters {
        method: at(config, "method", parse_method).map_err(|e| format!("config: {e}"))?,
        rho: at(config, "rho", number)?,
        epsilon: at(config, "eps", number)?,
        adaptive: at(config, "adaptive", boolean)?,
        clip: golden::parse_clip(config)?,
        ..Hyperparameters::new(base)
    };
    hyper.validate().map_err(|e| e.to_string())?;
    hyper.validate_pairs().map_err(|e| e.to_string())?;

    let shapes = at(json, "shapes", |v| list(v, |shape| list(shape, size)))?;
    let lens: Vec<usize> = shapes.iter().map(|shape| shape.iter().product()).collect();
    let tensors = |value: &Value| golden::fitting(list(value, |v| list(v, number))?, &lens);
    let perhaps = |value: &Value| match value {
        Value::Null => Ok(None),
        value => tensors(value).map(Some),
    };
    let grad = at(json, "grad", |v| list(v, tensors))?;
    let grad_perturbed = match hyper.method {
        Method::MomentumSam => vec![None; grad.len()],
        _ => at(json, "grad_perturbed", |v| list(v, perhaps))?,
    };
    let expected = at(json, "expected", |v| {
        list(v, |step| {
            let of_method = hyper.method.state_names().iter();
            Ok(FamilyExpected {
                perturbed: at(step, "perturbed", perhaps)?,
                weight: at(step, "weight", tensors)?,
                state: at(step, "state", |state| parse_state(state, &base, tensors))?,
                method_state: of_method
                    .map(|name| at(step, name, tensors))
                    .collect::<Result<_, _>>()?,
            })
        })
    })?;
    let steps = grad.len();
    if steps == 0 || grad_perturbed.len() != steps || expected.len() != steps {
        let (perturbed, expected) = (grad_perturbed.len(), expected.len());
        return Err(format!(
            "{steps} grad, {perturbed} grad_perturbed and {expected} expected steps"
        ));
    }
    let (lr, weight) = (at(base_config, "lr", number)?, at(json, "weight", tensors)?);
    Ok(FamilyGolden { file, hyper, lr, shapes, weight, grad, grad_perturbed, expected })
}

fn parse_method(json: &Value) -> Result<Method, String> {
    match key(json, "kind")?.as_str() {
        Some("gsam") => Ok(Method::Gsam { alpha: at(json, "alpha", number)? }),
        Some("friendly") => Ok(Method::FriendlySam {
            sigma: at(json, "sigma", number)?,
            lambda: at(json, "lambda", number)?,
        }),
        Some("looksam") => Ok(Method::LookSam {
            alpha: at(json, "alpha", number)?,
            k: at(json, "k", |k| size(k)?.try_into().map_err(|_| format!("{k} is too large")))?,
        }),
        Some("msam") => Ok(Method::MomentumSam),
        _ => Err("kind is not one of gsam, friendly, looksam, msam".into()),
    }
}

/// The base optimizer's state. LookSAM's SGD keeps a buffer even without a momentum, which stays zero.
fn parse_state(
    json: &Value,
    base: &Base,
    tensors: impl Fn(&Value) -> Result<Tensors, String>,
) -> Result<Vec<Tensors>, String> {
    let names = base.state_names();
    for name in json.as_object().ok_or("not an object")?.keys() {
        let unused = !names.contains(&name.as_str());
        let is_zero = || at(json, name, &tensors).map(|t| t.iter().flatten().all(|x| *x == 0.0));
        if unused && !(name == "momentum_buffer" && is_zero()?) {
            return Err(format!("{name} is no state of this optimizer, which has {names:?}"));
        }
    }
    names
        .iter()
        .map(|name| match optional(json, name) {
            Some(_) => at(json, name, &tensors),
            None => Err(format!("{name}: missing")),
        })
        .collect()
}
