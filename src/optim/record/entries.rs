//! Contents of a record by parameter, checked against the model.

use super::names::{RUN_PREFIX, failed, fields, own_fields, step_field};
use super::owned::owned;
use crate::method::{Base, Hyperparameters};
use crate::optim::error::WsamError;
use crate::optim::half_precision::computed_in;
use crate::optim::run_state::{MOST_STEPS, RunState};
#[cfg(feature = "train")]
use crate::optim::state::Recorded;
use crate::optim::state::{LoadedState, MASTER_WEIGHTS};
use crate::optim::walk::for_each_id;
use burn::module::{Module, ParamId};
use burn::tensor::{DType, Shape, TensorData};
use burn_pack::{Reader, Scalar};
use std::collections::{BTreeMap, HashSet};

/// Returns an error for a record with a parameter that the model does not have.
pub(super) fn check_known(
    parameters: &[Parameter],
    entries: &BTreeMap<u64, RecordEntry>,
) -> Result<(), WsamError> {
    let known: HashSet<u64> = parameters.iter().map(|parameter| parameter.id.val()).collect();
    match entries.iter().find(|(id, _)| !known.contains(*id)) {
        Some((id, entry)) => {
            let param = entry.path.clone().unwrap_or_else(|| format!("parameter {id}"));
            Err(WsamError::ForeignRecord { param })
        }
        None => Ok(()),
    }
}

pub(super) struct Parameter {
    pub(super) id: ParamId,
    pub(super) path: String,
    pub(super) shape: Shape,
    pub(super) dtype: DType,
}

/// Float parameters in module order. Of several with the same id, the first one.
pub(super) fn parameters<M: Module>(model: &M) -> Vec<Parameter> {
    let mut found = Vec::new();
    for_each_id(model, |param, path| {
        let (id, path) = (param.id(), path.to_string());
        found.push(Parameter { id, path, shape: param.shape(), dtype: param.dtype() });
    });
    found
}

/// A record's values of one parameter.
#[derive(Default)]
pub(super) struct RecordEntry {
    path: Option<String>,
    pub(super) tensors: BTreeMap<String, TensorData>,
    scalars: BTreeMap<String, Scalar>,
}

#[cfg(feature = "train")]
impl From<Recorded> for RecordEntry {
    fn from(Recorded { tensors, scalars }: Recorded) -> Self {
        let tensors = tensors.into_iter().map(|(field, data)| (field.to_owned(), data)).collect();
        let scalars = scalars.into_iter().map(|(field, value)| (field.to_owned(), value)).collect();
        Self { path: None, tensors, scalars }
    }
}

/// All values of a record.
#[derive(Default)]
pub(super) struct Contents {
    /// By parameter id.
    pub(super) entries: BTreeMap<u64, RecordEntry>,
    /// State of the optimizer that belongs to no parameter, if the record has it.
    pub(super) run: Option<RunState>,
}

pub(super) fn contents(reader: Reader) -> Result<Contents, WsamError> {
    let mut entries: BTreeMap<u64, RecordEntry> = BTreeMap::new();
    let mut own: BTreeMap<String, Scalar> = BTreeMap::new();
    let place = |name: &str| -> Result<(u64, String), WsamError> {
        let (id, field) = name
            .split_once('.')
            .ok_or_else(|| failed(format!("the name {name} is not \"parameter id.field\"")))?;
        Ok((
            id.parse()
                .map_err(|_| failed(format!("the name {name} is not \"parameter id.field\"")))?,
            field.to_owned(),
        ))
    };
    for (name, scalar) in reader.scalars() {
        if name.starts_with(RUN_PREFIX) {
            own.insert(name.clone(), *scalar);
            continue;
        }
        let (id, field) = place(name)?;
        entries.entry(id).or_default().scalars.insert(field, *scalar);
    }
    let paths = reader.metadata().clone();
    for tensor in reader.into_tensors().map_err(failed)? {
        let (name, dtype, shape, _, bytes) = tensor.into_parts().map_err(failed)?;
        let (id, field) = place(&name)?;
        let data = TensorData::try_from_bytes(bytes, shape, dtype).map_err(failed)?;
        entries.entry(id).or_default().tensors.insert(field, owned(data)?);
    }
    for (id, path) in paths {
        if let Some(entry) = id.parse().ok().and_then(|id: u64| entries.get_mut(&id)) {
            entry.path = Some(path);
        }
    }
    let run = match RunState::from_scalars(|name| own.get(name).copied())? {
        Some(run) => Some(run),
        None => newest(entries.values())?,
    };
    Ok(Contents { entries, run })
}

