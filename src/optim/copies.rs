//! Copies of modules with new parameter values.

use super::half_precision::of_type;
use super::params::{ParamValues, TensorLayout};
use burn::module::{Flag, Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Bool, Int, Shape, Tensor};
use std::any::Any;
use std::collections::{HashMap, VecDeque};

/// Assigns new values to the parameters of a step, and leaves the rest of the module unchanged.
pub(crate) fn assign<F: TensorLayout, M: Module>(module: M, values: ParamValues<F::Tensor>) -> M {
    module.map(&mut Assign::<F> { values })
}

struct Assign<F: TensorLayout> {
    values: ParamValues<F::Tensor>,
}

impl<F: TensorLayout> ModuleMapper for Assign<F> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match self.values.take(param.id) {
            Some(value) => replace(param, |shape| F::into_tensor(value, shape)),
            None => param,
        }
    }
}

/// A copy of `module` with the perturbed weights, for the second pass.
///
/// The copy has its own running statistics (Burn shares them between clones), so the second pass does not
/// advance the model's. Parameters tied to a stepped one (the same leaf of the autodiff graph) stay tied to it.
/// Values, modes and gradient requirements of everything else are those of `module`.
/// `whole` is the module's [`Collected::whole`](super::param_entries::Collected::whole).
pub(crate) fn perturbed_copy<F: TensorLayout, M: Module>(
    module: &M,
    values: ParamValues<F::Tensor>,
    whole: bool,
) -> M {
    if whole {
        return assign::<F, M>(module.clone(), values);
    }
    // `valid` is Burn's only way to copy running statistics. It and `train` also change modes and gradient
    // requirements, so everything else is copied from `module`, whose statistics `valid` has updated.
    let copy = module.clone().valid().train();
    let mut perturbed = Perturbed::<F> { values, leaves: HashMap::new(), params: VecDeque::new() };
    module.visit(&mut perturbed);
    copy.map(&mut Replace(perturbed.params))
}

/// Collects the parameters of the copy in module order, with perturbed values.
struct Perturbed<F: TensorLayout> {
    values: ParamValues<F::Tensor>,
    /// For each stepped parameter: the leaf of the module and that of the copy, both `Tensor<D>`.
    leaves: HashMap<ParamId, Box<dyn Any>>,
    params: VecDeque<Box<dyn Any>>,
}

impl<F: TensorLayout> ModuleVisitor for Perturbed<F> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(value) = self.values.take(param.id) {
            let perturbed = replace(param.clone(), |shape| F::into_tensor(value, shape));
            self.leaves.insert(param.id, Box::new((param.val(), perturbed.val())));
            self.params.push_back(Box::new(perturbed));
            return;
        }
        let leaf = self.leaves.get(&param.id);
        let leaf = leaf.and_then(|leaf| leaf.downcast_ref::<(Tensor<D>, Tensor<D>)>());
        let param = match leaf {
            Some((own, perturbed)) if is_same_leaf(own, &param.val()) => {
                param.clone().map(|_| perturbed.clone())
            }
            _ => param.clone(),
        };
        self.params.push_back(Box::new(param));
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        self.params.push_back(Box::new(param.clone()));
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
        self.params.push_back(Box::new(param.clone()));
    }

    fn visit_flag(&mut self, flag: &Param<Flag>) {
        self.params.push_back(Box::new(flag.clone()));
    }
}

/// Replaces each parameter by the next one in the queue.
struct Replace(VecDeque<Box<dyn Any>>);

impl Replace {
    /// Returns the next parameter, or `own` if a module's `map` and `visit` have a different order.
    fn next<P: 'static>(&mut self, own: P) -> P {
        let next = self.0.pop_front().and_then(|param| param.downcast::<P>().ok());
        next.map_or(own, |param| *param)
    }
}

impl ModuleMapper for Replace {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        self.next(param)
    }

    fn map_int<const D: usize>(&mut self, param: Param<Tensor<D, Int>>) -> Param<Tensor<D, Int>> {
        self.next(param)
    }

    fn map_bool<const D: usize>(
        &mut self,
        param: Param<Tensor<D, Bool>>,
    ) -> Param<Tensor<D, Bool>> {
        self.next(param)
    }

    fn map_flag(&mut self, flag: Param<Flag>) -> Param<Flag> {
        self.next(flag)
    }
}

/// Whether two tensors are the same leaf of the autodiff graph: a gradient stored for one is returned for the
/// other. Tied parameters may not be recognised by equal ids or values.
pub(crate) fn is_same_leaf<const D: usize>(a: &Tensor<D>, b: &Tensor<D>) -> bool {
    if !(a.is_require_grad() && b.is_require_grad()) || a.device() != b.device() {
        return false;
    }
    let mut grads = Tensor::<1>::zeros([1], &a.device()).require_grad().sum().backward();
    a.grad_replace(&mut grads, a.clone().without_autodiff());
    b.grad(&grads).is_some()
}

/// Returns the module with new ids of its float parameters.
pub(crate) fn with_ids<M: Module>(module: M, id: impl FnMut(ParamId) -> ParamId) -> M {
    struct Rename<I>(I);
    impl<I: FnMut(ParamId) -> ParamId> ModuleMapper for Rename<I> {
        fn map_float<const D: usize>(&mut self, mut param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.id = (self.0)(param.id);
            param
        }
    }
    module.map(&mut Rename(id))
}

/// Returns the module with each parameter copied to its own memory. Quantised parameters never enter an arena,
/// so they are not copied.
#[cfg(feature = "fused-wsam")]
pub(crate) fn copy_to_own_memory<M: Module>(module: M) -> M {
    struct Copy;
    impl ModuleMapper for Copy {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let value = param.val();
            if !value.dtype().is_float() {
                return param;
            }
            // x - 0 is x for every x.
            let copy = value.without_autodiff().sub_scalar(0.0);
            replace(param, |_| copy)
        }
    }
    module.map(&mut Copy)
}

/// Returns the parameter with a new value. Shape, type, autodiff context and distribution stay the same.
pub(crate) fn replace<const D: usize>(
    param: Param<Tensor<D>>,
    value: impl FnOnce(Shape) -> Tensor<D>,
) -> Param<Tensor<D>> {
    let (id, old, mapper) = param.consume();
    let value = of_type(value(old.shape()), old.dtype());
    if !old.is_autodiff() {
        return Param::from_mapped_value(id, value, mapper);
    }
    let mut tensor = Tensor::from_inner(value);
    if let Some(strategy) = old.gradient_checkpointing_strategy() {
        tensor = tensor.with_gradient_checkpointing_strategy(strategy);
    }
    if old.is_require_grad() {
        tensor = tensor.require_grad();
    }
    if old.is_distributed() {
        tensor = tensor.set_distributed(id);
    }
    Param::from_mapped_value(id, tensor, mapper)
}
