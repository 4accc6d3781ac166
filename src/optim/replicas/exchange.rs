//! Values of a module's parameters on the host, to be sent between the optimizer's model and its replicas.

use super::read::Read;
use crate::optim::copies::{is_same_leaf, replace};
use crate::optim::statistics::RunningStatistics;
use crate::optim::walk::{ParamVisitor, Path, visit_params};
use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, Shape, Tensor, TensorData};
use std::any::Any;
use std::collections::HashMap;

/// What is exchanged of a float parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Its weight and its gradient: the first trainable parameter with its id.
    Trained,
    /// Its weight: a later trainable parameter with the same id and a tensor of its own.
    Repeated,
    /// Nothing: it has the tensor of the first trainable parameter with its id.
    Tied,
    /// Its value, which the first pass changes.
    Statistic,
    /// Nothing: it is frozen.
    Frozen,
}

/// The float parameters of a module, in module order.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Layout {
    params: Vec<ExchangedParam>,
}

#[derive(Debug, PartialEq)]
struct ExchangedParam {
    /// With its shape and element type it identifies the parameter.
    id: ParamId,
    path: String,
    role: Role,
    shape: Shape,
    dtype: DType,
}

impl Layout {
    /// The layout of `model`, whose running statistics are `statistics`. Initialises lazy parameters.
    pub(super) fn of<M: Module>(model: &M, statistics: &RunningStatistics) -> Self {
        struct Visitor<'a> {
            statistics: &'a RunningStatistics,
            /// The `Tensor<D>` of the first trainable parameter with each id.
            trained: HashMap<ParamId, Box<dyn Any>>,
            params: Vec<ExchangedParam>,
        }
        impl ParamVisitor for Visitor<'_> {
            fn visit<const D: usize>(&mut self, param: &Param<Tensor<D>>, path: &Path) {
                let value = param.val();
                let role = if !param.is_require_grad() {
                    let is_statistic = self.statistics.is_statistic(self.params.len());
                    if is_statistic { Role::Statistic } else { Role::Frozen }
                } else if let Some(first) = self.trained.get(&param.id) {
                    let first = first.downcast_ref::<Tensor<D>>();
                    let tied = first.is_some_and(|first| is_same_leaf(first, &value));
                    if tied { Role::Tied } else { Role::Repeated }
                } else {
                    self.trained.insert(param.id, Box::new(value.clone()));
                    Role::Trained
                };
                let (id, path) = (param.id, path.to_string());
                let (shape, dtype) = (value.shape(), value.dtype());
                self.params.push(ExchangedParam { id, path, role, shape, dtype });
            }
        }
        let mut visitor = Visitor { statistics, trained: HashMap::new(), params: Vec::new() };
        visit_params(model, &mut visitor);
        Self { params: visitor.params }
    }

    fn role(&self, place: usize) -> Role {
        self.params.get(place).map_or(Role::Frozen, |param| param.role)
    }

    /// Path of the parameter at a place.
    pub(super) fn path(&self, place: usize) -> &str {
        self.params.get(place).map_or("?", |param| &param.path)
    }
}

/// One value for each place of a [`Layout`] that has one.
#[derive(Debug, Default)]
pub(super) struct Values {
    pub(super) at: Vec<Option<TensorData>>,
}

impl Values {
    pub(super) fn bytes(&self) -> u64 {
        self.at.iter().flatten().map(bytes).sum()
    }

    /// The first place with a NaN or an infinity.
    pub(super) fn not_finite(&self) -> Option<usize> {
        self.at.iter().position(|value| value.as_ref().is_some_and(|value| !is_finite(value)))
    }
}

/// Number of bytes of the elements.
pub(super) fn bytes(data: &TensorData) -> u64 {
    data.as_bytes().len() as u64
}

pub(super) fn is_finite(data: &TensorData) -> bool {
    match data.as_slice::<f32>() {
        Ok(values) => values.iter().all(|value| value.is_finite()),
        Err(_) => data.iter::<f64>().all(f64::is_finite),
    }
}

/// Requested reads of a [`Layout`]'s values.
#[derive(Default)]
pub(super) struct Reads(Vec<Option<Read>>);

impl Reads {
    /// Requests the weights of the trainable parameters, and with `statistics` the running statistics.
    pub(super) fn weights<M: Module>(model: &M, layout: &Layout, statistics: bool) -> Self {
        let roles = [Role::Trained, Role::Repeated, Role::Statistic];
        Self::values(model, layout, if statistics { &roles } else { &roles[..2] })
    }

