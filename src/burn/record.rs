//! The optimizer's state as a record, in the form of Burn's own optimizers.
//!
//! State tensors and step counts are named as [`burn::optim::Sgd`], [`Adam`](burn::optim::Adam) and
//! [`AdamW`](burn::optim::AdamW) of Burn 0.22 name theirs, `"{parameter id}.{field}"`, so that a
//! record of either serves the other.

mod external;

#[cfg(feature = "train")]
pub(super) use external::OPTIMIZER;
pub(super) use external::without_ids;

use super::error::WsamError;
use super::forms::computed_in;
use super::optimizer::Wsam;
use super::slots::Path;
use super::state::MASTER;
use crate::method::Base;
use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::optim::OptimizerRecord;
use burn::tensor::{Bytes, DType, Shape, Tensor, TensorData};
use burn_pack::{Reader, Scalar, Writer};
use std::collections::{BTreeMap, HashSet};

/// State of one parameter on its way from a record to a route.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) id: ParamId,
    pub(crate) step: u64,
    /// Flat, of the type that the parameter's steps are computed in, in the order of
    /// [`Base::state_names`].
    pub(crate) tensors: Vec<TensorData>,
    pub(crate) master: Option<TensorData>,
    pub(crate) len: u64,
}

/// State of one parameter by the names of a record, in the parameter's shape.
#[derive(Clone, Debug, Default)]
pub(super) struct Recorded {
    pub(super) tensors: Vec<(&'static str, TensorData)>,
    pub(super) scalars: Vec<(&'static str, Scalar)>,
}

/// All that [`Recorded`] may hold, of whatever base optimizer.
#[cfg(feature = "train")]
pub(super) const TENSOR_FIELDS: [&str; 5] = [
    "momentum.velocity",
    "momentum.moment_1",
    "momentum.moment_2",
    "momentum.max_moment_2",
    MASTER,
];
#[cfg(feature = "train")]
pub(super) const STEP_FIELDS: [&str; 2] = ["step", "momentum.time"];

/// Burn's key of a parameter's rank.
const RANK: &str = "__rank";
/// Beyond any training, and safe to count on from.
const MOST_STEPS: u64 = 1 << 53;

impl Wsam {
    /// The state of `model`'s parameters as a record of Burn's. Waits for the device.
    ///
    /// It holds what the base optimizer carries from step to step, and nothing of the method:
    /// gradients, `e_w` and hyperparameters are not part of it. Burn's own optimizer of the same
    /// kind loads it too, with
    /// [`ModuleOptimizer::load_record`](burn::optim::ModuleOptimizer::load_record).
    ///
    /// # Errors
    ///
    /// [`WsamError::State`] if `model` has other shapes than the optimizer saw, [`WsamError::Backend`]
    /// if the device was lost.
    pub fn to_record<M: Module>(&self, model: &M) -> Result<OptimizerRecord, WsamError> {
        // Through bytes for a Burn optimizer, too: what its own record holds of a state on a GPU is not
        // always what the state was, once further steps are taken.
        OptimizerRecord::from_bytes(self.into_bytes(model)?).map_err(failed)
    }

    fn writer<M: Module>(&self, model: &M) -> Result<Writer, WsamError> {
        let mut tensors = Vec::new();
        let mut scalars = Vec::new();
        let mut paths = Vec::new();
        for Parameter { id, path, shape, .. } in parameters(model) {
            let Some(recorded) = self.recorded(id, &path, &shape)? else { continue };
            let prefix = id.val();
            for (field, data) in recorded.tensors {
                let (bytes, shape, dtype) = data.into_parts();
                let name = format!("{prefix}.{field}");
                tensors.push(burn_pack::Tensor::new(name, dtype, shape, Some(prefix), bytes));
            }
            for (field, scalar) in recorded.scalars {
                scalars.push((format!("{prefix}.{field}"), scalar));
            }
            scalars.push((format!("{prefix}.{RANK}"), Scalar::from(shape.num_dims())));
            paths.push((prefix.to_string(), path));
        }
        let mut writer = Writer::new(tensors);
        for (name, scalar) in scalars {
            writer = writer.with_scalar(&name, scalar);
        }
        for (name, path) in paths {
            writer = writer.with_metadata(&name, &path);
        }
        Ok(writer)
    }

    /// The state of one parameter of this shape, by the names of a record; `None` before its first
    /// step. `path` is for the error.
    pub(super) fn recorded(
        &self,
        id: ParamId,
        path: &str,
        shape: &Shape,
    ) -> Result<Option<Recorded>, WsamError> {
        let Some(state) = self.state(id)? else { return Ok(None) };
        let (base, found) = (&self.hyperparameters().base, shape.num_elements());
        let names = fields(base).chain([MASTER]);
        let tensors = state.tensors.into_iter().zip(names).map(|((_, data), field)| {
            let (bytes, flat, dtype) = data.into_parts();
            if flat.num_elements() != found {
                let state = flat.num_elements();
                return Err(WsamError::State { param: path.to_owned(), found, state });
            }
            let data = TensorData::try_from_bytes(bytes, shape.clone(), dtype).map_err(failed)?;
            Ok((field, data))
        });
        let tensors = tensors.collect::<Result<_, _>>()?;
        let scalars = vec![(step_field(base), Scalar::from(state.step))];
        Ok(Some(Recorded { tensors, scalars }))
    }

    /// Takes the state of `model`'s parameters from a record, of this optimizer's by whatever route,
    /// or of a Burn optimizer of the base optimizer's kind. Call it between steps; parameters that
    /// the record does not know start anew.
    ///
    /// Hyperparameters are the configuration's, and what [`set_rho`](Self::set_rho) and
    /// [`set_gamma`](Self::set_gamma) made of them.
    ///
    /// # Errors
    ///
    /// Nothing has changed after [`WsamError::ForeignRecord`] for a record with a parameter that
    /// `model` does not have, [`WsamError::RecordShape`], [`WsamError::RecordState`] for the record of
    /// another kind of optimizer, [`WsamError::Record`] for one that makes no sense, and
    /// [`WsamError::Backend`] if the device was lost.
    pub fn load_record<M: Module>(
        &mut self,
        model: &M,
        record: OptimizerRecord,
    ) -> Result<(), WsamError> {
        self.from_bytes(model, record.into_bytes().map_err(failed)?)
    }

    fn read<M: Module>(&mut self, model: &M, reader: Reader) -> Result<(), WsamError> {
        self.replace(model, entries(reader)?)
    }

    /// [`load_record`](Self::load_record), from states that were taken out of a record.
    #[cfg(feature = "train")]
    pub(super) fn load_recorded<M: Module>(
        &mut self,
        model: &M,
        states: Vec<(u64, Recorded)>,
    ) -> Result<(), WsamError> {
        self.replace(model, states.into_iter().map(|(id, state)| (id, state.into())).collect())
    }

    fn replace<M: Module>(
        &mut self,
        model: &M,
        mut entries: BTreeMap<u64, Entry>,
    ) -> Result<(), WsamError> {
        let parameters = parameters(model);
        check_known(&parameters, &entries)?;
        let (base, has_masters) = (self.hyperparameters().base, self.has_masters());
        let ids: Vec<_> = parameters.iter().map(|parameter| parameter.id).collect();
        let loaded = parameters
            .into_iter()
            .filter_map(|parameter| Some((entries.remove(&parameter.id.val())?, parameter)))
            .map(|(entry, parameter)| entry.fit(&base, has_masters, parameter))
            // A parameter without elements takes no part in a step.
            .filter(|loaded| loaded.as_ref().map_or(true, |state| state.len > 0))
            .collect::<Result<Vec<_>, _>>()?;
        self.replace_states(&ids, loaded)
    }

    /// [`to_record`](Self::to_record), in a burnpack file; `.bpk` is appended if there is no
    /// extension.
    ///
    /// # Errors
    ///
    /// As there, and [`WsamError::Record`] if the file cannot be written.
    pub fn save<M: Module>(
        &self,
        model: &M,
        path: impl AsRef<std::path::Path>,
    ) -> Result<(), WsamError> {
        match self.burn_optimizer() {
            Some(optimizer) => optimizer.save(path).map_err(failed),
            None => self.writer(model)?.write_to_file(path).map_err(failed),
        }
    }

    /// [`load_record`](Self::load_record), from a burnpack file.
    ///
    /// # Errors
    ///
    /// As there, and [`WsamError::Record`] if the file cannot be read.
    pub fn load<M: Module>(
        &mut self,
        model: &M,
        path: impl AsRef<std::path::Path>,
    ) -> Result<(), WsamError> {
        if self.burn_optimizer().is_some() {
            return self.load_record(model, OptimizerRecord::load(path).map_err(failed)?);
        }
        self.read(model, Reader::from_file(path).map_err(failed)?)
    }

    /// [`to_record`](Self::to_record), in memory.
    ///
    /// # Errors
    ///
    /// As there.
    // Burn's own name for it.
    #[allow(clippy::wrong_self_convention)]
    pub fn into_bytes<M: Module>(&self, model: &M) -> Result<Bytes, WsamError> {
        match self.burn_optimizer() {
            Some(optimizer) => optimizer.into_bytes().map_err(failed),
            None => self.writer(model)?.into_bytes().map_err(failed),
        }
    }

    /// [`load_record`](Self::load_record), from memory.
    ///
    /// # Errors
    ///
    /// As there, and [`WsamError::Record`] for bytes that are no record.
    // Burn's own name for it.
    #[allow(clippy::wrong_self_convention)]
    pub fn from_bytes<M: Module>(&mut self, model: &M, bytes: Bytes) -> Result<(), WsamError> {
        match self.burn_optimizer() {
            Some(_) => self.read_external(model, bytes),
            None => self.read(model, Reader::from_bytes(bytes).map_err(failed)?),
        }
    }
}

/// Refuses a record with a parameter that the model does not have.
fn check_known(parameters: &[Parameter], entries: &BTreeMap<u64, Entry>) -> Result<(), WsamError> {
    let known: HashSet<u64> = parameters.iter().map(|parameter| parameter.id.val()).collect();
    match entries.iter().find(|(id, _)| !known.contains(*id)) {
        Some((id, entry)) => {
            let param = entry.path.clone().unwrap_or_else(|| format!("parameter {id}"));
            Err(WsamError::ForeignRecord { param })
        }
        None => Ok(()),
    }
}

/// Burn's names of the states, in the order of [`Base::state_names`].
fn fields(base: &Base) -> impl Iterator<Item = &'static str> {
    base.state_names().iter().map(|name| match *name {
        "momentum_buffer" => "momentum.velocity",
        "exp_avg" => "momentum.moment_1",
        "exp_avg_sq" => "momentum.moment_2",
        "max_exp_avg_sq" => "momentum.max_moment_2",
        other => other,
    })
}

/// Burn's name of the step count; its SGD has none.
fn step_field(base: &Base) -> &'static str {
    match base {
        Base::Sgd { .. } => "step",
        Base::Adam(_) | Base::AdamW(_) => "momentum.time",
    }
}

