//! Weights that the strategy passes to the learner.

use crate::optim::param_entries::Path;
use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use std::collections::{HashMap, HashSet};

/// Values of the `wanted` parameters, by id, without autodiff. Of several parameters with the same id, the first
/// one, as in Burn's optimizers.
pub(super) fn weights<M: Module>(model: &M, wanted: impl Fn(ParamId) -> bool) -> GradientsParams {
    struct Collect<W> {
        wanted: W,
        seen: HashSet<ParamId>,
        found: GradientsParams,
    }
    impl<W: Fn(ParamId) -> bool> ModuleVisitor for Collect<W> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if (self.wanted)(param.id) && self.seen.insert(param.id) {
                self.found.register(param.id, param.val().without_autodiff());
            }
        }
    }
    let mut collect = Collect { wanted, seen: HashSet::new(), found: GradientsParams::new() };
    model.visit(&mut collect);
    collect.found
}

/// Ids of the trainable parameters.
pub(super) fn trainable<M: Module>(model: &M) -> HashSet<ParamId> {
    struct Find(HashSet<ParamId>);
    impl ModuleVisitor for Find {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            // A quantised parameter takes no steps, even if it still requires a gradient.
            if param.is_require_grad() && param.val().dtype().is_float() {
                self.0.insert(param.id);
            }
        }
    }
    let mut find = Find(HashSet::new());
    model.visit(&mut find);
    find.0
}

/// Paths of a frozen parameter and a later trainable one with the same id, if the model has such a pair.
pub(super) fn frozen_in_front<M: Module>(model: &M) -> Option<(String, String)> {
    #[derive(Default)]
    struct Find {
        path: Path,
        /// For each id, the path of the first parameter if it is frozen.
        first: HashMap<ParamId, Option<String>>,
        found: Option<(String, String)>,
    }
    impl ModuleVisitor for Find {
        fn enter_module(&mut self, name: &str, _container_type: &str) {
            self.path.enter(name);
        }

        fn exit_module(&mut self, _name: &str, _container_type: &str) {
            self.path.exit();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let (path, trainable) = (self.path.to_string(), param.is_require_grad());
            match self.first.get(&param.id) {
                Some(Some(frozen)) if trainable => {
                    self.found.get_or_insert_with(|| (frozen.clone(), path));
                }
                Some(_) => {}
                None => drop(self.first.insert(param.id, (!trainable).then_some(path))),
            }
        }
    }
    let mut find = Find::default();
    model.visit(&mut find);
    find.found
}

/// Whether a parameter is quantised.
pub(super) fn has_quantised<M: Module>(model: &M) -> bool {
    struct Find(bool);
    impl ModuleVisitor for Find {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            // A parameter without a value is not quantised, because initialisers do not quantise.
            self.0 |= param.is_initialized() && !param.val().dtype().is_float();
        }
    }
    let mut find = Find(false);
    model.visit(&mut find);
    find.0
}
