//! Finds the parameters whose values something else refers to, besides the module.

use super::params::TensorLayout;
use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::tensor::Tensor;
use std::collections::HashSet;

/// The parameters of a module that a step must replace, because another module or tensor shares their values.
pub(crate) struct SharedParams {
    shared: HashSet<ParamId>,
    /// Whether the module may have running statistics, which its clones share.
    pub(crate) statistics: bool,
}

impl SharedParams {
    /// Whether only the module refers to the values of all parameters with these ids.
    pub(crate) fn excludes(&self, mut ids: impl Iterator<Item = ParamId>) -> bool {
        self.shared.is_empty() || ids.all(|id| !self.shared.contains(&id))
    }
}

/// Returns the module with its shared parameters, or `None` if the route always replaces the tensors of a module.
///
/// A parameter's value can only be asked while it is taken out of the module, because a module's clones share more
/// than the tensor. Where several parameters have one id, the id is shared if one of them is.
pub(crate) fn shared_params<F: TensorLayout, M: Module>(module: M) -> (M, Option<SharedParams>) {
    struct Find<F> {
        found: SharedParams,
        layout: std::marker::PhantomData<F>,
    }
    impl<F: TensorLayout> ModuleMapper for Find<F> {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            // Taking out the value of a lazy parameter would initialise it.
            if !param.is_initialized() {
                self.found.shared.insert(param.id);
                return param;
            }
            let (id, value, mapper) = param.consume();
            let (is_shared, value) = F::is_shared(value);
            if is_shared {
                self.found.shared.insert(id);
                // A module keeps its running statistics while it lends them to a mapper.
                self.found.statistics |= !value.is_require_grad();
            }
            Param::from_mapped_value(id, value, mapper)
        }
    }
    if !F::MAY_MOVE {
        return (module, None);
    }
    let found = SharedParams { shared: HashSet::new(), statistics: false };
    let mut find = Find::<F> { found, layout: std::marker::PhantomData };
    let module = module.map(&mut find);
    (module, Some(find.found))
}
