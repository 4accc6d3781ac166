//! Records of a base optimizer of Burn's.

#[cfg(feature = "train")]
use super::Recorded;
use super::entries::RecordEntry;
use super::{check_known, contents, failed, parameters};
use crate::burn::error::WsamError;
use crate::burn::optimizer::Wsam;
#[cfg(feature = "train")]
use crate::burn::run_state::RunState;
use burn::module::{Module, ParamId};
use burn::optim::{ModuleOptimizer, OptimizerRecord};
use burn::tensor::{Bytes, DType, TensorData};
use burn_pack::{Reader, Writer};
use std::collections::BTreeMap;

/// In a learner's checkpoint: a Burn optimizer's own record as bytes, at one of the parameters.
#[cfg(feature = "train")]
pub(in crate::burn) const OPTIMIZER: &str = "wsam.optimizer";

/// A Burn optimizer's states but those of parameters that are `gone`.
pub(in crate::burn) fn without_ids(
    optimizer: &ModuleOptimizer,
    gone: &dyn Fn(ParamId) -> bool,
) -> Result<OptimizerRecord, WsamError> {
    let reader = Reader::from_bytes(optimizer.into_bytes().map_err(failed)?).map_err(failed)?;
    let stays = |name: &str| {
        let id = name.split_once('.').map_or(name, |(id, _)| id);
        !id.parse().is_ok_and(|id: u64| gone(id.into()))
    };
    let (scalars, paths) = (reader.scalars().clone(), reader.metadata().clone());
    let tensors = reader.into_tensors().map_err(failed)?.into_iter();
    let mut writer = Writer::new(tensors.filter(|tensor| stays(&tensor.name)).collect());
    for (name, scalar) in scalars.into_iter().filter(|(name, _)| stays(name)) {
        writer = writer.with_scalar(&name, scalar);
    }
    for (name, path) in paths.into_iter().filter(|(name, _)| stays(name)) {
        writer = writer.with_metadata(&name, &path);
    }
    OptimizerRecord::from_bytes(writer.into_bytes().map_err(failed)?).map_err(failed)
}

/// Refuses states in half precision: Burn 0.22.1 loads them as `f32`, and panics when they meet a gradient.
fn check_precision(entries: &BTreeMap<u64, RecordEntry>) -> Result<(), WsamError> {
    let half = |data: &&TensorData| matches!(data.dtype(), DType::F16 | DType::BF16);
    let found =
        entries.iter().find_map(|(id, entry)| Some((id, entry.tensors.values().find(half)?)));
    match found {
        Some((id, data)) => Err(failed(format!(
            "the Burn optimizer's state of parameter {id} is {:?}, which Burn 0.22.1 cannot load: it makes f32 of \
             it, and the next step would panic; train with parameters in f32, or start the optimizer anew",
            data.dtype()
        ))),
        None => Ok(()),
    }
}

impl Wsam {
    /// A Burn optimizer's own record, and what is ours.
    pub(super) fn external_writer(&self, optimizer: &ModuleOptimizer) -> Result<Writer, WsamError> {
        let own = Reader::from_bytes(optimizer.into_bytes().map_err(failed)?).map_err(failed)?;
        let (scalars, paths) = (own.scalars().clone(), own.metadata().clone());
        let mut writer = Writer::new(own.into_tensors().map_err(failed)?);
        for (name, scalar) in scalars {
            writer = writer.with_scalar(&name, scalar);
        }
        for (name, path) in paths {
            writer = writer.with_metadata(&name, &path);
        }
        self.with_run_state(writer)
    }

    /// Takes a Burn optimizer's own record, which drops what does not fit its kind: those parameters
    /// start again.
    pub(super) fn read_external<M: Module>(
        &mut self,
        model: &M,
        bytes: Bytes,
    ) -> Result<(), WsamError> {
        let copy = |bytes: &Bytes| Bytes::from_bytes_vec(bytes.to_vec());
        let contents = contents(Reader::from_bytes(copy(&bytes)).map_err(failed)?)?;
        check_known(&parameters(model), &contents.entries)?;
        check_precision(&contents.entries)?;
        let record = OptimizerRecord::from_bytes(bytes).map_err(failed)?;
        self.resolve_outcomes()?;
        self.load_external(record);
        // How a Burn optimizer names a count of steps is its own affair.
        self.resume_run_state(contents.run, None);
        Ok(())
    }

    /// The state of the Burn optimizer that is the base.
    #[cfg(feature = "train")]
    pub(in crate::burn) fn recorded_external(&self) -> Result<Option<Recorded>, WsamError> {
        let Some(optimizer) = self.burn_optimizer() else { return Ok(None) };
        let bytes = optimizer.into_bytes().map_err(failed)?.to_vec();
        let len = bytes.len();
        let tensors = vec![(OPTIMIZER, TensorData::new(bytes, [len]))];
        Ok(Some(Recorded { tensors, scalars: Vec::new() }))
    }

    /// Takes it back, from wherever it is among the states of a checkpoint.
    #[cfg(feature = "train")]
    pub(in crate::burn) fn load_recorded_external<M: Module>(
        &mut self,
        model: &M,
        states: Vec<(u64, Recorded)>,
        run: Option<RunState>,
    ) -> Result<(), WsamError> {
        let mut tensors = states.into_iter().flat_map(|(_, state)| state.tensors);
        let found = tensors.find(|(field, _)| *field == OPTIMIZER);
        let lacks = || failed("it is not of a training with WSAM around a Burn optimizer");
        let (_, data) = found.ok_or_else(lacks)?;
        self.read_external(model, Bytes::from_bytes_vec(data.as_bytes().to_vec()))?;
        self.resume_run_state(run, None);
        Ok(())
    }
}
