//! Collects the parameters of a step, with their gradients, from a module.

use super::error::WsamError;
use super::half_precision::of_type;
use super::params::{ParamValues, StepParams, TensorLayout};
use super::walk::{ParamVisitor, Path, visit_params};
use burn::module::{Module, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, Tensor};
use std::collections::HashMap;

/// A parameter that takes part in a step.
#[derive(Debug)]
pub(crate) struct ParamEntry<T> {
    pub(crate) id: ParamId,
    pub(crate) path: String,
    /// 0 for no group, otherwise the index of the group plus 1.
    pub(crate) group: usize,
    /// Number of elements.
    pub(crate) len: usize,
    pub(crate) dtype: DType,
    pub(crate) weight: T,
    pub(crate) grad: T,
}

/// The parameters of a module that take part in a step.
pub(crate) struct Collected<F: TensorLayout> {
    pub(crate) entries: Vec<ParamEntry<F::Tensor>>,
    /// [`StepParams::before`].
    before: HashMap<ParamId, usize>,
    /// Entries whose parameter does not require a gradient: index of the entry, and number of parameters with
    /// its id so far. A later parameter with the same id that requires a gradient replaces the entry.
    replaceable: HashMap<ParamId, (usize, usize)>,
    /// Whether every float tensor of the module takes part: no parameter is frozen or tied, and there are no
    /// running statistics.
    pub(crate) whole: bool,
}

impl<F: TensorLayout> Collected<F> {
    /// The parameters of the entries.
    pub(crate) fn params(&self) -> StepParams {
        let names = self.entries.iter().map(|entry| (entry.id, entry.path.clone())).collect();
        StepParams { names, before: self.before.clone() }
    }
}

/// Collects every parameter that has a gradient, in module order, with its gradient.
///
/// As in Burn's optimizers, parameters without a gradient are ignored, and so are empty ones. Of several
/// parameters with the same id, the first that requires a gradient takes part, or the first one if none does: a
/// frozen copy of a network has the same ids as the trained network.
pub(crate) fn collect<F: TensorLayout, M: Module>(
    module: &M,
    mut grads: GradientsParams,
    device: &Device,
) -> Result<Collected<F>, WsamError> {
    let gradients = grads.len();
    let empty = Collected {
        entries: Vec::new(),
        before: HashMap::new(),
        replaceable: HashMap::new(),
        whole: true,
    };
    let collected: Collected<F> = collect_into(module, &mut grads, device, empty)?;
    // Gradients that were taken without making an entry belong to empty parameters, so this is not an error.
    let taken = gradients - grads.len();
    if collected.entries.is_empty() && taken == 0 {
        return Err(WsamError::NoGradients { gradients });
    }
    Ok(collected)
}

/// Second gradients of the parameters of a step, and parameters without a first gradient.
pub(crate) struct CollectedPerturbed<F: TensorLayout> {
    /// In the order of the step's parameters; `None` where a parameter has none.
    pub(crate) grads: Vec<Option<F::Tensor>>,
    /// Path of a parameter that has a gradient only in the second pass.
    pub(crate) unexpected: Option<String>,
}

impl<F: TensorLayout> CollectedPerturbed<F> {
    /// Indices of the step's parameters that have no second gradient.
    pub(crate) fn missing(&self) -> Vec<usize> {
        let grads = self.grads.iter().enumerate();
        grads.filter(|(_, grad)| grad.is_none()).map(|(place, _)| place).collect()
    }

    /// Returns all second gradients, or an error if the passes have gradients of different parameters.
    pub(crate) fn all(self, params: &StepParams) -> Result<Vec<F::Tensor>, WsamError> {
        let with_paths = self.grads.into_iter().zip(&params.names);
        let grads = with_paths.map(|(grad, (_, path))| {
            grad.ok_or_else(|| WsamError::MissingGradient { param: path.clone() })
        });
        let grads = grads.collect::<Result<_, _>>()?;
        match self.unexpected {
            Some(param) => Err(WsamError::MissingFirstGradient { param }),
            None => Ok(grads),
        }
    }
}

/// Collects the second gradients of the same parameters.
pub(crate) fn collect_perturbed<F: TensorLayout, M: Module>(
    module: &M,
    mut grads: GradientsParams,
    device: &Device,
    params: &StepParams,
) -> Result<CollectedPerturbed<F>, WsamError> {
    let none = params.names.iter().map(|_| None).collect();
    let empty = Grads::<F> { params, next: 0, grads: none, unexpected: None };
    let Grads { grads, unexpected, .. } = collect_into(module, &mut grads, device, empty)?;
    Ok(CollectedPerturbed { grads, unexpected })
}

