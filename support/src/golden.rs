//! The golden trajectories: every `*.json` of a folder is read, replayed through a `Route` and
//! compared at every step. A file that cannot be read or understood is an error, never skipped.

use std::path::{Path, PathBuf};

use burn_wsam::method::{
    Base, Clip, ClipScope, Coupling, Hyperparameters, Method, Moments, Momentum, NonFinite,
};
use serde_json::Value;

/// Tensors as flat lists.
pub type Tensors = Vec<Vec<f64>>;

/// Rounds to the kernels' `f32`.
pub fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|value| *value as f32).collect()
}

/// Converts to the oracle's `f64`.
pub fn widen(values: &[f32]) -> Vec<f64> {
    values.iter().map(|value| f64::from(*value)).collect()
}

/// One recorded run.
#[derive(Clone, Debug)]
pub struct Golden {
    pub file: String,
    pub hyper: Hyperparameters,
    pub lr: f64,
    pub shapes: Vec<Vec<usize>>,
    pub weight: Tensors,
    /// Outer index: step.
    pub grad: Vec<Tensors>,
    pub grad_perturbed: Vec<Tensors>,
    pub expected: Vec<Expected>,
}

/// Expected values after one step.
#[derive(Clone, Debug)]
pub struct Expected {
    pub perturbed: Tensors,
    pub weight: Tensors,
    /// In the order of `base.state_names()`.
    pub state: Vec<Tensors>,
}

/// The paper's two-basin example: several runs from one start. A file with the key `runs` has this form.
#[derive(Clone, Debug)]
pub struct Toy {
    pub file: String,
    pub start: [f64; 2],
    pub lr: f64,
    pub momentum: f64,
    pub rho: f64,
    pub runs: Vec<ToyRun>,
}

#[derive(Clone, Debug)]
pub struct ToyRun {
    pub gamma: f64,
    pub coupling: Coupling,
    /// `(mu, sigma)` at the start and after each step.
    pub path: Vec<[f64; 2]>,
    pub final_loss: f64,
}

impl Toy {
    pub fn hyper(&self, run: &ToyRun) -> Hyperparameters {
        Hyperparameters {
            rho: self.rho,
            gamma: run.gamma,
            coupling: run.coupling,
            ..Hyperparameters::new(Base::Sgd {
                momentum: momentum(self.momentum, 0.0, false),
                weight_decay: 0.0,
            })
        }
    }
}

/// Returns the folder of the golden files: `WSAM_GOLDEN_DIR`, by default `tests/golden`.
pub fn folder() -> PathBuf {
    std::env::var_os("WSAM_GOLDEN_DIR")
        .map_or_else(|| crate::repository().join("tests/golden"), PathBuf::from)
}

/// Whether `WSAM_GOLDEN_DIR` names the folder. It may hold one kind of file only.
pub fn is_own_folder() -> bool {
    std::env::var_os("WSAM_GOLDEN_DIR").is_some()
}

/// Reads [`folder`], without the trajectories of other methods ([`super::family::load`] reads these). An error
/// names the variable if it chose the folder.
pub fn load() -> Result<(Vec<Golden>, Vec<Toy>), String> {
    let load = || {
        let mut texts = read_texts(&folder())?;
        // A text that is not JSON stays, so that `parse` reports it.
        texts.retain(|(path, text)| !parse_json(path, text).is_ok_and(|json| is_family(&json)));
        parse(&texts)
    };
    load().map_err(name_variable)
}

/// Puts the variable in front of an error if it chose the folder.
pub fn name_variable(error: String) -> String {
    if is_own_folder() { format!("WSAM_GOLDEN_DIR: {error}") } else { error }
}

/// Reads every `*.json` in `folder`, in name order.
pub fn load_from(folder: &Path) -> Result<(Vec<Golden>, Vec<Toy>), String> {
    parse(&read_texts(folder)?)
}

/// The paths and texts of every `*.json` in `folder`, in name order.
pub fn read_texts(folder: &Path) -> Result<Vec<(PathBuf, String)>, String> {
    let at_folder = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(at_folder)? {
        let path = entry.map_err(at_folder)?.path();
        if path.extension().is_some_and(|e| e == "json") {
            paths.push(path);
        }
    }
    paths.sort();
    if paths.is_empty() {
        return Err(format!("{}: no *.json file", folder.display()));
    }

    let mut texts = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(&path);
        texts.push((path.clone(), text.map_err(|e| format!("{}: {e}", path.display()))?));
    }
    Ok(texts)
}

