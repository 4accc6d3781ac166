//! The slices of each kind of tensor: their columns in a chunk table, and whether the phase writes them.

use super::error::EngineError;
use super::method_state::MethodState;
use super::slice::{Columns, Role, Slice};
use super::tensors::{
    AscentTensor, BaseTensor, DescentTensor, LeanAscentTensor, LeanDescentTensor, Placement,
};
use crate::layout::{COLUMNS, column};

pub(super) fn columns<'a, const N: usize>(
    slices: [(usize, Option<&'a Slice>); N],
    state: &'a [Slice],
) -> Columns<'a> {
    let mut columns = [None; COLUMNS];
    for (place, slice) in slices {
        columns[place] = slice;
    }
    for (place, slice) in columns[column::STATE..].iter_mut().zip(state) {
        *place = Some(slice);
    }
    columns
}

/// How a phase uses a slice, for the checks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SliceUse<'a> {
    pub(crate) role: Role,
    pub(crate) slice: &'a Slice,
    pub(crate) written: bool,
}

pub(crate) type SliceUses<'a> = Vec<SliceUse<'a>>;

pub(super) fn read(role: Role, slice: &Slice) -> SliceUse<'_> {
    SliceUse { role, slice, written: false }
}

pub(super) fn written(role: Role, slice: &Slice) -> SliceUse<'_> {
    SliceUse { role, slice, written: true }
}

pub(super) fn state_uses(state: &[Slice]) -> impl Iterator<Item = SliceUse<'_>> {
    state.iter().zip(0..).map(|(slice, i)| written(Role::State(i), slice))
}

/// A tensor of any phase.
pub(crate) trait PhaseTensor {
    /// Returns the number of elements.
    fn len(&self) -> u64;

    /// Returns the parameter group.
    fn group(&self) -> usize;

    /// Returns the state tensors of the base optimizer.
    fn state(&self) -> &[Slice] {
        &[]
    }

    /// Returns the method's state.
    fn method_state(&self) -> &MethodState {
        &MethodState::None
    }

    /// Returns the step count; 1 in a phase without a base step.
    fn step(&self) -> u64 {
        1
    }

    /// Returns whether `w`, or the weights to restore, are in the anchor's column.
    fn is_anchored(&self) -> bool {
        false
    }

    /// Checks which slices are given. `perturbed` says whether the tensor's group is perturbed.
    fn check(&self, _tensor: usize, _perturbed: bool) -> Result<(), EngineError> {
        Ok(())
    }

    /// Returns the slices by column. `w`, or the weights to restore, are in the anchor's column if `anchored`.
    fn columns(&self, anchored: bool) -> Columns<'_>;

    /// Returns each slice with its use.
    fn slice_uses(&self) -> SliceUses<'_>;
}

/// Defines the methods of [`PhaseTensor`] that return fields.
macro_rules! accessors {
    ($weight:ident) => {
        fn len(&self) -> u64 {
            self.$weight.len
        }

        fn group(&self) -> usize {
            self.group
        }
    };
    ($weight:ident, method_state) => {
        accessors!($weight);

        fn method_state(&self) -> &MethodState {
            &self.method_state
        }
    };
    ($weight:ident, state, method_state) => {
        accessors!($weight, state);

        fn method_state(&self) -> &MethodState {
            &self.method_state
        }
    };
    ($weight:ident, state) => {
        accessors!($weight);

        fn state(&self) -> &[Slice] {
            &self.state
        }

        fn step(&self) -> u64 {
            self.step
        }
    };
}

pub(super) use accessors;

/// Returns whether any tensor has an anchor. All tensors then read the anchor's column, because a plan has one
/// kernel.
pub(crate) fn any_anchored<T: PhaseTensor>(tensors: &[T]) -> bool {
    tensors.iter().any(T::is_anchored)
}

/// Checks that master weights belong to a tensor in half precision and that there is no anchor besides them.
pub(super) fn check_master(
    tensor: usize,
    master: Option<&Slice>,
    anchor: Option<&Slice>,
    grad: &Slice,
) -> Result<(), EngineError> {
    match (master, anchor) {
        (Some(_), _) if !grad.is_half() => Err(EngineError::Master { tensor }),
        (Some(_), Some(_)) => Err(EngineError::Anchor { tensor, given: true }),
        _ => Ok(()),
    }
}

impl AscentTensor {
    /// Returns whether the ascent is in place.
    ///
    /// # Errors
    ///
    /// [`EngineError::MixedPlacement`] if it is for some of the perturbed tensors only.
    pub(crate) fn all_in_place(tensors: &[Self]) -> Result<bool, EngineError> {
        Placement::all_in_place(tensors.iter().map(|tensor| &tensor.perturbed))
    }
}

