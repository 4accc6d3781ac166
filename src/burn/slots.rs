//! The way from a module to a flat list of parameters, and back.

use super::error::WsamError;
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use std::collections::HashMap;

/// A parameter that takes part in a step, flattened, off the autodiff graph.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) id: ParamId,
    pub(crate) path: String,
    pub(crate) weight: Tensor<1>,
    pub(crate) grad: Tensor<1>,
}

/// Takes every parameter that has a gradient, in module order, with its gradient.
///
/// As in Burn's own optimizers, a parameter without a gradient takes no part, and of several
/// parameters with one id the first takes the gradient. Nor does a parameter without elements.
pub(crate) fn collect<M: Module>(
    module: &M,
    mut grads: GradientsParams,
    device: &Device,
) -> Result<Vec<Slot>, WsamError> {
    let gradients = grads.len();
    let mut collector =
        Collector { path: Vec::new(), grads: &mut grads, device, slots: Vec::new(), error: None };
    module.visit(&mut collector);
    match collector.error {
        Some(error) => Err(error),
        None if collector.slots.is_empty() => Err(WsamError::NoGradients { gradients }),
        None => Ok(collector.slots),
    }
}

/// Takes the second gradients of the same parameters, in the same order.
pub(crate) fn collect_perturbed<M: Module>(
    module: &M,
    grads: GradientsParams,
    device: &Device,
    slots: &[Slot],
) -> Result<Vec<Tensor<1>>, WsamError> {
    let found = match collect(module, grads, device) {
        Ok(found) => found,
        // Nothing at all: name the first parameter that misses its gradient.
        Err(WsamError::NoGradients { .. }) => Vec::new(),
        Err(error) => return Err(error),
    };
    let mut found: HashMap<_, _> = found.into_iter().map(|slot| (slot.id, slot.grad)).collect();
    slots
        .iter()
        .map(|slot| {
            found
                .remove(&slot.id)
                .ok_or_else(|| WsamError::MissingGradient { param: slot.path.clone() })
        })
        .collect()
}

struct Collector<'a> {
    path: Vec<String>,
    grads: &'a mut GradientsParams,
    device: &'a Device,
    slots: Vec<Slot>,
    error: Option<WsamError>,
}

impl Collector<'_> {
    fn slot<const D: usize>(
        &self,
        param: &Param<Tensor<D>>,
        grad: Tensor<D>,
    ) -> Result<Slot, WsamError> {
        let path = || self.path.join(".");
        let weight = param.val().without_autodiff();
        let grad = grad.without_autodiff();
        for found in [weight.device(), grad.device()] {
            if found != *self.device {
                let (found, expected) = (Box::new(found), Box::new(self.device.clone()));
                return Err(WsamError::Device { param: path(), found, expected });
            }
        }
        if weight.shape() != grad.shape() {
            let (weight, grad) = (weight.dims().to_vec(), grad.dims().to_vec());
            return Err(WsamError::Shape { param: path(), weight, grad });
        }
        if weight.dtype() != grad.dtype() {
            return Err(WsamError::DType {
                param: path(),
                found: grad.dtype(),
                expected: "gradients of their parameter's type",
                route: "optimizer's",
            });
        }
        let flat = |tensor: Tensor<D>| {
            let len = tensor.shape().num_elements();
            tensor.reshape([len])
        };
        Ok(Slot { id: param.id, path: path(), weight: flat(weight), grad: flat(grad) })
    }
}

impl ModuleVisitor for Collector<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.error.is_some() {
            return;
        }
        // Asked before the value is, which a lazy parameter would have to compute.
        let Some(grad) = self.grads.remove::<D>(param.id) else { return };
        // Nothing to step; and Burn's fused kernels must not see empty tensors among others.
        if param.lazy_shape().num_elements() == 0 && grad.shape().num_elements() == 0 {
            return;
        }
        match self.slot(param, grad) {
            Ok(slot) => self.slots.push(slot),
            Err(error) => self.error = Some(error),
        }
    }
}

/// Puts new values into the first parameter of each id; the rest of the module is untouched.
pub(crate) fn assign<M: Module>(module: M, values: HashMap<ParamId, Tensor<1>>) -> M {
    module.map(&mut Assign { values })
}

struct Assign {
    values: HashMap<ParamId, Tensor<1>>,
}

impl ModuleMapper for Assign {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match self.values.remove(&param.id) {
            Some(value) => replace(param, value),
            None => param,
        }
    }
}

/// A copy of `module` with the perturbed weights, for the second pass.
///
/// The copy has running statistics of its own (Burn shares them between clones), so the second
/// pass does not advance the model's. Every parameter of an id, tied ones too, becomes one leaf.
pub(crate) fn perturbed_copy<M: Module>(module: &M, values: &HashMap<ParamId, Tensor<1>>) -> M {
    struct Perturb<'a> {
        values: &'a HashMap<ParamId, Tensor<1>>,
        leaves: HashMap<ParamId, Box<dyn std::any::Any + Send>>,
    }
    impl ModuleMapper for Perturb<'_> {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let Some(value) = self.values.get(&param.id) else { return param };
            let tied = self.leaves.get(&param.id).and_then(|leaf| leaf.downcast_ref::<Tensor<D>>());
            if let Some(leaf) = tied.cloned() {
                return param.map(|_| leaf);
            }
            let param = replace(param, value.clone());
            self.leaves.insert(param.id, Box::new(param.val()));
            param
        }
    }

    // `valid` and `train` copy running statistics, but forget the checkpointing strategy.
    let strategy = checkpointing(module);
    let copy = module.clone().valid().train();
    let copy = match strategy {
        Some(strategy) => copy.map(&mut Checkpointing(strategy)),
        None => copy,
    };
    copy.map(&mut Perturb { values, leaves: HashMap::new() })
}

type Strategy = burn::tensor::GradientCheckpointingStrategy;

fn checkpointing<M: Module>(module: &M) -> Option<Strategy> {
    struct Find(Option<Strategy>);
    impl ModuleVisitor for Find {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if self.0.is_none() && param.is_initialized() {
                self.0 = param.val().gradient_checkpointing_strategy();
            }
        }
    }
    let mut find = Find(None);
    module.visit(&mut find);
    find.0
}

struct Checkpointing(Strategy);

impl ModuleMapper for Checkpointing {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let strategy = self.0;
        param.map(|tensor| {
            if tensor.is_autodiff() {
                tensor.with_gradient_checkpointing_strategy(strategy)
            } else {
                tensor
            }
        })
    }
}

/// The parameter with another value and all it had around the old one: shape, autodiff context,
/// distribution.
fn replace<const D: usize>(param: Param<Tensor<D>>, value: Tensor<1>) -> Param<Tensor<D>> {
    let (id, old, mapper) = param.consume();
    let value = value.reshape(old.shape());
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