/// Whether a file is a trajectory of another method than WSAM, told by its `config.method`.
pub fn is_family(json: &Value) -> bool {
    json.get("config").is_some_and(|config| optional(config, "method").is_some())
}

/// Reads a text. An error names the path.
pub fn parse_json(path: &Path, text: &str) -> Result<Value, String> {
    // Some editors and shells put a byte order mark first.
    let text = text.trim_start_matches('\u{feff}');
    serde_json::from_str(text).map_err(|e| format!("{}: {e}", path.display()))
}

/// Parses files, given as paths and texts. Errors name the path.
pub fn parse(texts: &[(PathBuf, impl AsRef<str>)]) -> Result<(Vec<Golden>, Vec<Toy>), String> {
    let (mut goldens, mut toys) = (Vec::new(), Vec::new());
    for (path, text) in texts {
        let file = path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        let at_file = |error: String| format!("{}: {error}", path.display());
        let json = parse_json(path, text.as_ref())?;
        if is_family(&json) {
            return Err(at_file("config: method: only WSAM's trajectories are read here".into()));
        }
        if json.get("runs").is_some() {
            toys.push(parse_toy(file, &json).map_err(at_file)?);
        } else {
            goldens.push(parse_golden(file, &json).map_err(at_file)?);
        }
    }
    Ok((goldens, toys))
}

fn parse_golden(file: String, json: &Value) -> Result<Golden, String> {
    let config = key(json, "config")?;
    let base_config = key(config, "base")?;
    let base = parse_base(base_config)?;
    let hyper = Hyperparameters {
        base,
        method: Method::Wsam,
        rho: at(config, "rho", number)?,
        gamma: at(config, "gamma", number)?,
        epsilon: at(config, "eps", number)?,
        adaptive: at(config, "adaptive", boolean)?,
        coupling: coupling(at(config, "decouple", boolean)?),
        clip: parse_clip(config)?,
        non_finite: NonFinite::Skip,
        groups: Vec::new(),
    };

    let shapes = at(json, "shapes", |v| list(v, |shape| list(shape, size)))?;
    let lens: Vec<usize> = shapes.iter().map(|shape| shape.iter().product()).collect();
    let tensors = |value: &Value| fitting(list(value, |v| list(v, number))?, &lens);
    let golden = Golden {
        file,
        hyper,
        lr: at(base_config, "lr", number)?,
        weight: at(json, "weight", tensors)?,
        grad: at(json, "grad", |v| list(v, tensors))?,
        grad_perturbed: at(json, "grad_perturbed", |v| list(v, tensors))?,
        expected: at(json, "expected", |v| {
            list(v, |step| {
                Ok(Expected {
                    perturbed: at(step, "perturbed", tensors)?,
                    weight: at(step, "weight", tensors)?,
                    state: at(step, "state", |state| parse_state(state, &base, tensors))?,
                })
            })
        })?,
        shapes,
    };
    let steps = golden.grad.len();
    if steps == 0 || golden.grad_perturbed.len() != steps || golden.expected.len() != steps {
        return Err(format!(
            "{steps} grad, {} grad_perturbed and {} expected steps",
            golden.grad_perturbed.len(),
            golden.expected.len()
        ));
    }
    Ok(golden)
}

/// `max_norm` and `clip_scope` of a configuration.
pub(super) fn parse_clip(config: &Value) -> Result<Option<Clip>, String> {
    let Some(max_norm) = optional(config, "max_norm") else {
        return Ok(None);
    };
    let scope = match optional(config, "clip_scope").map(Value::as_str) {
        None | Some(Some("both")) => ClipScope::Both,
        Some(Some("perturbed_only")) => ClipScope::PerturbedOnly,
        Some(_) => return Err("clip_scope is neither both nor perturbed_only".into()),
    };
    let max_norm = number(max_norm).map_err(|e| format!("max_norm: {e}"))?;
    Ok(Some(Clip { max_norm, scope }))
}

fn parse_state(
    json: &Value,
    base: &Base,
    tensors: impl Fn(&Value) -> Result<Tensors, String>,
) -> Result<Vec<Tensors>, String> {
    let names = base.state_names();
    let found = json.as_object().ok_or("not an object")?;
    if let Some(name) = found.keys().find(|name| !names.contains(&name.as_str())) {
        return Err(format!("{name} is no state of this optimizer, which has {names:?}"));
    }
    names.iter().map(|name| at(json, name, &tensors)).collect()
}

