//! Whether gradients are finite, decided on the device.

use super::State;
use crate::burn::error::WsamError;
use crate::burn::pending::Finite;
use crate::burn::state::read;
use crate::method::NonFinite;
use burn::tensor::{Bool, Tensor};

/// One truth value on the device.
pub(crate) type DeviceBool = Tensor<1, Bool>;

/// Whether gradients are finite, as far as they were looked at.
#[derive(Clone, Debug, Default)]
pub(crate) struct FiniteFlags {
    pub(crate) gradient: Option<DeviceBool>,
    pub(crate) perturbed: Option<DeviceBool>,
}

impl FiniteFlags {
    /// Reads them. Waits for the device.
    pub(crate) fn read(&self) -> Result<Finite, WsamError> {
        let one = |flag: &Option<DeviceBool>| -> Result<bool, WsamError> {
            Ok(match flag {
                Some(flag) => read(flag.clone().float())?.iter::<f64>().all(|value| value == 1.0),
                None => true,
            })
        };
        Ok(Finite { gradient: one(&self.gradient)?, perturbed: one(&self.perturbed)? })
    }

    /// Whether a step is skipped; `None` where nothing is checked.
    pub(crate) fn skipped(&self, policy: NonFinite) -> Option<DeviceBool> {
        let perturbed = self.perturbed.clone().filter(|_| policy != NonFinite::BaseStep);
        let fine = match (self.gradient.clone(), perturbed) {
            (Some(gradient), Some(perturbed)) => Some(gradient.bool_and(perturbed)),
            (one, other) => one.or(other),
        };
        fine.map(Tensor::bool_not)
    }

    /// Whether `g` stands in for `g~`, where that is possible.
    pub(crate) fn falls_back(&self, policy: NonFinite) -> Option<DeviceBool> {
        let perturbed = self.perturbed.clone().filter(|_| policy == NonFinite::BaseStep);
        perturbed.map(Tensor::bool_not)
    }
}

/// Whether all elements of all tensors are finite, if the policy wants to know.
pub(crate) fn check_finite(
    policy: NonFinite,
    tensors: impl Iterator<Item = Tensor<1>>,
) -> Option<DeviceBool> {
    let filled = tensors.filter(|tensor| tensor.dims()[0] > 0);
    let all = |tensor: Tensor<1>| tensor.is_finite().all();
    policy.looks().then(|| filled.map(all).reduce(Tensor::bool_and)).flatten()
}

/// `fact`, and that these norms are finite, if there is a fact. Finite elements may have a norm beyond their
/// type.
pub(super) fn check_norms<'a>(
    flag: Option<DeviceBool>,
    norms: impl Iterator<Item = &'a Tensor<1>>,
) -> Option<DeviceBool> {
    let finite = norms.map(|norm| norm.clone().is_finite());
    flag.map(|flag| finite.fold(flag, Tensor::bool_and))
}

/// `old` where `fact` is true, else `new`.
pub(crate) fn keep_where(flag: &Option<DeviceBool>, new: Tensor<1>, old: Tensor<1>) -> Tensor<1> {
    match flag {
        Some(flag) => {
            let mask = flag.clone().expand(new.shape());
            new.mask_where(mask, old)
        }
        None => new,
    }
}

/// The state after a step, or before it. What a skipped first step makes is never read.
pub(crate) fn keep_state_where(
    flag: &Option<DeviceBool>,
    new: State,
    old: Option<Vec<Tensor<1>>>,
) -> State {
    let Some(old) = old.filter(|_| flag.is_some()) else { return new };
    let tensors = new.tensors.into_iter().zip(old);
    State { tensors: tensors.map(|(new, old)| keep_where(flag, new, old)).collect(), ..new }
}
