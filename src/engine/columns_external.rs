//! The slices of the tensors around an external base optimizer, and of Momentum-SAM's ascent.

use super::columns::{PhaseTensor, SliceUses, accessors, columns, read, written};
use super::error::EngineError;
use super::method_state::MethodState;
use super::momentum_tensor::MomentumTensor;
use super::slice::{Columns, Role};
use super::tensors::{ClipTensor, MixTensor, SharpenTensor};
use crate::layout::column;

impl PhaseTensor for MomentumTensor {
    accessors!(weight);

    fn step(&self) -> u64 {
        self.step
    }

    fn check(&self, tensor: usize, perturbed: bool) -> Result<(), EngineError> {
        self.perturbed.check(tensor, perturbed, self.master.as_ref(), &self.weight)
    }

    fn columns(&self, _anchored: bool) -> Columns<'_> {
        let (copy, in_place) = self.perturbed.copy();
        let accessed = in_place || self.master.is_none();
        let slices = [
            (column::WEIGHT, accessed.then_some(&self.weight)),
            (column::ANCHOR, self.master.as_ref()),
            (column::WEIGHT_COPY, copy),
            (column::STATE, Some(&self.momentum)),
        ];
        columns(slices, &[])
    }

    fn slice_uses(&self) -> SliceUses<'_> {
        (self.perturbed.slice_uses(&self.weight, self.master.as_ref()))
            .chain([read(Role::MethodState, &self.momentum)])
            .collect()
    }
}

impl PhaseTensor for MixTensor {
    accessors!(mixed, method_state);

    fn columns(&self, _anchored: bool) -> Columns<'_> {
        let slices = [
            (column::WEIGHT, Some(&self.mixed)),
            // The kernel reads w and multiplies it by zero, so any initialised tensor will do.
            (column::ANCHOR, Some(&self.grad)),
            (column::GRAD, Some(&self.grad)),
            (column::GRAD_PERTURBED, Some(&self.grad_perturbed)),
            (column::WEIGHT_COPY, self.method_state.slice()),
        ];
        columns(slices, &[])
    }

    fn slice_uses(&self) -> SliceUses<'_> {
        [
            written(Role::Weight, &self.mixed),
            read(Role::Grad, &self.grad),
            read(Role::GradPerturbed, &self.grad_perturbed),
        ]
        .into_iter()
        .chain(self.method_state.slice().map(|slice| written(Role::MethodState, slice)))
        .collect()
    }
}

impl PhaseTensor for ClipTensor {
    accessors!(clipped, method_state);

    fn columns(&self, _anchored: bool) -> Columns<'_> {
        let slices = [
            (column::WEIGHT, Some(&self.clipped)),
            // As in a mix.
            (column::ANCHOR, Some(&self.grad)),
            (column::GRAD, Some(&self.grad)),
            (column::GRAD_PERTURBED, self.method_state.slice()),
        ];
        columns(slices, &[])
    }

    fn slice_uses(&self) -> SliceUses<'_> {
        [written(Role::Weight, &self.clipped), read(Role::Grad, &self.grad)]
            .into_iter()
            .chain(self.method_state.slice().map(|slice| read(Role::MethodState, slice)))
            .collect()
    }
}

impl PhaseTensor for SharpenTensor {
    accessors!(weight);

    fn is_anchored(&self) -> bool {
        self.anchor.is_some()
    }

    fn columns(&self, anchored: bool) -> Columns<'_> {
        let slices = [
            (column::WEIGHT, Some(&self.weight)),
            (column::ANCHOR, anchored.then(|| self.anchor.as_ref().unwrap_or(&self.weight))),
            (column::GRAD, Some(&self.grad)),
            (column::GRAD_PERTURBED, Some(&self.grad_perturbed)),
        ];
        columns(slices, &[])
    }

    fn slice_uses(&self) -> SliceUses<'_> {
        [written(Role::Weight, &self.weight)]
            .into_iter()
            .chain(self.anchor.as_ref().map(|anchor| read(Role::Anchor, anchor)))
            .chain([read(Role::Grad, &self.grad), read(Role::GradPerturbed, &self.grad_perturbed)])
            .collect()
    }
}