/// Missing fields have PyTorch's defaults.
pub(super) fn parse_base(json: &Value) -> Result<Base, String> {
    let number_or = |name, default| match optional(json, name) {
        None => Ok(default),
        Some(_) => at(json, name, number),
    };
    let boolean_or_false = |name| match optional(json, name) {
        None => Ok(false),
        Some(_) => at(json, name, boolean),
    };
    let moments = |weight_decay| {
        let [beta_1, beta_2] = match optional(json, "betas") {
            None => [0.9, 0.999],
            Some(_) => at(json, "betas", pair)?,
        };
        Ok::<_, String>(Moments {
            beta_1,
            beta_2,
            epsilon: number_or("eps", 1e-8)?,
            weight_decay: number_or("weight_decay", weight_decay)?,
            amsgrad: boolean_or_false("amsgrad")?,
        })
    };
    match key(json, "kind")?.as_str() {
        Some("sgd") => Ok(Base::Sgd {
            momentum: momentum(
                number_or("momentum", 0.0)?,
                number_or("dampening", 0.0)?,
                boolean_or_false("nesterov")?,
            ),
            weight_decay: number_or("weight_decay", 0.0)?,
        }),
        Some("adam") => Ok(Base::Adam(moments(0.0)?)),
        Some("adamw") => Ok(Base::AdamW(moments(0.01)?)),
        _ => Err("kind is not one of sgd, adam, adamw".into()),
    }
}

fn parse_toy(file: String, json: &Value) -> Result<Toy, String> {
    let toy = Toy {
        file,
        start: at(json, "start", pair)?,
        lr: at(json, "lr", number)?,
        momentum: at(json, "momentum", number)?,
        rho: at(json, "rho", number)?,
        runs: at(json, "runs", |v| {
            list(v, |run| {
                Ok(ToyRun {
                    gamma: at(run, "gamma", number)?,
                    coupling: coupling(at(run, "decouple", boolean)?),
                    path: at(run, "path", |v| list(v, pair))?,
                    final_loss: at(run, "final_loss", number)?,
                })
            })
        })?,
    };
    let steps = at(json, "steps", size)?;
    match toy.runs.iter().find(|run| run.path.len() != steps + 1) {
        Some(run) => Err(format!("a path has {} points for {steps} steps", run.path.len())),
        None if toy.runs.is_empty() => Err("no runs".into()),
        None => Ok(toy),
    }
}

fn momentum(momentum: f64, dampening: f64, nesterov: bool) -> Option<Momentum> {
    (momentum != 0.0).then_some(Momentum { momentum, dampening, nesterov })
}

fn coupling(decouple: bool) -> Coupling {
    if decouple { Coupling::Decoupled } else { Coupling::Coupled }
}

pub(super) fn fitting(tensors: Tensors, lens: &[usize]) -> Result<Tensors, String> {
    let found: Vec<usize> = tensors.iter().map(Vec::len).collect();
    if found == lens { Ok(tensors) } else { Err(format!("lengths {found:?}, shapes say {lens:?}")) }
}

pub(super) fn key<'a>(json: &'a Value, name: &str) -> Result<&'a Value, String> {
    json.get(name).ok_or_else(|| format!("{name}: missing"))
}

/// Treats `null` as missing.
pub(super) fn optional<'a>(json: &'a Value, name: &str) -> Option<&'a Value> {
    json.get(name).filter(|value| !value.is_null())
}

pub(super) fn at<T>(
    json: &Value,
    name: &str,
    parse: impl Fn(&Value) -> Result<T, String>,
) -> Result<T, String> {
    parse(key(json, name)?).map_err(|e| format!("{name}: {e}"))
}

pub(super) fn list<T>(
    json: &Value,
    parse: impl Fn(&Value) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    let items = json.as_array().ok_or("not a list")?;
    items.iter().enumerate().map(|(i, v)| parse(v).map_err(|e| format!("[{i}]: {e}"))).collect()
}

fn pair(json: &Value) -> Result<[f64; 2], String> {
    list(json, number)?.try_into().map_err(|v: Vec<f64>| format!("{} numbers, not 2", v.len()))
}

pub(super) fn number(json: &Value) -> Result<f64, String> {
    json.as_f64().ok_or_else(|| format!("{json} is not a number"))
}

pub(super) fn size(json: &Value) -> Result<usize, String> {
    let size = json.as_u64().and_then(|v| usize::try_from(v).ok());
    size.ok_or_else(|| format!("{json} is not a size"))
}

pub(super) fn boolean(json: &Value) -> Result<bool, String> {
    json.as_bool().ok_or_else(|| format!("{json} is not a boolean"))
}
