//! Tensors kept between steps, by parameter: states and master weights.

use super::batch::Members;
use burn::module::ParamId;
use burn::tensor::Tensor;
use std::collections::HashMap;
use std::sync::Arc;

/// Tensors of parameters, in the concatenated form that the last step wrote.
#[derive(Debug, Default)]
pub(super) struct Stored {
    parts: HashMap<ParamId, Part>,
}

/// A parameter's part of a block.
#[derive(Debug)]
struct Part {
    block: Arc<Block>,
    start: usize,
    len: usize,
}

#[derive(Debug)]
struct Block {
    ids: Vec<ParamId>,
    tensors: Vec<Tensor<1>>,
}

impl Part {
    fn tensors(&self) -> Vec<Tensor<1>> {
        let tensors = self.block.tensors.iter().cloned();
        if self.block.ids.len() == 1 {
            return tensors.collect();
        }
        tensors.map(|tensor| tensor.slice(self.start..self.start + self.len)).collect()
    }
}

impl Stored {
    pub(super) fn contains(&self, id: ParamId) -> bool {
        self.parts.contains_key(&id)
    }

    /// The parameters with tensors, sorted.
    pub(super) fn ids(&self) -> impl Iterator<Item = ParamId> + use<> {
        let mut ids: Vec<_> = self.parts.keys().copied().collect();
        ids.sort_by_key(ParamId::val);
        ids.into_iter()
    }

    /// A parameter's tensors.
    pub(super) fn get(&self, id: ParamId) -> Vec<Tensor<1>> {
        self.parts.get(&id).map(Part::tensors).unwrap_or_default()
    }

    /// Number of elements of each of a parameter's tensors, if it has any.
    pub(super) fn len(&self, id: ParamId) -> Option<usize> {
        let part = self.parts.get(&id)?;
        (!part.block.tensors.is_empty()).then_some(part.len)
    }

    /// Stores the concatenated tensors of a batch.
    pub(super) fn put(&mut self, members: &Members, tensors: Vec<Tensor<1>>) {
        let block = Arc::new(Block { ids: members.ids().collect(), tensors });
        for (id, start, len) in members.ranges() {
            self.parts.insert(id, Part { block: block.clone(), start, len });
        }
    }

    /// The concatenated tensors of a batch. Empty unless all its parameters have tensors.
    pub(super) fn joined(&self, members: &Members) -> Vec<Tensor<1>> {
        let parts: Vec<_> = members.ids().filter_map(|id| self.parts.get(&id)).collect();
        let Some(first) = parts.first().filter(|_| parts.len() == members.ids().len()) else {
            return Vec::new();
        };
        let is_same = |part: &&Part| Arc::ptr_eq(&part.block, &first.block);
        if parts.iter().all(is_same) && first.block.ids.iter().copied().eq(members.ids()) {
            return first.block.tensors.clone();
        }
        let all: Vec<Vec<Tensor<1>>> = parts.iter().map(|part| part.tensors()).collect();
        let column = |at: usize| all.iter().map(|tensors| tensors[at].clone()).collect();
        let count = all.iter().map(Vec::len).min().unwrap_or(0);
        (0..count).map(|at| members.join(column(at))).collect()
    }

    /// Removes and returns the concatenated tensors of a batch. Empty unless all its parameters have tensors.
    pub(super) fn take(&mut self, members: &Members) -> Vec<Tensor<1>> {
        let tensors = self.joined(members);
        for id in members.ids() {
            self.parts.remove(&id);
        }
        tensors
    }

    pub(super) fn remove(&mut self, id: ParamId) {
        self.parts.remove(&id);
    }

    /// Drops the tensors of parameters that are `is_dropped`.
    pub(super) fn forget(&mut self, is_dropped: &dyn Fn(ParamId) -> bool) {
        self.parts.retain(|id, _| !is_dropped(*id));
    }
}
