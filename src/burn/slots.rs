//! The way from a module to a flat list of parameters, and back.

use super::error::WsamError;
use super::forms::{Form, of_type};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, Shape, Tensor};
use std::collections::{HashMap, HashSet};

/// A parameter that takes part in a step.
#[derive(Debug)]
pub(crate) struct Slot<T> {
    pub(crate) id: ParamId,
    pub(crate) path: String,
    /// 0 for none, else counted from 1.
    pub(crate) group: usize,
    /// Elements.
    pub(crate) len: usize,
    pub(crate) dtype: DType,
    pub(crate) weight: T,
    pub(crate) grad: T,
}

/// The parameters of a module that take part in a step.
pub(crate) struct Collected<F: Form> {
    pub(crate) slots: Vec<Slot<F::Tensor>>,
    /// Every float tensor of the module takes part: there are no frozen ones, no tied ones, and no
    /// running statistics.
    pub(crate) whole: bool,
}

/// Takes every parameter that has a gradient, in module order, with its gradient.
///
/// As in Burn's own optimizers, a parameter without a gradient takes no part, and of several
/// parameters with one id the first takes the gradient. Nor does a parameter without elements.
pub(crate) fn collect<F: Form, M: Module>(
    module: &M,
    mut grads: GradientsParams,
    device: &Device,
) -> Result<Collected<F>, WsamError> {
    let gradients = grads.len();
    let nothing = Collected { slots: Vec::new(), whole: true };
    let found: Collected<F> = walk(module, &mut grads, device, nothing)?;
    if found.slots.is_empty() { Err(WsamError::NoGradients { gradients }) } else { Ok(found) }
}

/// Takes the second gradients of the same parameters, named by id and path, in the same order. The
/// perturbed module goes before anything is allocated: `w + e_w` has done its work.
pub(crate) fn collect_perturbed<F: Form, M: Module>(
    module: M,
    mut grads: GradientsParams,
    device: &Device,
    names: &[(ParamId, String)],
) -> Result<Vec<F::Tensor>, WsamError> {
    let Grads::<F>(mut found) = walk(&module, &mut grads, device, Grads(HashMap::new()))?;
    drop(module);
    names
        .iter()
        .map(|(id, path)| {
            found.remove(id).ok_or_else(|| WsamError::MissingGradient { param: path.clone() })
        })
        .collect()
}

/// Where a visitor is in the module.
#[derive(Default)]
pub(crate) struct Path {
    text: String,
    ends: Vec<usize>,
}

impl Path {
    pub(crate) fn enter(&mut self, name: &str) {
        self.ends.push(self.text.len());
        if !self.text.is_empty() {
            self.text.push('.');
        }
        self.text.push_str(name);
    }

    pub(crate) fn exit(&mut self) {
        self.text.truncate(self.ends.pop().unwrap_or(0));
    }
}

impl std::fmt::Display for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

struct Visitor<'a> {
    path: Path,
    grads: &'a mut GradientsParams,
    device: &'a Device,
}

impl Visitor<'_> {
    /// The parameter's gradient, off the graph and checked against it.
    fn grad<const D: usize>(
        &mut self,
        param: &Param<Tensor<D>>,
    ) -> Result<Option<Tensor<D>>, WsamError> {
        // Asked before the value is, which a lazy parameter would have to compute.
        let Some(grad) = self.grads.remove::<D>(param.id) else { return Ok(None) };
        let grad = grad.without_autodiff();
        let (shape, weight) = (grad.shape(), param.lazy_shape());
        // Nothing to step; and Burn's fused kernels must not see empty tensors among others.
        if weight.num_elements() == 0 && shape.num_elements() == 0 {
            return Ok(None);
        }
        if weight != shape {
            let (weight, grad) = (weight.to_vec(), shape.to_vec());
            return Err(WsamError::Shape { param: self.path.text.clone(), weight, grad });
        }
        self.check_device(grad.device())?;
        Ok(Some(grad))
    }

    fn check_device(&self, found: Device) -> Result<(), WsamError> {
        if found == *self.device {
            return Ok(());
        }
        let (found, expected) = (Box::new(found), Box::new(self.device.clone()));
        Err(WsamError::Device { param: self.path.text.clone(), found, expected })
    }

    fn slot<F: Form, const D: usize>(
        &mut self,
        param: &Param<Tensor<D>>,
    ) -> Result<Option<Slot<F::Tensor>>, WsamError> {
        let Some(grad) = self.grad(param)? else { return Ok(None) };
        let weight = param.val().without_autodiff();
        self.check_device(weight.device())?;
        if weight.dtype() != grad.dtype() {
            return Err(WsamError::DType {
                param: self.path.text.clone(),
                found: grad.dtype(),
                expected: "gradients of their parameter's type",
                route: "optimizer's",
            });
        }
        Ok(Some(Slot {
            id: param.id,
            path: self.path.text.clone(),
            group: 0,
            len: weight.shape().num_elements(),
            dtype: weight.dtype(),
            weight: F::hold(weight)?,
            grad: F::hold(grad)?,
        }))
    }
}

