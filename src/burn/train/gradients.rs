//! Gradients and losses over micro-batches, and weights on their way to the learner.

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::Tensor;
use std::collections::HashSet;

/// A sum over micro-batches, as Burn's training loops take it.
pub(super) struct Sum<M> {
    one: Option<GradientsParams>,
    more: GradientsAccumulator<M>,
    loss: Option<Tensor<1>>,
    pub(super) len: usize,
}

impl<M> Default for Sum<M> {
    fn default() -> Self {
        Self { one: None, more: GradientsAccumulator::new(), loss: None, len: 0 }
    }
}

impl<M: Module> Sum<M> {
    pub(super) fn add(&mut self, model: &M, grads: GradientsParams, loss: Option<Tensor<1>>) {
        self.len += 1;
        // One batch, the usual case, needs no sum.
        match (self.len, self.one.take()) {
            (1, _) => self.one = Some(grads),
            (_, first) => {
                if let Some(first) = first {
                    self.more.accumulate(model, first);
                }
                self.more.accumulate(model, grads);
            }
        }
        let loss = loss.map(Tensor::without_autodiff);
        self.loss = match (self.loss.take(), loss) {
            (Some(sum), Some(loss)) => Some(sum + loss),
            (sum, loss) => sum.or(loss),
        };
    }

    pub(super) fn take(mut self) -> (GradientsParams, Option<Tensor<1>>) {
        (self.one.unwrap_or_else(|| self.more.grads()), self.loss)
    }
}

/// The values of the parameters that are wanted, by id, off the graph. Of several parameters with one
/// id the first, as everywhere in Burn's optimizers.
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

/// Ids of the parameters that may be trained.
pub(super) fn trainable<M: Module>(model: &M) -> HashSet<ParamId> {
    struct Find(HashSet<ParamId>);
    impl ModuleVisitor for Find {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if param.is_require_grad() {
                self.0.insert(param.id);
            }
        }
    }
    let mut find = Find(HashSet::new());
    model.visit(&mut find);
    find.0
}
