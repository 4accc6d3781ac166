//! Records around a Burn optimizer as the base.

use super::entries::{RecordEntry, check_known, contents, parameters};
#[cfg(feature = "train")]
use super::names::OPTIMIZER;
use super::names::failed;
use crate::optim::error::WsamError;
use crate::optim::optimizer::Wsam;
#[cfg(feature = "train")]
use crate::optim::run_state::RunState;
#[cfg(feature = "train")]
use crate::optim::state::Recorded;
use crate::optim::state_store::MethodStates;
use burn::module::{Module, ParamId};
use burn::optim::{ModuleOptimizer, OptimizerRecord};
use burn::tensor::{Bytes, DType, TensorData};
use burn_pack::{Reader, Writer};
use std::collections::BTreeMap;

/// Returns a Burn optimizer's states without those of parameters that are `is_dropped`.
pub(in crate::optim) fn without_ids(
    optimizer: &ModuleOptimizer,
    is_dropped: &dyn Fn(ParamId) -> bool,
) -> Result<OptimizerRecord, WsamError> {
    let stays = |name: &str| {
        let id = name.split_once('.').map_or(name, |(id, _)| id);
        !id.parse().is_ok_and(|id: u64| is_dropped(id.into()))
    };
    let writer = writer_of(optimizer, stays)?;
    OptimizerRecord::from_bytes(writer.into_bytes().map_err(failed)?).map_err(failed)
}

/// Writer of those entries of a Burn optimizer's record whose names `stays` accepts.
fn writer_of(
    optimizer: &ModuleOptimizer,
    stays: impl Fn(&str) -> bool,
) -> Result<Writer, WsamError> {
    writer_with(optimizer, stays, Vec::new())
}

/// [`writer_of`], with the method's states.
fn writer_with(
    optimizer: &ModuleOptimizer,
    stays: impl Fn(&str) -> bool,
    own: MethodStates,
) -> Result<Writer, WsamError> {
    let reader = Reader::from_bytes(optimizer.into_bytes().map_err(failed)?).map_err(failed)?;
    let (scalars, paths) = (reader.scalars().clone(), reader.metadata().clone());
    let tensors = reader.into_tensors().map_err(failed)?.into_iter();
    let own = own.into_iter().map(|(id, field, data)| {
        let (prefix, (bytes, shape, dtype)) = (id.val(), data.into_parts());
        burn_pack::Tensor::new(format!("{prefix}.{field}"), dtype, shape, Some(prefix), bytes)
    });
    let tensors = tensors.filter(|tensor| stays(&tensor.name)).chain(own);
    let mut writer = Writer::new(tensors.collect());
    for (name, scalar) in scalars.into_iter().filter(|(name, _)| stays(name)) {
        writer = writer.with_scalar(&name, scalar);
    }
    for (name, path) in paths.into_iter().filter(|(name, _)| stays(name)) {
        writer = writer.with_metadata(&name, &path);
    }
    Ok(writer)
}

/// Returns an error for states in half precision: Burn 0.22.1 loads them as `f32`, and panics in the next step.
fn check_precision(entries: &BTreeMap<u64, RecordEntry>) -> Result<(), WsamError> {
    let half = |data: &&TensorData| matches!(data.dtype(), DType::F16 | DType::BF16);
    let found =
        entries.iter().find_map(|(id, entry)| Some((id, entry.tensors.values().find(half)?)));
    match found {
        Some((id, data)) => Err(failed(format!(
            "the Burn optimizer's state of parameter {id} is {:?}, which Burn 0.22.1 cannot load: it converts it to \
             f32, and the next step would panic; train with parameters in f32, or start with a new optimizer",
            data.dtype()
        ))),
        None => Ok(()),
    }
}

impl Wsam {
    /// Writer of a Burn optimizer's record, the method's states of the parameters that are `is_known`, and our run
    /// state.
    pub(super) fn burn_base_writer(
        &self,
        optimizer: &ModuleOptimizer,
        is_known: &dyn Fn(ParamId) -> bool,
    ) -> Result<Writer, WsamError> {
        let mut own = self.method_states()?;
        own.retain(|(id, ..)| is_known(*id));
        self.with_run_state(writer_with(optimizer, |_| true, own)?)
    }

    /// Loads a Burn optimizer's record. Burn drops states of another kind of optimizer, whose parameters start
    /// without state.
    pub(super) fn read_burn_base<M: Module>(
        &mut self,
        model: &M,
        bytes: Bytes,
    ) -> Result<(), WsamError> {
        let copy = |bytes: &Bytes| Bytes::from_bytes_vec(bytes.to_vec());
        let mut contents = contents(Reader::from_bytes(copy(&bytes)).map_err(failed)?)?;
        let parameters = parameters(model);
        check_known(&parameters, &contents.entries)?;
        check_precision(&contents.entries)?;
        let names = self.hyperparameters().method.state_names();
        let ids: Vec<_> = parameters.iter().map(|parameter| parameter.id).collect();
        let own = parameters.into_iter().filter_map(|parameter| {
            contents.entries.get_mut(&parameter.id.val())?.method_state(names, parameter)
        });
        let own = own.collect::<Result<Vec<_>, _>>()?;
        let record = OptimizerRecord::from_bytes(bytes).map_err(failed)?;
        self.resolve_outcomes()?;
        if !names.is_empty() {
            self.replace_states(&ids, own)?;
        }
        self.load_burn_base(record);
        // Burn's optimizers name their step counts differently, so no largest count is available.
        self.resume_run_state(contents.run, None);
        Ok(())
    }

    /// The state of the Burn optimizer that is the base.
    #[cfg(feature = "train")]
    pub(in crate::optim) fn recorded_burn_base(&self) -> Result<Option<Recorded>, WsamError> {
        let Some(optimizer) = self.burn_optimizer() else { return Ok(None) };
        let writer = writer_with(optimizer, |_| true, self.method_states()?)?;
        let bytes = writer.into_bytes().map_err(failed)?.to_vec();
        let len = bytes.len();
        let tensors = vec![(OPTIMIZER, TensorData::new(bytes, [len]))];
        Ok(Some(Recorded { tensors, scalars: Vec::new() }))
    }

    /// Loads the state of the Burn optimizer, which one of the states of a checkpoint holds.
    #[cfg(feature = "train")]
    pub(in crate::optim) fn load_recorded_burn_base<M: Module>(
        &mut self,
        model: &M,
        states: Vec<(u64, Recorded)>,
        run: Option<RunState>,
    ) -> Result<(), WsamError> {
        let mut tensors = states.into_iter().flat_map(|(_, state)| state.tensors);
        let found = tensors.find(|(field, _)| *field == OPTIMIZER);
        let lacks = || {
            failed("the checkpoint was not written by a training with WSAM around a Burn optimizer")
        };
        let (_, data) = found.ok_or_else(lacks)?;
        self.read_burn_base(model, Bytes::from_bytes_vec(data.as_bytes().to_vec()))?;
        self.resume_run_state(run, None);
        Ok(())
    }
}