fn failed(error: impl std::fmt::Display) -> WsamError {
    WsamError::Record { reason: error.to_string() }
}

struct Parameter {
    id: ParamId,
    path: String,
    shape: Shape,
    dtype: DType,
}

/// Float parameters in module order; of several with one id the first.
fn parameters<M: Module>(model: &M) -> Vec<Parameter> {
    #[derive(Default)]
    struct Find {
        path: Path,
        seen: HashSet<ParamId>,
        found: Vec<Parameter>,
    }
    impl ModuleVisitor for Find {
        fn enter_module(&mut self, name: &str, _container_type: &str) {
            self.path.enter(name);
        }

        fn exit_module(&mut self, _name: &str, _container_type: &str) {
            self.path.exit();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if self.seen.insert(param.id) {
                let (path, value) = (self.path.to_string(), param.val());
                let (shape, dtype) = (value.shape(), value.dtype());
                self.found.push(Parameter { id: param.id, path, shape, dtype });
            }
        }
    }
    let mut find = Find::default();
    model.visit(&mut find);
    find.found
}

/// What a record says of one parameter.
#[derive(Default)]
struct Entry {
    path: Option<String>,
    tensors: BTreeMap<String, TensorData>,
    scalars: BTreeMap<String, Scalar>,
}

#[cfg(feature = "train")]
impl From<Recorded> for Entry {
    fn from(Recorded { tensors, scalars }: Recorded) -> Self {
        let tensors = tensors.into_iter().map(|(field, data)| (field.to_owned(), data)).collect();
        let scalars = scalars.into_iter().map(|(field, value)| (field.to_owned(), value)).collect();
        Self { path: None, tensors, scalars }
    }
}

