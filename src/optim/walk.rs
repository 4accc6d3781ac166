//! The walk over a module's float parameters, in module order, each with its path.

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Shape, Tensor};
use std::any::Any;
use std::collections::HashSet;

/// Path of a parameter in its module, for example `encoder.layers.0.weight`.
#[derive(Default)]
pub(crate) struct Path {
    text: String,
    ends: Vec<usize>,
}

impl Path {
    fn enter(&mut self, name: &str) {
        self.ends.push(self.text.len());
        if !self.text.is_empty() {
            self.text.push('.');
        }
        self.text.push_str(name);
    }

    fn exit(&mut self) {
        self.text.truncate(self.ends.pop().unwrap_or(0));
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }
}

impl std::fmt::Display for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// Visits parameters with their rank as a type. Where the rank does not matter, use [`for_each_param`].
pub(crate) trait ParamVisitor {
    fn visit<const D: usize>(&mut self, param: &Param<Tensor<D>>, path: &Path);
}

/// Visits each float parameter of `module`.
pub(crate) fn visit_params<M: Module>(module: &M, visitor: &mut impl ParamVisitor) {
    module.visit(&mut Walk { path: Path::default(), visitor });
}

struct Walk<'a, V> {
    path: Path,
    visitor: &'a mut V,
}

impl<V: ParamVisitor> ModuleVisitor for Walk<'_, V> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.visitor.visit(param, &self.path);
    }
}

/// A float parameter of any rank. Methods that read its value initialize a lazy parameter.
pub(crate) trait AnyParam: Any {
    fn id(&self) -> ParamId;

    fn requires_grad(&self) -> bool;

    fn is_initialized(&self) -> bool;

    /// Reads the value.
    fn initialize(&self);

    /// Shape of the value.
    fn shape(&self) -> Shape;

    /// Element type of the value. Quantised parameters are among the float parameters of a module.
    fn dtype(&self) -> DType;

    /// The value, a `Tensor<D>`.
    fn value(&self) -> Box<dyn Any + Send>;

    /// A clone, which shares the value.
    fn clone_param(&self) -> Box<dyn AnyParam>;

    /// Address of the value, which a parameter shares with its clones.
    fn value_address(&self) -> *const ();

    /// Puts the value, without autodiff, into `grads` in place of a gradient.
    #[cfg(feature = "train")]
    fn register_value(&self, grads: &mut GradientsParams);

    /// Puts the parameter's gradient in `from`, if there is one, into `to` too.
    fn copy_gradient(&self, from: &GradientsParams, to: &mut GradientsParams);
}

impl<const D: usize> AnyParam for Param<Tensor<D>> {
    fn id(&self) -> ParamId {
        self.id
    }

    fn requires_grad(&self) -> bool {
        self.is_require_grad()
    }

    fn is_initialized(&self) -> bool {
        Param::is_initialized(self)
    }

    fn initialize(&self) {
        drop(self.val());
    }

    fn shape(&self) -> Shape {
        self.val().shape()
    }

    fn dtype(&self) -> DType {
        self.val().dtype()
    }

    fn value(&self) -> Box<dyn Any + Send> {
        Box::new(self.val())
    }

    fn clone_param(&self) -> Box<dyn AnyParam> {
        Box::new(self.clone())
    }

    fn value_address(&self) -> *const () {
        (&raw const **self).cast()
    }

    #[cfg(feature = "train")]
    fn register_value(&self, grads: &mut GradientsParams) {
        grads.register(self.id, self.val().without_autodiff());
    }

    fn copy_gradient(&self, from: &GradientsParams, to: &mut GradientsParams) {
        if let Some(grad) = from.get::<D>(self.id) {
            to.register(self.id, grad);
        }
    }
}

/// Calls `each` for each float parameter of `module`.
pub(crate) fn for_each_param<M: Module>(module: &M, each: impl FnMut(&dyn AnyParam, &Path)) {
    struct Each<F>(F);
    impl<F: FnMut(&dyn AnyParam, &Path)> ParamVisitor for Each<F> {
        fn visit<const D: usize>(&mut self, param: &Param<Tensor<D>>, path: &Path) {
            (self.0)(param, path);
        }
    }
    visit_params(module, &mut Each(each));
}

/// Calls `each` for the first float parameter with each id.
pub(crate) fn for_each_id<M: Module>(module: &M, mut each: impl FnMut(&dyn AnyParam, &Path)) {
    let mut seen = HashSet::new();
    for_each_param(module, |param, path| {
        if seen.insert(param.id()) {
            each(param, path);
        }
    });
}
