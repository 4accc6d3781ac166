//! Master weights of parameters in half precision.

use super::backend::Fused;
use crate::optim::bridge::{DeviceTensor, Memory, OnDevice};
use crate::optim::error::WsamError;
use crate::optim::half_precision::{of_type, reconciled};
use crate::optim::param_entries::ParamEntry;
use crate::optim::params::TensorLayout;
use crate::optim::step_backend::StepContext;
use burn::backend::ops::FloatTensorOps;
use burn::backend::wgpu::Wgpu;
use burn::tensor::{DType, Shape, Tensor};

/// Master weights of a parameter at the start of a step.
pub(super) enum Master {
    /// The parameter has no master weights.
    None,
    /// Memory that the last step wrote.
    Placed(Memory),
    /// Pushed to the tensors to be resolved, after the weight.
    Resolving,
}

impl Fused {
    /// Returns the master weights of the last step if the weight is unchanged since. Otherwise Burn compares them
    /// with the weight, and takes the weight where it is not the rounded master weight; the result is pushed to
    /// `tensors`, which are resolved later.
    pub(super) fn master(
        &self,
        context: StepContext<'_>,
        entry: &ParamEntry<DeviceTensor>,
        is_placed: bool,
        tensors: &mut Vec<DeviceTensor>,
    ) -> Result<Master, WsamError> {
        if !context.has_master(entry) {
            return Ok(Master::None);
        }
        let shape = Shape::from([entry.len]);
        let flat = |tensor: DeviceTensor| {
            let tensor = Wgpu::float_reshape(tensor, shape.clone());
            Tensor::<1>::from_primitive::<Wgpu>(tensor)
        };
        let state = self.states.get(&entry.id).filter(|state| state.step > 0);
        let stored = state.and_then(|state| Some((state.master.clone()?, &state.bridge)));
        let master = match stored {
            Some((memory, _)) if is_placed => return Ok(Master::Placed(memory)),
            Some((memory, bridge)) => {
                bridge.tensors([(&memory, &shape)].into_iter()).pop().map(flat)
            }
            None => None,
        };
        let weight = of_type(flat(entry.weight.clone()), DType::F32);
        tensors.push(OnDevice::from_tensor(reconciled(weight, entry.dtype, master))?);
        Ok(Master::Resolving)
    }
}