/// What is taken of each float parameter of a module.
trait Take {
    fn take<const D: usize>(
        &mut self,
        visitor: &mut Visitor<'_>,
        param: &Param<Tensor<D>>,
    ) -> Result<(), WsamError>;
}

impl<F: Form> Take for Collected<F> {
    fn take<const D: usize>(
        &mut self,
        visitor: &mut Visitor<'_>,
        param: &Param<Tensor<D>>,
    ) -> Result<(), WsamError> {
        match visitor.slot::<F, D>(param)? {
            Some(slot) => self.slots.push(slot),
            None => self.whole = false,
        }
        Ok(())
    }
}

/// Gradients alone.
struct Grads<F: Form>(HashMap<ParamId, F::Tensor>);

impl<F: Form> Take for Grads<F> {
    fn take<const D: usize>(
        &mut self,
        visitor: &mut Visitor<'_>,
        param: &Param<Tensor<D>>,
    ) -> Result<(), WsamError> {
        if let Some(grad) = visitor.grad(param)? {
            self.0.insert(param.id, F::hold(grad)?);
        }
        Ok(())
    }
}

/// Walks through a module until something is wrong.
struct Walk<'a, T> {
    visitor: Visitor<'a>,
    taken: T,
    error: Option<WsamError>,
}

fn walk<T: Take, M: Module>(
    module: &M,
    grads: &mut GradientsParams,
    device: &Device,
    taken: T,
) -> Result<T, WsamError> {
    let visitor = Visitor { path: Path::default(), grads, device };
    let mut walk = Walk { visitor, taken, error: None };
    module.visit(&mut walk);
    walk.error.map_or(Ok(walk.taken), Err)
}

impl<T: Take> ModuleVisitor for Walk<'_, T> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.visitor.path.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.visitor.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.error.is_none() {
            self.error = self.taken.take(&mut self.visitor, param).err();
        }
    }
}

/// Puts new values into the first parameter of each id; the rest of the module is untouched.
pub(crate) fn assign<F: Form, M: Module>(module: M, values: HashMap<ParamId, F::Tensor>) -> M {
    module.map(&mut Assign::<F> { values })
}

struct Assign<F: Form> {
    values: HashMap<ParamId, F::Tensor>,
}

impl<F: Form> ModuleMapper for Assign<F> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match self.values.remove(&param.id) {
            Some(value) => replace(param, |shape| F::give(value, shape), None),
            None => param,
        }
    }
}

/// Gradients of the first parameter of each id, for a Burn optimizer.
pub(crate) fn gradients<F: Form, M: Module>(
    module: &M,
    names: &[(ParamId, String)],
    tensors: Vec<F::Tensor>,
) -> GradientsParams {
    struct Register<F: Form> {
        values: HashMap<ParamId, F::Tensor>,
        grads: GradientsParams,
    }
    impl<F: Form> ModuleVisitor for Register<F> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(value) = self.values.remove(&param.id) {
                let grad = F::give::<D>(value, param.lazy_shape());
                self.grads.register(param.id, of_type(grad, param.val().dtype()));
            }
        }
    }
    let values = names.iter().map(|(id, _)| *id).zip(tensors).collect();
    let mut register = Register::<F> { values, grads: GradientsParams::new() };
    module.visit(&mut register);
    register.grads
}

