//! One parameter in a step: the memory that its kernels read and write, in the form that the engine takes.

use crate::engine::{
    AscentTensor, BaseTensor, ClipTensor, DescentTensor, LeanAscentTensor, LeanDescentTensor,
    MethodState, MixTensor, Placement, SharpenTensor, Slice,
};
use crate::optim::bridge::{Binding, Memory, OutputSpec};
use burn::module::ParamId;
use burn::tensor::Shape;
use std::sync::Arc;

/// A parameter of a step, with its memory.
#[derive(Debug)]
pub(super) struct ResolvedParam {
    pub(super) id: ParamId,
    pub(super) group: usize,
    /// Whether the ascent perturbs it.
    pub(super) perturbed: bool,
    pub(super) shape: Shape,
    pub(super) len: u64,
    /// `identity` of the model's tensor.
    pub(super) tensor: Option<u64>,
    pub(super) weight: Memory,
    /// Master weights in `f32`, if the parameter has them.
    pub(super) master: Option<Memory>,
    pub(super) grad: Memory,
    /// The method's state, for the methods and phases that have it.
    pub(super) method_state: MethodState,
}

impl ResolvedParam {
    /// Memory that a descent reads the weights from, if there are no master weights.
    fn anchor(&self) -> Option<Slice> {
        self.master.is_none().then(|| self.weight.slice.clone())
    }

    /// Memory of the master weights, if any.
    pub(super) fn master_slice(&self) -> Option<Slice> {
        self.master.as_ref().map(|master| master.slice.clone())
    }

    /// A new tensor in place of the weight.
    pub(super) fn output(&self) -> OutputSpec {
        let shape = self.shape.clone();
        OutputSpec { spec: self.weight.alloc_spec(), shape, tensor: None }
    }

    /// New memory for the weight, and the tensor that gets it: the model's if the step is in place, or a new one.
    pub(super) fn stepped(&self, in_place: bool) -> OutputSpec {
        OutputSpec { tensor: self.tensor.filter(|_| in_place), ..self.output() }
    }

    /// The model's tensor with the memory of `w`.
    pub(super) fn binding(&self) -> Option<Binding> {
        let (shape, memory) = (self.shape.clone(), self.weight.clone());
        Some(Binding { tensor: self.tensor?, shape, memory })
    }

    /// `partner` is the memory for `w + e_w`, if the parameter is perturbed.
    pub(super) fn ascent(&self, partner: Option<&Memory>) -> AscentTensor {
        AscentTensor {
            weight: self.weight.slice.clone(),
            grad: self.grad.slice.clone(),
            perturbed: partner.map_or(Placement::Unperturbed, |partner| {
                Placement::OutOfPlace(partner.slice.clone())
            }),
            master: self.master_slice(),
            method_state: self.method_state.clone(),
            group: self.group,
        }
    }

    /// Mixes the gradients into `mixed`, for a Burn optimizer.
    pub(super) fn mix(&self, grad_perturbed: &Memory, mixed: &Memory) -> MixTensor {
        MixTensor {
            mixed: mixed.slice.clone(),
            grad: self.grad.slice.clone(),
            grad_perturbed: grad_perturbed.slice.clone(),
            method_state: self.method_state.clone(),
            group: self.group,
        }
    }

    /// Clips the gradient into `clipped`, for a Burn optimizer.
    pub(super) fn clip(&self, clipped: &Memory) -> ClipTensor {
        ClipTensor {
            clipped: clipped.slice.clone(),
            grad: self.grad.slice.clone(),
            method_state: self.method_state.clone(),
            group: self.group,
        }
    }
}

/// A parameter's step by the base optimizer: what it reads, and the new memory that it writes.
pub(super) struct ParamStep<'a> {
    pub(super) param: &'a ResolvedParam,
    /// Memory for the new weights.
    pub(super) updated: Memory,
    /// Number of this step, from 1. A first step does not read its uninitialised state.
    pub(super) step: u64,
    /// In the order of [`Base::state_names`](crate::method::Base::state_names).
    pub(super) state: Arc<[Memory]>,
}

