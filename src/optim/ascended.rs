//! The model between the two phases of a step.

use super::backend::{AscentHandle, LeanAscentHandle};
use burn::module::Module;

/// A model at its perturbed weights `w + e_w`, between [`Wsam::ascend`](crate::Wsam::ascend) and
/// [`Wsam::descend`](crate::Wsam::descend).
///
/// [`model`](Self::model) lends the perturbed model for the second forward pass. This is not a module itself, so it
/// cannot be stepped or saved as one.
///
/// ```compile_fail
/// # use burn::{module::Module, nn::Linear, optim::GradientsParams};
/// fn stepped_twice(
///     optim: &mut burn_wsam::Wsam,
///     ascended: burn_wsam::Ascended<Linear>,
///     grads: GradientsParams,
/// ) {
///     let _ = optim.ascend(ascended, grads); // not a module
/// }
/// ```
///
/// ```compile_fail
/// # use burn::{module::Module, nn::Linear};
/// fn validated(ascended: burn_wsam::Ascended<Linear>) -> Linear {
///     ascended.valid() // not a module
/// }
/// ```
///
/// ```compile_fail
/// # use burn::{module::Module, nn::Linear};
/// fn saved(ascended: burn_wsam::Ascended<Linear>) {
///     let _ = ascended.save_file("model.bpk"); // not a module
/// }
/// ```
///
/// ```compile_fail
/// # use burn::{module::Module, nn::Linear};
/// fn copied(ascended: burn_wsam::Ascended<Linear>) -> burn_wsam::Ascended<Linear> {
///     ascended.clone() // a step is finished once
/// }
/// ```
#[must_use = "the step is not finished; pass this to Wsam::descend, or get the model back with restore"]
pub struct Ascended<M> {
    /// The model for the second pass; `None` if it is `anchor`, whose weights are perturbed.
    pub(crate) perturbed: Option<M>,
    /// The model that the descent steps. Its weights are perturbed if the ascent was in place.
    pub(crate) anchor: M,
    pub(crate) ascent_state: AscentHandle,
    pub(crate) optimizer: u64,
    pub(crate) loss_scale: f64,
}

/// A model at its perturbed weights in lean mode, between
/// [`Wsam::lean_ascend`](crate::Wsam::lean_ascend) and
/// [`Wsam::lean_descend`](crate::Wsam::lean_descend).
///
/// The base optimizer has stepped already and `w` is freed, so `w` cannot be restored.
///
/// ```compile_fail
/// # use burn::nn::Linear;
/// fn restored(ascended: burn_wsam::LeanAscended<Linear>) -> Linear {
///     ascended.restore() // the weights are freed
/// }
/// ```
#[must_use = "the step is not finished; pass this to Wsam::lean_descend"]
pub struct LeanAscended<M> {
    /// The model for the second pass; `None` if it is `anchor`.
    pub(crate) perturbed: Option<M>,
    /// Model at the perturbed weights too, with the running statistics of the first pass.
    pub(crate) anchor: M,
    pub(crate) ascent_state: LeanAscentHandle,
    pub(crate) optimizer: u64,
    pub(crate) loss_scale: f64,
}

impl<M: Module> LeanAscended<M> {
    /// The model at `w + e_w`, for the second forward pass.
    pub fn model(&self) -> &M {
        self.perturbed.as_ref().unwrap_or(&self.anchor)
    }

    /// The factor for the loss of the second pass: [`Wsam::loss_scale`](crate::Wsam::loss_scale) as it was
    /// in the first phase of this step.
    pub fn loss_scale(&self) -> f64 {
        self.loss_scale
    }

    /// Abandons the step and returns the model at `w + e_w`, at most `rho` from `w`. The base optimizer's
    /// state has advanced by one step.
    pub fn abandon(self) -> M {
        self.anchor
    }
}

impl<M> std::fmt::Debug for LeanAscended<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeanAscended").finish_non_exhaustive()
    }
}

impl<M: Module> Ascended<M> {
    /// The model at `w + e_w`, for the second forward pass.
    pub fn model(&self) -> &M {
        self.perturbed.as_ref().unwrap_or(&self.anchor)
    }

    /// The factor for the loss of the second pass: [`Wsam::loss_scale`](crate::Wsam::loss_scale) as it was
    /// in the first phase of this step.
    pub fn loss_scale(&self) -> f64 {
        self.loss_scale
    }

    /// Returns the model as it was before the ascent, bit for bit.
    pub fn restore(self) -> M {
        self.ascent_state.restore((self.perturbed, self.anchor))
    }
}

impl<M> std::fmt::Debug for Ascended<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ascended").finish_non_exhaustive()
    }
}