/// The record, by parameter id.
fn entries(reader: Reader) -> Result<BTreeMap<u64, Entry>, WsamError> {
    let mut entries: BTreeMap<u64, Entry> = BTreeMap::new();
    let place = |name: &str| -> Result<(u64, String), WsamError> {
        let (id, field) = name.split_once('.').ok_or_else(|| failed(format!("odd name {name}")))?;
        Ok((id.parse().map_err(|_| failed(format!("odd name {name}")))?, field.to_owned()))
    };
    for (name, scalar) in reader.scalars() {
        let (id, field) = place(name)?;
        entries.entry(id).or_default().scalars.insert(field, *scalar);
    }
    let paths = reader.metadata().clone();
    for tensor in reader.into_tensors().map_err(failed)? {
        let (name, dtype, shape, _, bytes) = tensor.into_parts().map_err(failed)?;
        let (id, field) = place(&name)?;
        let data = TensorData::try_from_bytes(bytes, shape, dtype).map_err(failed)?;
        entries.entry(id).or_default().tensors.insert(field, data);
    }
    for (id, path) in paths {
        if let Some(entry) = id.parse().ok().and_then(|id: u64| entries.get_mut(&id)) {
            entry.path = Some(path);
        }
    }
    Ok(entries)
}

impl Entry {
    /// The state of `parameter`, checked against it and the base optimizer.
    fn fit(
        mut self,
        base: &Base,
        has_masters: bool,
        parameter: Parameter,
    ) -> Result<Loaded, WsamError> {
        let Parameter { id, path: param, shape, dtype } = parameter;
        // A record of a run without them is as good: they begin with the weights.
        let has_master =
            has_masters && computed_in(dtype) != dtype && self.tensors.contains_key(MASTER);
        let expected = fields(base).chain(has_master.then_some(MASTER));
        let mut expected: Vec<_> = expected.map(str::to_owned).collect();
        expected.sort();
        let found: Vec<_> = self.tensors.keys().cloned().collect();
        if found != expected {
            return Err(WsamError::RecordState { param, found, expected, base: base.name() });
        }
        let step = match self.scalars.get(step_field(base)) {
            Some(scalar) => u64::try_from(*scalar).ok(),
            // Burn's SGD does not count; whoever has a state has taken a step.
            None => matches!(base, Base::Sgd { .. }).then_some(1),
        };
        let step = step.filter(|step| (1..=MOST_STEPS).contains(step)).ok_or_else(|| {
            failed(format!("{param} has no step count in 1..=2^53 at {}", step_field(base)))
        })?;
        let len = shape.num_elements();
        let mut tensors = fields(base)
            .chain([MASTER])
            .filter_map(|field| self.tensors.remove(field))
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
        Ok(Loaded { id, step, tensors, master, len: len as u64 })
    }
}