    /// Requests the values of the parameters that have one of the roles, except of quantised ones.
    pub(super) fn values<M: Module>(model: &M, layout: &Layout, roles: &[Role]) -> Self {
        struct Visitor<'a>(Reads, &'a Layout, &'a [Role]);
        impl ParamVisitor for Visitor<'_> {
            fn visit<const D: usize>(&mut self, param: &Param<Tensor<D>>, _: &Path) {
                let Self(Reads(reads), layout, roles) = self;
                let wanted = roles.contains(&layout.role(reads.len()));
                let value = wanted.then(|| param.val()).filter(|value| value.dtype().is_float());
                reads.push(value.map(Read::request));
            }
        }
        let mut visitor = Visitor(Self::default(), layout, roles);
        visit_params(model, &mut visitor);
        visitor.0
    }

    /// Requests the gradients of the trained parameters that have one.
    pub(super) fn gradients<M: Module>(
        model: &M,
        layout: &Layout,
        grads: &GradientsParams,
    ) -> Self {
        struct Visitor<'a>(Reads, &'a Layout, &'a GradientsParams);
        impl ParamVisitor for Visitor<'_> {
            fn visit<const D: usize>(&mut self, param: &Param<Tensor<D>>, _: &Path) {
                let Self(Reads(reads), layout, grads) = self;
                let trained = layout.role(reads.len()) == Role::Trained;
                let grad = if trained { grads.get::<D>(param.id) } else { None };
                reads.push(grad.map(Read::request));
            }
        }
        let mut visitor = Visitor(Self::default(), layout, grads);
        visit_params(model, &mut visitor);
        visitor.0
    }

    /// Waits for all values, or returns Burn's message for the first that could not be read.
    pub(super) fn wait(self) -> Result<Values, String> {
        let at = self.0.into_iter().map(|read| read.map(Read::wait).transpose());
        Ok(Values { at: at.collect::<Result<_, _>>()? })
    }
}

/// Assigns values to the parameters of a module on `device`.
pub(super) fn assign<M: Module>(
    model: M,
    layout: &Layout,
    values: &Values,
    device: &Device,
) -> Result<M, String> {
    let device = device.clone().without_autodiff();
    let mut assign =
        Assign { layout, values, device: &device, place: 0, trained: HashMap::new(), error: None };
    let model = model.map(&mut assign);
    assign.error.map_or(Ok(model), Err)
}

struct Assign<'a> {
    layout: &'a Layout,
    values: &'a Values,
    device: &'a Device,
    place: usize,
    /// The new `Tensor<D>` of each trained parameter, for parameters tied to it.
    trained: HashMap<ParamId, Box<dyn Any>>,
    error: Option<String>,
}

impl ModuleMapper for Assign<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let place = self.place;
        self.place += 1;
        let role = self.layout.role(place);
        if role == Role::Tied {
            let trained = self.trained.get(&param.id);
            return match trained.and_then(|tensor| tensor.downcast_ref::<Tensor<D>>()) {
                Some(tensor) => param.map(|_| tensor.clone()),
                None => param,
            };
        }
        let Some(data) = self.values.at.get(place).and_then(Option::as_ref) else { return param };
        if data.shape().num_elements() != param.lazy_shape().num_elements() {
            let (found, expected) = (data.shape(), param.lazy_shape());
            self.error.get_or_insert_with(|| {
                format!("a value of shape {found:?} arrived for a parameter of shape {expected:?}")
            });
            return param;
        }
        let value = tensor_on::<D>(data, self.device);
        let param = replace(param, |_| value);
        if role == Role::Trained {
            self.trained.insert(param.id, Box::new(param.val()));
        }
        param
    }
}

/// Makes gradients on `device` of values that a replica has sent.
pub(super) fn into_gradients<M: Module>(
    model: &M,
    values: &Values,
    device: &Device,
) -> GradientsParams {
    struct Visitor<'a>(GradientsParams, std::slice::Iter<'a, Option<TensorData>>, &'a Device);
    impl ParamVisitor for Visitor<'_> {
        fn visit<const D: usize>(&mut self, param: &Param<Tensor<D>>, _: &Path) {
            if let Some(data) = self.1.next().and_then(Option::as_ref) {
                self.0.register(param.id, tensor_on::<D>(data, self.2));
            }
        }
    }
    let mut visitor = Visitor(GradientsParams::new(), values.at.iter(), device);
    visit_params(model, &mut visitor);
    visitor.0
}

pub(super) fn tensor_on<const D: usize>(data: &TensorData, device: &Device) -> Tensor<D> {
    Tensor::from_data(data.clone(), (device, data.dtype()))
}