/// The gradients of a pass, while one of its parameters is visited.
struct Source<'a> {
    /// Path of the parameter.
    path: &'a Path,
    grads: &'a mut GradientsParams,
    device: &'a Device,
}

impl Source<'_> {
    /// Takes the parameter's gradient, without autodiff, and checks its shape and device.
    fn grad<const D: usize>(
        &mut self,
        param: &Param<Tensor<D>>,
    ) -> Result<Option<Tensor<D>>, WsamError> {
        // Look for the gradient before reading the value, which would initialise a lazy parameter.
        let Some(grad) = self.grads.remove::<D>(param.id) else { return Ok(None) };
        let grad = grad.without_autodiff();
        let (shape, weight) = (grad.shape(), param.lazy_shape());
        // Skip empty parameters, which Burn's fused kernels cannot process together with others.
        if weight.num_elements() == 0 && shape.num_elements() == 0 {
            return Ok(None);
        }
        if weight != shape {
            let (weight, grad) = (weight.to_vec(), shape.to_vec());
            return Err(WsamError::Shape { param: self.path.to_string(), weight, grad });
        }
        self.check_device(grad.device())?;
        Ok(Some(grad))
    }

    fn check_device(&self, found: Device) -> Result<(), WsamError> {
        if found == *self.device {
            return Ok(());
        }
        let (found, expected) = (Box::new(found), Box::new(self.device.clone()));
        Err(WsamError::Device { param: self.path.to_string(), found, expected })
    }

    /// Makes the entry of a parameter and its gradient.
    fn entry<F: TensorLayout, const D: usize>(
        &mut self,
        param: &Param<Tensor<D>>,
        grad: Tensor<D>,
    ) -> Result<ParamEntry<F::Tensor>, WsamError> {
        let weight = self.weight(param)?;
        if weight.dtype() != grad.dtype() {
            return Err(WsamError::DType {
                param: self.path.to_string(),
                found: grad.dtype(),
                expected: "gradients of their parameter's type",
                route: "optimizer's",
            });
        }
        Ok(ParamEntry {
            id: param.id,
            path: self.path.to_string(),
            group: 0,
            len: weight.shape().num_elements(),
            dtype: weight.dtype(),
            weight: F::from_tensor(weight)?,
            grad: F::from_tensor(grad)?,
        })
    }

    fn weight<const D: usize>(&self, param: &Param<Tensor<D>>) -> Result<Tensor<D>, WsamError> {
        let weight = param.val().without_autodiff();
        self.check_device(weight.device())?;
        Ok(weight)
    }
}

/// Collects from each float parameter of a module.
trait Take {
    fn take<const D: usize>(
        &mut self,
        source: &mut Source<'_>,
        param: &Param<Tensor<D>>,
    ) -> Result<(), WsamError>;
}

impl<F: TensorLayout> Take for Collected<F> {
    fn take<const D: usize>(
        &mut self,
        source: &mut Source<'_>,
        param: &Param<Tensor<D>>,
    ) -> Result<(), WsamError> {
        if let Some(grad) = source.grad(param)? {
            if !param.is_require_grad() {
                self.replaceable.insert(param.id, (self.entries.len(), 1));
            }
            self.entries.push(source.entry::<F, D>(param, grad)?);
            return Ok(());
        }
        self.whole = false;
        let Some((place, before)) = self.replaceable.get_mut(&param.id) else { return Ok(()) };
        if !param.is_require_grad() {
            *before += 1;
            return Ok(());
        }
        let entry = &mut self.entries[*place];
        let weight = source.weight(param)?;
        let (len, dtype) = (weight.shape().num_elements(), weight.dtype());
        if (len, dtype) == (entry.len, entry.dtype) {
            self.before.insert(param.id, *before);
            entry.path = source.path.to_string();
            entry.weight = F::from_tensor(weight)?;
        }
        self.replaceable.remove(&param.id);
        Ok(())
    }
}

/// Collects gradients only.
struct Grads<'a, F: TensorLayout> {
    params: &'a StepParams,
    /// The parameter that probably comes next, because the order is that of the module.
    next: usize,
    grads: Vec<Option<F::Tensor>>,
    /// The first path, in alphabetical order, of a gradient of another parameter.
    unexpected: Option<String>,
}