impl ParamStep<'_> {
    pub(super) fn descent(&self, grad_perturbed: &Memory) -> DescentTensor {
        DescentTensor {
            weight: self.updated.slice.clone(),
            anchor: self.param.anchor(),
            master: self.param.master_slice(),
            grad: self.param.grad.slice.clone(),
            grad_perturbed: grad_perturbed.slice.clone(),
            state: slices(&self.state),
            step: self.step,
            method_state: self.param.method_state.clone(),
            group: self.param.group,
        }
    }

    /// Lean mode has no master weights. `partner` is the memory for `w + e_w`, if the parameter is perturbed.
    pub(super) fn lean_ascent(&self, partner: Option<&Memory>) -> LeanAscentTensor {
        LeanAscentTensor {
            weight: self.updated.slice.clone(),
            anchor: Some(self.param.weight.slice.clone()),
            grad: self.param.grad.slice.clone(),
            perturbed: partner.map(|partner| partner.slice.clone()),
            state: slices(&self.state),
            step: self.step,
            group: self.param.group,
        }
    }

    pub(super) fn base_step(&self) -> BaseTensor {
        BaseTensor {
            weight: self.updated.slice.clone(),
            anchor: self.param.anchor(),
            master: self.param.master_slice(),
            grad: self.param.grad.slice.clone(),
            state: slices(&self.state),
            step: self.step,
            method_state: self.param.method_state.clone(),
            group: self.param.group,
        }
    }
}

/// A parameter between the phases of a lean step, without its gradient.
#[derive(Debug)]
pub(super) struct LeanParam {
    pub(super) id: ParamId,
    pub(super) group: usize,
    pub(super) shape: Shape,
    /// `identity` of the model's tensor.
    pub(super) tensor: Option<u64>,
    /// Weights after the base optimizer's step and the `g` term of the sharpness step.
    pub(super) stepped: Memory,
    /// Weights that the second pass runs on.
    pub(super) ran_on: Memory,
}

impl LeanParam {
    /// The model's tensor with other memory.
    pub(super) fn binding(&self, memory: &Memory) -> Option<Binding> {
        let (shape, memory) = (self.shape.clone(), memory.clone());
        Some(Binding { tensor: self.tensor?, shape, memory })
    }

    pub(super) fn descent(&self, grad_perturbed: &Memory) -> LeanDescentTensor {
        LeanDescentTensor {
            weight: self.stepped.slice.clone(),
            grad_perturbed: grad_perturbed.slice.clone(),
            second_pass_weight: Some(self.ran_on.slice.clone()),
            group: self.group,
        }
    }
}

/// A parameter between the mix of its gradients for a Burn optimizer and its sharpness step.
#[derive(Debug)]
pub(super) struct MixedParam {
    pub(super) param: ResolvedParam,
    pub(super) grad_perturbed: Memory,
}

impl MixedParam {
    /// The sharpness step from `weight`, the weights after the Burn optimizer's step, to `updated`.
    pub(super) fn sharpness_step(&self, weight: &Memory, updated: &Memory) -> SharpenTensor {
        SharpenTensor {
            weight: updated.slice.clone(),
            anchor: Some(weight.slice.clone()),
            grad: self.param.grad.slice.clone(),
            grad_perturbed: self.grad_perturbed.slice.clone(),
            group: self.param.group,
        }
    }
}

/// Distributes the memory of `w + e_w` among the parameters: `None` for those that are not perturbed.
pub(super) fn partners(params: &[ResolvedParam], outputs: Vec<Memory>) -> Vec<Option<Memory>> {
    let mut outputs = outputs.into_iter();
    params.iter().map(|param| if param.perturbed { outputs.next() } else { None }).collect()
}

/// New memory of states, one list for each state, handed out parameter by parameter.
pub(super) struct NewStates(Vec<std::vec::IntoIter<Memory>>);

impl NewStates {
    pub(super) fn new(states: Vec<Vec<Memory>>) -> Self {
        Self(states.into_iter().map(Vec::into_iter).collect())
    }

    /// The states of the next parameter.
    pub(super) fn next(&mut self) -> Vec<Memory> {
        self.0.iter_mut().filter_map(Iterator::next).collect()
    }
}

fn slices(memory: &[Memory]) -> Vec<Slice> {
    memory.iter().map(|memory| memory.slice.clone()).collect()
}