impl Placement {
    /// Returns whether an ascent with these placements is in place.
    ///
    /// # Errors
    ///
    /// [`EngineError::MixedPlacement`] if it is for some of the perturbed tensors only.
    pub(super) fn all_in_place<'a>(
        placements: impl Iterator<Item = &'a Self>,
    ) -> Result<bool, EngineError> {
        let mut found = None;
        for (tensor, placement) in placements.enumerate() {
            let in_place = match placement {
                Placement::Unperturbed => continue,
                Placement::OutOfPlace(_) => false,
                Placement::InPlace { .. } => true,
            };
            if *found.get_or_insert(in_place) != in_place {
                return Err(EngineError::MixedPlacement { tensor });
            }
        }
        Ok(found.unwrap_or(false))
    }
}

impl Placement {
    /// Checks the placement of a tensor, whose group is perturbed or not, and its master weights. `half` is a slice in
    /// the tensor's format.
    pub(super) fn check(
        &self,
        tensor: usize,
        perturbed: bool,
        master: Option<&Slice>,
        half: &Slice,
    ) -> Result<(), EngineError> {
        let given = *self != Self::Unperturbed;
        if given != perturbed {
            return Err(EngineError::Placement { tensor, given });
        }
        let anchor = match self {
            Self::InPlace { anchor } => anchor.as_ref(),
            Self::Unperturbed | Self::OutOfPlace(_) => None,
        };
        check_master(tensor, master, anchor, half)?;
        let in_place = matches!(self, Self::InPlace { .. });
        if in_place && master.is_none() && anchor.is_none() {
            return Err(EngineError::Anchor { tensor, given: false });
        }
        Ok(())
    }

    /// Returns the slice in the column of the second weights, and whether the ascent is in place.
    pub(super) fn copy(&self) -> (Option<&Slice>, bool) {
        match self {
            Self::Unperturbed => (None, false),
            Self::OutOfPlace(perturbed) => (Some(perturbed), false),
            Self::InPlace { anchor } => (anchor.as_ref(), true),
        }
    }

    /// Returns the uses of the weights, of the master weights and of the second weights by an ascent.
    pub(super) fn slice_uses<'a>(
        &'a self,
        weight: &'a Slice,
        master: Option<&'a Slice>,
    ) -> impl Iterator<Item = SliceUse<'a>> {
        let (copy, in_place) = self.copy();
        let role = if in_place { Role::Anchor } else { Role::Perturbed };
        [SliceUse { written: in_place, ..read(Role::Weight, weight) }]
            .into_iter()
            .chain(master.map(|master| read(Role::Master, master)))
            .chain(copy.map(|copy| written(role, copy)))
    }
}

impl PhaseTensor for AscentTensor {
    accessors!(weight, method_state);

    fn check(&self, tensor: usize, perturbed: bool) -> Result<(), EngineError> {
        self.perturbed.check(tensor, perturbed, self.master.as_ref(), &self.grad)
    }

    fn columns(&self, _anchored: bool) -> Columns<'_> {
        let (copy, in_place) = self.perturbed.copy();
        let accessed = in_place || self.master.is_none();
        let slices = [
            (column::WEIGHT, accessed.then_some(&self.weight)),
            (column::ANCHOR, self.master.as_ref()),
            (column::GRAD, Some(&self.grad)),
            (column::WEIGHT_COPY, copy),
            (column::STATE, self.method_state.slice()),
        ];
        columns(slices, &[])
    }

    fn slice_uses(&self) -> SliceUses<'_> {
        (self.perturbed.slice_uses(&self.weight, self.master.as_ref()))
            .chain([read(Role::Grad, &self.grad)])
            .chain(self.method_state.slice().map(|slice| read(Role::MethodState, slice)))
            .collect()
    }
}

impl PhaseTensor for DescentTensor {
    accessors!(weight, state, method_state);

    fn is_anchored(&self) -> bool {
        self.anchor.is_some() || self.master.is_some()
    }

    fn check(&self, tensor: usize, _perturbed: bool) -> Result<(), EngineError> {
        check_master(tensor, self.master.as_ref(), self.anchor.as_ref(), &self.grad)
    }