impl<F: TensorLayout> Grads<'_, F> {
    fn place(&self, id: ParamId) -> Option<usize> {
        let names = &self.params.names;
        let is_next = names.get(self.next).is_some_and(|(next, _)| *next == id);
        let search = || names.iter().position(|(other, _)| *other == id);
        if is_next { Some(self.next) } else { search() }
    }
}

impl<F: TensorLayout> Take for Grads<'_, F> {
    fn take<const D: usize>(
        &mut self,
        source: &mut Source<'_>,
        param: &Param<Tensor<D>>,
    ) -> Result<(), WsamError> {
        let Some(grad) = source.grad(param)? else { return Ok(()) };
        if let Some(place) = self.place(param.id) {
            self.next = place + 1;
            self.grads[place] = Some(F::from_tensor(grad)?);
            return Ok(());
        }
        let path = source.path.to_string();
        self.unexpected = Some(match self.unexpected.take() {
            Some(other) => other.min(path),
            None => path,
        });
        Ok(())
    }
}

/// Collects from each parameter until the first error.
struct Collector<'a, T> {
    grads: &'a mut GradientsParams,
    device: &'a Device,
    taken: T,
    error: Option<WsamError>,
}

impl<T: Take> ParamVisitor for Collector<'_, T> {
    fn visit<const D: usize>(&mut self, param: &Param<Tensor<D>>, path: &Path) {
        if self.error.is_none() {
            let mut source = Source { path, grads: self.grads, device: self.device };
            self.error = self.taken.take(&mut source, param).err();
        }
    }
}

/// Collects into `taken` from the parameters of `module`.
fn collect_into<T: Take, M: Module>(
    module: &M,
    grads: &mut GradientsParams,
    device: &Device,
    taken: T,
) -> Result<T, WsamError> {
    let mut collector = Collector { grads, device, taken, error: None };
    visit_params(module, &mut collector);
    collector.error.map_or(Ok(collector.taken), Err)
}

/// Gradients of a step's parameters, for a Burn optimizer.
pub(crate) fn step_gradients<F: TensorLayout, M: Module>(
    module: &M,
    values: ParamValues<F::Tensor>,
) -> GradientsParams {
    struct Register<F: TensorLayout> {
        values: ParamValues<F::Tensor>,
        grads: GradientsParams,
    }
    impl<F: TensorLayout> ParamVisitor for Register<F> {
        fn visit<const D: usize>(&mut self, param: &Param<Tensor<D>>, _path: &Path) {
            if let Some(value) = self.values.take(param.id) {
                let grad = F::into_tensor::<D>(value, param.lazy_shape());
                self.grads.register(param.id, of_type(grad, param.val().dtype()));
            }
        }
    }
    let mut register = Register::<F> { values, grads: GradientsParams::new() };
    visit_params(module, &mut register);
    register.grads
}

/// Weights of a step's parameters, in their order.
pub(crate) fn step_weights<F: TensorLayout, M: Module>(
    module: &M,
    params: &StepParams,
) -> Result<Vec<F::Tensor>, WsamError> {
    struct Find<F: TensorLayout> {
        wanted: ParamValues<()>,
        found: HashMap<ParamId, F::Tensor>,
        error: Option<WsamError>,
    }
    impl<F: TensorLayout> ParamVisitor for Find<F> {
        fn visit<const D: usize>(&mut self, param: &Param<Tensor<D>>, _path: &Path) {
            if self.error.is_some() || self.wanted.take(param.id).is_none() {
                return;
            }
            match F::from_tensor(param.val().without_autodiff()) {
                Ok(tensor) => drop(self.found.insert(param.id, tensor)),
                Err(error) => self.error = Some(error),
            }
        }
    }
    let wanted = params.values(vec![(); params.names.len()]);
    let mut find = Find::<F> { wanted, found: HashMap::new(), error: None };
    visit_params(module, &mut find);
    if let Some(error) = find.error {
        return Err(error);
    }
    let lost = |path: &String| WsamError::Backend {
        reason: format!("{path} is missing in the model that the Burn optimizer returned"),
    };
    let take = |(id, path): &(ParamId, String)| find.found.remove(id).ok_or_else(|| lost(path));
    params.names.iter().map(take).collect()
}
