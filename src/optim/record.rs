//! Records of the optimizer's state, in the format of Burn's optimizers.
//!
//! State tensors and step counts are named as [`burn::optim::Sgd`], [`Adam`](burn::optim::Adam) and
//! [`AdamW`](burn::optim::AdamW) of Burn 0.22 name theirs, `"{parameter id}.{field}"`, so each
//! loads the other's records.

mod burn_base;
mod entries;
mod names;
mod owned;

pub(super) use burn_base::without_ids;
#[cfg(feature = "train")]
pub(super) use names::{OPTIMIZER, STEP_FIELDS, TENSOR_FIELDS};
#[cfg(feature = "train")]
pub(super) use owned::owned;

use super::error::WsamError;
use super::optimizer::Wsam;
use super::run_state::RunState;
use super::state::Recorded;
use burn::module::{Module, ParamId};
use burn::optim::OptimizerRecord;
use burn::tensor::{Bytes, Shape, TensorData};
use burn_pack::{Reader, Scalar, Writer};
use entries::{Contents, Parameter, check_known, contents, parameters};
use names::{RANK, failed, field, step_field};

impl Wsam {
    /// The state of `model`'s parameters as a record of Burn's. Waits for the device.
    ///
    /// It holds the base optimizer's state, the method's state with its place in a cycle and AE-SAM's averages, the loss scale, the step count of
    /// [`mask_seed`](crate::WsamConfig::mask_seed), and the counts of all steps and of skipped ones. Gradients,
    /// `e_w` and hyperparameters are not part of it. Burn's optimizer of the same kind loads it too, with
    /// [`ModuleOptimizer::load_record`](burn::optim::ModuleOptimizer::load_record).
    ///
    /// # Errors
    ///
    /// [`WsamError::State`] if `model` has other shapes than the optimizer saw, [`WsamError::Backend`]
    /// if the device was lost.
    pub fn to_record<M: Module>(&self, model: &M) -> Result<OptimizerRecord, WsamError> {
        // Convert through bytes for a Burn optimizer too: its record reads GPU state lazily, so later steps could
        // change the values.
        OptimizerRecord::from_bytes(self.to_bytes(model)?).map_err(failed)
    }

    fn writer_of<M: Module>(&self, model: &M) -> Result<Writer, WsamError> {
        match self.burn_optimizer() {
            Some(optimizer) => self.burn_base_writer(optimizer),
            None => self.writer(model),
        }
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
        self.with_run_state(writer)
    }

    /// Adds the values that belong to no parameter.
    fn with_run_state(&self, writer: Writer) -> Result<Writer, WsamError> {
        let scalars = self.run_state()?.scalars()?.into_iter();
        Ok(scalars.fold(writer, |writer, (name, scalar)| writer.with_scalar(name, scalar)))
    }

    /// State of one parameter of this shape, with the names of a record; `None` before its first step. `path` is
    /// used in errors.
    pub(super) fn recorded(
        &self,
        id: ParamId,
        path: &str,
        shape: &Shape,
    ) -> Result<Option<Recorded>, WsamError> {
        let Some(state) = self.state(id)? else { return Ok(None) };
        let (base, found) = (&self.hyperparameters().base, shape.num_elements());
        let tensors = state.tensors.into_iter().map(|(name, data)| {
            let (bytes, flat, dtype) = data.into_parts();
            if flat.num_elements() != found {
                let state = flat.num_elements();
                return Err(WsamError::State { param: path.to_owned(), found, state });
            }
            let data = TensorData::try_from_bytes(bytes, shape.clone(), dtype).map_err(failed)?;
            Ok((field(name), data))
        });
        let tensors = tensors.collect::<Result<_, _>>()?;
        let scalars = vec![(step_field(base), Scalar::from(state.step))];
        Ok(Some(Recorded { tensors, scalars }))
    }

