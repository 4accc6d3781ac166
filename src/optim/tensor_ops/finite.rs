//! Checks on the device whether gradients are finite.

use super::base::State;
use crate::method::NonFinite;
use crate::optim::error::WsamError;
use crate::optim::pending::{Finite, ReadBack};
use crate::optim::state::{read, read_scalar};
use burn::tensor::{Bool, Tensor};

/// One boolean on the device.
pub(crate) type DeviceBool = Tensor<1, Bool>;

/// Whether gradients are finite; `None` for gradients that were not checked.
#[derive(Clone, Debug, Default)]
pub(crate) struct FiniteFlags {
    pub(crate) gradient: Option<DeviceBool>,
    pub(crate) perturbed: Option<DeviceBool>,
    /// `||g||`, if it is read with the outcome.
    pub(crate) gradient_norm: Option<Tensor<1>>,
}

impl FiniteFlags {
    /// Reads the flags. Waits for the device.
    pub(crate) fn read(&self) -> Result<ReadBack, WsamError> {
        let one = |flag: &Option<DeviceBool>| -> Result<bool, WsamError> {
            Ok(match flag {
                Some(flag) => read(flag.clone().float())?.iter::<f64>().all(|value| value == 1.0),
                None => true,
            })
        };
        let finite = Finite { gradient: one(&self.gradient)?, perturbed: one(&self.perturbed)? };
        let gradient_norm = self.gradient_norm.as_ref().map(read_scalar).transpose()?;
        Ok(ReadBack { finite, gradient_norm })
    }

    /// Whether a step is skipped; `None` if gradients are not checked.
    pub(crate) fn skipped(&self, policy: NonFinite) -> Option<DeviceBool> {
        let perturbed = self.perturbed.clone().filter(|_| policy != NonFinite::BaseStep);
        let fine = match (self.gradient.clone(), perturbed) {
            (Some(gradient), Some(perturbed)) => Some(gradient.bool_and(perturbed)),
            (one, other) => one.or(other),
        };
        fine.map(Tensor::bool_not)
    }

    /// Whether the step uses `g` in place of `g~`; `None` if the policy is not `BaseStep`.
    pub(crate) fn falls_back(&self, policy: NonFinite) -> Option<DeviceBool> {
        let perturbed = self.perturbed.clone().filter(|_| policy == NonFinite::BaseStep);
        perturbed.map(Tensor::bool_not)
    }
}

/// Whether all elements of all tensors are finite; `None` if the policy does not check gradients.
pub(crate) fn check_finite(
    policy: NonFinite,
    tensors: impl Iterator<Item = Tensor<1>>,
) -> Option<DeviceBool> {
    let filled = tensors.filter(|tensor| tensor.dims()[0] > 0);
    let all = |tensor: Tensor<1>| tensor.is_finite().all();
    policy.checks_gradients().then(|| filled.map(all).reduce(Tensor::bool_and)).flatten()
}

/// Combines `flag` with whether these norms are finite. The norm of finite elements may overflow. `None` if the
/// policy does not check gradients.
pub(super) fn check_norms<'a>(
    policy: NonFinite,
    flag: Option<DeviceBool>,
    norms: impl Iterator<Item = &'a Tensor<1>>,
) -> Option<DeviceBool> {
    let finite = norms.map(|norm| norm.clone().is_finite());
    policy
        .checks_gradients()
        .then(|| flag.into_iter().chain(finite).reduce(Tensor::bool_and))
        .flatten()
}

/// Returns `old` where `flag` is true, otherwise `new`.
pub(crate) fn keep_where(
    flag: &Option<DeviceBool>,
    new: Tensor<1>,
    old: impl FnOnce() -> Tensor<1>,
) -> Tensor<1> {
    match flag {
        Some(flag) => {
            let mask = flag.clone().expand(new.shape());
            new.mask_where(mask, old())
        }
        None => new,
    }
}

/// Returns the tensors of `old` where `flag` is true, otherwise `new`. The state of a skipped first step is never
/// read, so it needs no `old`.
pub(super) fn keep_state_where(
    flag: &Option<DeviceBool>,
    new: State,
    old: Option<Vec<Tensor<1>>>,
) -> State {
    let Some(old) = old.filter(|_| flag.is_some()) else { return new };
    let tensors = new.tensors.into_iter().zip(old);
    State { tensors: tensors.map(|(new, old)| keep_where(flag, new, || old)).collect(), ..new }
}