/// Returns the latest run state. A learner's checkpoint repeats it for each parameter, and it is outdated for
/// parameters that were frozen since.
fn newest<'a>(
    entries: impl Iterator<Item = &'a RecordEntry>,
) -> Result<Option<RunState>, WsamError> {
    let mut newest: Option<RunState> = None;
    for entry in entries {
        let run = RunState::from_scalars(|name| entry.scalars.get(name).copied())?;
        if run.as_ref().map(|run| run.steps) > newest.as_ref().map(|run| run.steps) {
            newest = run;
        }
    }
    Ok(newest)
}

impl RecordEntry {
    /// Step count of the parameter, if the record has it.
    pub(super) fn steps(&self, base: &Base) -> Option<u64> {
        self.scalars.get(step_field(base)).and_then(|scalar| u64::try_from(*scalar).ok())
    }

    /// The state of `parameter`, checked against it, the base optimizer and the method.
    pub(super) fn fit(
        mut self,
        hyper: &Hyperparameters,
        has_masters: bool,
        parameter: Parameter,
    ) -> Result<LoadedState, WsamError> {
        let Parameter { id, path: param, shape, dtype } = parameter;
        let base = &hyper.base;
        // A record without master weights or the method's state is valid: they start as in a new optimizer.
        let has_master =
            has_masters && computed_in(dtype) != dtype && self.tensors.contains_key(MASTER_WEIGHTS);
        let own = own_fields(hyper).filter(|field| match *field {
            MASTER_WEIGHTS => has_master,
            field => self.tensors.contains_key(field),
        });
        let names: Vec<&str> = fields(base).chain(own).collect();
        let mut expected: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        expected.sort();
        let found: Vec<_> = self.tensors.keys().cloned().collect();
        if found != expected {
            return Err(WsamError::RecordState { param, found, expected, base: base.name() });
        }
        let step = match self.scalars.get(step_field(base)) {
            Some(scalar) => u64::try_from(*scalar).ok(),
            // Burn's SGD has no step count. A parameter with a state has taken at least one step.
            None => matches!(base, Base::Sgd { .. }).then_some(1),
        };
        let step = step.filter(|step| (1..=MOST_STEPS).contains(step)).ok_or_else(|| {
            failed(format!("{param} has no step count in 1..=2^53 at {}", step_field(base)))
        })?;
        let len = shape.num_elements();
        let mut tensors = names
            .iter()
            .filter_map(|field| self.tensors.remove(*field))
            .map(|data| {
                if *data.shape() != shape {
                    let (weight, record) = (shape.to_vec(), data.shape().to_vec());
                    return Err(WsamError::RecordShape { param: param.clone(), weight, record });
                }
                let (bytes, _, dtype_found) = data.into_parts();
                if !dtype_found.is_float() {
                    return Err(failed(format!("{param} has a state of {dtype_found:?}")));
                }
                let flat = TensorData::try_from_bytes(bytes, [len], dtype_found).map_err(failed)?;
                Ok(flat.convert_dtype(computed_in(dtype)))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let master = if has_master { tensors.pop() } else { None };
        let method = tensors.split_off(base.state_names().len());
        Ok(LoadedState { id, step, tensors, method, master, len: len as u64 })
    }
}