    /// Loads the state of `model`'s parameters from a record of this optimizer, on either route, or of Burn's
    /// optimizer of the same kind as the base. Call it between steps. Parameters that the record does not have
    /// start without state. Quantised parameters take no steps and have no state.
    ///
    /// It also loads the loss scale and the step counts. A record of version 0.1 or of a Burn optimizer does not
    /// have them: they stay unchanged, and the count of all steps is raised to the largest count of a parameter.
    /// Hyperparameters, including changes by [`set_rho`](Self::set_rho) and [`set_gamma`](Self::set_gamma), and a
    /// fixed loss scale are not loaded.
    ///
    /// The optimizer copies the values, so a file may be changed or deleted as soon as this returns. Burn's
    /// `OptimizerRecord::load` reads its file lazily, which means during this call.
    ///
    /// # Errors
    ///
    /// Nothing has changed after [`WsamError::ForeignRecord`] for a record with a parameter that
    /// `model` does not have, [`WsamError::RecordShape`], [`WsamError::RecordState`] for the record of
    /// another kind of optimizer, [`WsamError::Record`] for an invalid one, and
    /// [`WsamError::Backend`] if the device was lost.
    pub fn load_record<M: Module>(
        &mut self,
        model: &M,
        record: OptimizerRecord,
    ) -> Result<(), WsamError> {
        self.load_bytes(model, record.into_bytes().map_err(failed)?)
    }

    fn read<M: Module>(&mut self, model: &M, reader: Reader) -> Result<(), WsamError> {
        self.replace(model, contents(reader)?)
    }

    /// [`load_record`](Self::load_record), from states that were read from a record already.
    #[cfg(feature = "train")]
    pub(super) fn load_recorded<M: Module>(
        &mut self,
        model: &M,
        states: Vec<(u64, Recorded)>,
        run: Option<RunState>,
    ) -> Result<(), WsamError> {
        let entries = states.into_iter().map(|(id, state)| (id, state.into())).collect();
        self.replace(model, Contents { entries, run })
    }

    fn replace<M: Module>(&mut self, model: &M, contents: Contents) -> Result<(), WsamError> {
        let Contents { mut entries, run } = contents;
        let parameters = parameters(model);
        check_known(&parameters, &entries)?;
        let (hyper, has_masters) = (self.hyperparameters().clone(), self.has_masters());
        let most = entries.values().filter_map(|entry| entry.steps(&hyper.base)).max();
        let ids: Vec<_> = parameters.iter().map(|parameter| parameter.id).collect();
        let loaded = parameters
            .into_iter()
            .filter_map(|parameter| Some((entries.remove(&parameter.id.val())?, parameter)))
            // Quantised parameters take no steps.
            .filter(|(_, parameter)| parameter.dtype.is_float())
            .map(|(entry, parameter)| entry.fit(&hyper, has_masters, parameter))
            // Parameters without elements take no steps either.
            .filter(|loaded| loaded.as_ref().map_or(true, |state| state.len > 0))
            .collect::<Result<Vec<_>, _>>()?;
        self.replace_states(&ids, loaded)?;
        self.resume_run_state(run, most);
        Ok(())
    }

    /// Loads the run state. Call it after pending outcomes were resolved. Without a run state in the record,
    /// the step count is raised to `most`, the largest count of a parameter.
    fn resume_run_state(&mut self, run: Option<RunState>, most: Option<u64>) {
        match run {
            Some(run) => self.set_run_state(run),
            None => self.steps = self.steps.max(most.unwrap_or(0)),
        }
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
        self.writer_of(model)?.write_to_file(path).map_err(failed)
    }

    /// [`load_record`](Self::load_record), from a burnpack file, which is read whole.
    ///
    /// # Errors
    ///
    /// As there, and [`WsamError::Record`] if the file cannot be read.
    pub fn load<M: Module>(
        &mut self,
        model: &M,
        path: impl AsRef<std::path::Path>,
    ) -> Result<(), WsamError> {
        self.load_bytes(model, owned::file(path.as_ref())?)
    }

    /// [`to_record`](Self::to_record), in memory.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn to_bytes<M: Module>(&self, model: &M) -> Result<Bytes, WsamError> {
        self.writer_of(model)?.into_bytes().map_err(failed)
    }

    /// [`load_record`](Self::load_record), from memory.
    ///
    /// # Errors
    ///
    /// As there, and [`WsamError::Record`] for bytes that are not a record.
    pub fn load_bytes<M: Module>(&mut self, model: &M, bytes: Bytes) -> Result<(), WsamError> {
        match self.burn_optimizer() {
            Some(_) => self.read_burn_base(model, bytes),
            None => self.read(model, Reader::from_bytes(bytes).map_err(failed)?),
        }
    }
}
