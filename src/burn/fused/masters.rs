//! Master weights of parameters in half precision.

use super::Fused;
use crate::burn::bridge::{DeviceTensor, Memory, OnDevice};
use crate::burn::error::WsamError;
use crate::burn::forms::{TensorLayout, of_type, reconciled};
use crate::burn::param_entries::ParamEntry;
use crate::burn::step_backend::StepContext;
use burn::backend::ops::FloatTensorOps;
use burn::backend::wgpu::Wgpu;
use burn::tensor::{DType, Shape, Tensor};

/// A parameter's, on the way into a step.
pub(super) enum Master {
    /// It has none.
    None,
    /// Where the last step left them.
    Placed(Memory),
    /// Among the tensors to be resolved, behind the weight.
    Resolving,
}

impl Fused {
    /// Those of the last step if it left the weight, too; else they are compared with the weight, by Burn, and
    /// are the weight where they are not what it was rounded from. `tensors` are to be resolved.
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
        let known = state.and_then(|state| Some((state.master.clone()?, &state.bridge)));
        let known = match known {
            Some((memory, _)) if is_placed => return Ok(Master::Placed(memory)),
            Some((memory, bridge)) => {
                bridge.tensors(&[memory], std::slice::from_ref(&shape)).pop().map(flat)
            }
            None => None,
        };
        let weight = of_type(flat(entry.weight.clone()), DType::F32);
        tensors.push(OnDevice::from_tensor(reconciled(weight, entry.dtype, known))?);
        Ok(Master::Resolving)
    }
}