    fn columns(&self, anchored: bool) -> Columns<'_> {
        let anchor = self.master.as_ref().or(self.anchor.as_ref()).unwrap_or(&self.weight);
        let slices = [
            (column::WEIGHT, Some(&self.weight)),
            (column::ANCHOR, anchored.then_some(anchor)),
            (column::GRAD, Some(&self.grad)),
            (column::GRAD_PERTURBED, Some(&self.grad_perturbed)),
            // A descent has no second weights.
            (column::WEIGHT_COPY, self.method_state.slice()),
        ];
        columns(slices, &self.state)
    }

    fn slice_uses(&self) -> SliceUses<'_> {
        [written(Role::Weight, &self.weight)]
            .into_iter()
            .chain(self.anchor.as_ref().map(|anchor| read(Role::Anchor, anchor)))
            .chain(self.master.as_ref().map(|master| written(Role::Master, master)))
            .chain([read(Role::Grad, &self.grad), read(Role::GradPerturbed, &self.grad_perturbed)])
            .chain(state_uses(&self.state))
            .chain(self.method_state.slice().map(|slice| written(Role::MethodState, slice)))
            .collect()
    }
}

impl PhaseTensor for BaseTensor {
    accessors!(weight, state, method_state);

    fn is_anchored(&self) -> bool {
        self.anchor.is_some() || self.master.is_some()
    }

    fn check(&self, tensor: usize, _perturbed: bool) -> Result<(), EngineError> {
        check_master(tensor, self.master.as_ref(), self.anchor.as_ref(), &self.grad)
    }

    fn columns(&self, anchored: bool) -> Columns<'_> {
        let anchor = self.master.as_ref().or(self.anchor.as_ref()).unwrap_or(&self.weight);
        let slices = [
            (column::WEIGHT, Some(&self.weight)),
            (column::ANCHOR, anchored.then_some(anchor)),
            (column::GRAD, Some(&self.grad)),
            // A step of one pass has no second gradient.
            (column::GRAD_PERTURBED, self.method_state.slice()),
        ];
        columns(slices, &self.state)
    }

    fn slice_uses(&self) -> SliceUses<'_> {
        [written(Role::Weight, &self.weight)]
            .into_iter()
            .chain(self.anchor.as_ref().map(|anchor| read(Role::Anchor, anchor)))
            .chain(self.master.as_ref().map(|master| written(Role::Master, master)))
            .chain([read(Role::Grad, &self.grad)])
            .chain(state_uses(&self.state))
            .chain(self.method_state.slice().map(|slice| read(Role::MethodState, slice)))
            .collect()
    }
}

impl PhaseTensor for LeanAscentTensor {
    accessors!(weight, state);

    fn is_anchored(&self) -> bool {
        self.anchor.is_some()
    }

    fn check(&self, tensor: usize, perturbed: bool) -> Result<(), EngineError> {
        let given = self.perturbed.is_some();
        if given == perturbed { Ok(()) } else { Err(EngineError::Placement { tensor, given }) }
    }

    fn columns(&self, anchored: bool) -> Columns<'_> {
        let slices = [
            (column::WEIGHT, Some(&self.weight)),
            (column::ANCHOR, anchored.then(|| self.anchor.as_ref().unwrap_or(&self.weight))),
            (column::GRAD, Some(&self.grad)),
            (column::WEIGHT_COPY, self.perturbed.as_ref()),
        ];
        columns(slices, &self.state)
    }

    fn slice_uses(&self) -> SliceUses<'_> {
        [written(Role::Weight, &self.weight)]
            .into_iter()
            .chain(self.anchor.as_ref().map(|anchor| read(Role::Anchor, anchor)))
            .chain([read(Role::Grad, &self.grad)])
            .chain(self.perturbed.as_ref().map(|slice| written(Role::Perturbed, slice)))
            .chain(state_uses(&self.state))
            .collect()
    }
}

impl PhaseTensor for LeanDescentTensor {
    accessors!(weight);

    fn is_anchored(&self) -> bool {
        self.second_pass_weight.is_some()
    }

    fn columns(&self, anchored: bool) -> Columns<'_> {
        let second_pass = self.second_pass_weight.as_ref().unwrap_or(&self.weight);
        let slices = [
            (column::WEIGHT, Some(&self.weight)),
            (column::ANCHOR, anchored.then_some(second_pass)),
            (column::GRAD_PERTURBED, Some(&self.grad_perturbed)),
        ];
        columns(slices, &[])
    }

    fn slice_uses(&self) -> SliceUses<'_> {
        let second_pass = self.second_pass_weight.as_ref();
        [written(Role::Weight, &self.weight), read(Role::GradPerturbed, &self.grad_perturbed)]
            .into_iter()
            .chain(second_pass.map(|slice| read(Role::SecondPassWeight, slice)))
            .collect()
    }
}