/// Weights of the first parameter of each id, in the order of `names`.
pub(crate) fn weights<F: Form, M: Module>(
    module: &M,
    names: &[(ParamId, String)],
) -> Result<Vec<F::Tensor>, WsamError> {
    struct Find<F: Form> {
        /// Not found yet.
        wanted: HashSet<ParamId>,
        found: HashMap<ParamId, F::Tensor>,
        error: Option<WsamError>,
    }
    impl<F: Form> ModuleVisitor for Find<F> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if self.error.is_some() || !self.wanted.remove(&param.id) {
                return;
            }
            match F::hold(param.val().without_autodiff()) {
                Ok(tensor) => drop(self.found.insert(param.id, tensor)),
                Err(error) => self.error = Some(error),
            }
        }
    }
    let wanted = names.iter().map(|(id, _)| *id).collect();
    let mut find = Find::<F> { wanted, found: HashMap::new(), error: None };
    module.visit(&mut find);
    if let Some(error) = find.error {
        return Err(error);
    }
    let lost = |path: &String| WsamError::Backend { reason: format!("{path} is gone") };
    let take = |(id, path): &(ParamId, String)| find.found.remove(id).ok_or_else(|| lost(path));
    names.iter().map(take).collect()
}

type Strategy = burn::tensor::GradientCheckpointingStrategy;

/// A copy of `module` with the perturbed weights, for the second pass.
///
/// The copy has running statistics of its own (Burn shares them between clones), so the second
/// pass does not advance the model's. Every parameter of an id, tied ones too, becomes one leaf.
/// `whole` is the module's [`Collected::whole`].
pub(crate) fn perturbed_copy<F: Form, M: Module>(
    module: &M,
    values: HashMap<ParamId, F::Tensor>,
    whole: bool,
) -> M {
    if whole {
        return assign::<F, M>(module.clone(), values);
    }
    // `valid` and `train` copy running statistics, but forget the checkpointing strategy.
    let strategy = checkpointing(module);
    let mut perturb = Perturb::<F> { values, leaves: HashMap::new(), strategy };
    module.clone().valid().train().map(&mut perturb)
}

struct Perturb<F: Form> {
    values: HashMap<ParamId, F::Tensor>,
    leaves: HashMap<ParamId, Box<dyn std::any::Any + Send>>,
    strategy: Option<Strategy>,
}

impl<F: Form> ModuleMapper for Perturb<F> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(value) = self.values.get(&param.id) else {
            // Not stepped, but still on the graph of the second pass.
            return match self.strategy {
                Some(strategy) => param.map(|tensor| checkpointed(tensor, strategy)),
                None => param,
            };
        };
        let tied = self.leaves.get(&param.id).and_then(|leaf| leaf.downcast_ref::<Tensor<D>>());
        if let Some(leaf) = tied.cloned() {
            return param.map(|_| leaf);
        }
        let param = replace(param, |shape| F::give(value.clone(), shape), self.strategy);
        self.leaves.insert(param.id, Box::new(param.val()));
        param
    }
}

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

fn checkpointed<const D: usize>(tensor: Tensor<D>, strategy: Strategy) -> Tensor<D> {
    if tensor.is_autodiff() {
        tensor.with_gradient_checkpointing_strategy(strategy)
    } else {
        tensor
    }
}

/// The module with every parameter copied to memory of its own. Quantised parameters take no part in
/// steps, so theirs is their own already.
#[cfg(feature = "fused-wsam")]
pub(crate) fn detach<M: Module>(module: M) -> M {
    struct Detach;
    impl ModuleMapper for Detach {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let value = param.val();
            if !value.dtype().is_float() {
                return param;
            }
            // x - 0 is x for every x.
            let copy = value.without_autodiff().sub_scalar(0.0);
            replace(param, |_| copy, None)
        }
    }
    module.map(&mut Detach)
}

/// The parameter with another value and all it had around the old one: shape, autodiff context,
/// distribution.
fn replace<const D: usize>(
    param: Param<Tensor<D>>,
    value: impl FnOnce(Shape) -> Tensor<D>,
    strategy: Option<Strategy>,
) -> Param<Tensor<D>> {
    let (id, old, mapper) = param.consume();
    let value = of_type(value(old.shape()), old.dtype());
    if !old.is_autodiff() {
        return Param::from_mapped_value(id, value, mapper);
    }
    let mut tensor = Tensor::from_inner(value);
    if let Some(strategy) = strategy.or_else(|| old.gradient_checkpointing_strategy()) {
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
