//! Unstable: this module exists for tests, and may change in any release.
//!
//! A sequential `f64` oracle of WSAM and its relatives, against which the other implementations are tested.
//!
//! A sequential `f64` oracle of the WSAM step, against which the other implementations are tested. It follows the papers and PyTorch's definitions, one tensor and one operation at a time, and shares only
//! [`Hyperparameters`] with the kernels. It favours clarity over speed; only tests call it.
//!
//! Symbols: `w` weights (also the anchor), `g` gradient at `w`, `g~` (`p` in the code) gradient at
//! `w + e_w`, `h` gradient that the base optimizer receives, `m` momentum or first moment, `v` second
//! moment. In [`Method`] and in the files of the methods `h` is the tensor that the method stores, and `v` an
//! orthogonal part.
//!
//! | Formula | Source |
//! | --- | --- |
//! | `e_w = rho g / (\|\|g\|\| + eps)` | Foret et al. 2021 (SAM), eq. 2 at p = 2; `eps` is from the WSAM authors' code |
//! | `e_w = rho w^2 g / (\|\| \|w\| g \|\| + eps)` | Kwon et al. 2021 (ASAM), element-wise operator |
//! | blend of `g` and `g~` | Yue et al. 2023 (WSAM), the coupled and the decoupled algorithm |
//! | `min(1, max_norm / (norm + 1e-6))` | PyTorch, `clip_grad_norm_` |
//! | SGD with momentum | PyTorch, `torch.optim.SGD` |
//! | Adam, AdamW, AMSGrad | PyTorch, `torch.optim.Adam`, `AdamW` (Kingma & Ba 2015, Loshchilov & Hutter 2019, Reddi et al. 2018) |
//! | GSAM, Friendly-SAM, LookSAM, Momentum-SAM | the papers and codes named at each [`Method`] |
//!
//! A step takes these calls:
//!
//! | [`Oracle::passes`] | Calls |
//! | --- | --- |
//! | [`Passes::Two`] | [`Oracle::ascent`] with `g`, [`Oracle::descent`] with `g~` |
//! | [`Passes::One`] | [`Oracle::one_pass_step`] with the gradient at [`Oracle::gradient_point`] |
//! | a [`PassRule`] says one | [`Oracle::base_step`] with `g` |

mod base;
mod error;
mod friendly_sam;
mod gsam;
mod look_sam;
mod momentum_sam;
mod steps;
mod vectors;

#[cfg(doc)]
use crate::method::{Base, Method, PassRule, Passes};
use crate::method::{Hyperparameters, InGroup};

pub use error::ReferenceError;
pub use vectors::norm;

/// Global norms seen by the last step, before any clipping.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Norms {
    /// Norm of `g`, set by [`Oracle::ascent`] and by steps over one gradient. Plain `||g||`, also when the
    /// perturbation is adaptive.
    pub gradient: f64,
    /// Norm of `g~`, set by [`Oracle::descent`].
    pub perturbed: f64,
}

/// The state of one training run under the oracle.
#[derive(Clone, Debug)]
pub struct Oracle {
    hyper: Hyperparameters,
    /// The resolved hyperparameters of each tensor's group.
    groups: Vec<InGroup>,
    /// The perturbed tensors of each norm scope.
    members: Vec<Vec<usize>>,
    weights: Vec<Vec<f64>>,
    /// `g` of the last ascent, until a descent uses it.
    pending: Option<Vec<Vec<f64>>>,
    /// Outer index: `base.state_names()`; inner index: tensor.
    state: Vec<Vec<Vec<f64>>>,
    /// Outer index: `method.state_names()`; inner index: tensor.
    method_state: Vec<Vec<Vec<f64>>>,
    /// Whether Friendly-SAM's average has been set.
    has_average: bool,
    /// Place in LookSAM's cycle.
    place: u32,
    step: i32,
    norms: Norms,
    f32_norms: bool,
}

impl Oracle {
    /// Creates an oracle that starts from `weights`, one flat vector for each tensor.
    ///
    /// The hyperparameters are not checked; see [`Hyperparameters::validate`] and
    /// [`Hyperparameters::validate_pairs`].
    pub fn new(hyper: Hyperparameters, weights: Vec<Vec<f64>>) -> Self {
        let groups = vec![hyper.in_no_group(); weights.len()];
        Self::start(hyper, weights, groups)
    }

    /// Creates an oracle that starts from `weights`. `groups` holds each tensor's group: 0 for no group, `k`
    /// for the `k`-th of the hyperparameters' groups.
    ///
    /// # Errors
    ///
    /// [`ReferenceError::Group`] for a group that is not defined, and [`ReferenceError::TensorCount`] if `groups`
    /// and `weights` differ in length.
    pub fn with_groups(
        hyper: Hyperparameters,
        weights: Vec<Vec<f64>>,
        groups: &[usize],
    ) -> Result<Self, ReferenceError> {
        if groups.len() != weights.len() {
            let (expected, actual) = (weights.len(), groups.len());
            return Err(ReferenceError::TensorCount { expected, actual });
        }
        let find = |(tensor, group): (usize, &usize)| {
            let refused =
                ReferenceError::Group { tensor, group: *group, groups: hyper.groups.len() };
            hyper.in_group(*group).ok_or(refused)
        };
        let found = groups.iter().enumerate().map(find).collect::<Result<_, _>>()?;
        Ok(Self::start(hyper, weights, found))
    }

    fn start(hyper: Hyperparameters, weights: Vec<Vec<f64>>, groups: Vec<InGroup>) -> Self {
        let members = (0..hyper.scopes())
            .map(|scope| {
                let inside = |tensor: &usize| {
                    let group: &InGroup = &groups[*tensor];
                    group.perturbed && group.scope == scope
                };
                (0..weights.len()).filter(inside).collect()
            })
            .collect();
        let zeros: Vec<Vec<f64>> = weights.iter().map(|w| vec![0.0; w.len()]).collect();
        let of_zeros = |names: &[&str]| names.iter().map(|_| zeros.clone()).collect();
        Self {
            state: of_zeros(hyper.base.state_names()),
            method_state: of_zeros(hyper.method.state_names()),
            hyper,
            groups,
            members,
            weights,
            pending: None,
            has_average: false,
            place: 0,
            step: 0,
            norms: Norms::default(),
            f32_norms: false,
        }
    }

    /// Treats norms beyond the range of `f32` as infinite, as the routes that compute in `f32` do. The
    /// perturbation is then zero, clipping gives zero, and the gradient counts as not finite.
    #[must_use]
    pub fn with_f32_norms(self) -> Self {
        Self { f32_norms: true, ..self }
    }

    fn norm(&self, tensors: &[Vec<f64>]) -> f64 {
        let norm = norm(tensors);
        let is_beyond = self.f32_norms && (norm as f32).is_infinite();
        if is_beyond { f64::INFINITY } else { norm }
    }

    /// Returns the tensors with these indices.
    fn of(&self, members: &[usize], tensors: &[Vec<f64>]) -> Vec<Vec<f64>> {
        members.iter().map(|tensor| tensors[*tensor].clone()).collect()
    }

    /// Returns the weights, without a perturbation.
    pub fn weights(&self) -> &[Vec<f64>] {
        &self.weights
    }

    /// Replaces the weights between steps, for example by weights rounded to half precision.
    ///
    /// # Errors
    ///
    /// The number or a length of the weights differs. On an error nothing changes.
    pub fn set_weights(&mut self, weights: Vec<Vec<f64>>) -> Result<(), ReferenceError> {
        self.check(&weights)?;
        self.weights = weights;
        Ok(())
    }

    /// Returns the state of the base optimizer, zeros before the first step. The outer index follows
    /// [`Base::state_names`], the inner index the tensors.
    pub fn state(&self) -> &[Vec<Vec<f64>>] {
        &self.state
    }

    /// Returns the tensors that the method stores, zeros before the first step. The outer index follows
    /// [`Method::state_names`], the inner index the tensors.
    pub fn method_state(&self) -> &[Vec<Vec<f64>>] {
        &self.method_state
    }

    /// Returns the norms of the last step, zeros before the first step.
    pub fn norms(&self) -> Norms {
        self.norms
    }

    fn check(&self, grads: &[Vec<f64>]) -> Result<(), ReferenceError> {
        if grads.len() != self.weights.len() {
            return Err(ReferenceError::TensorCount {
                expected: self.weights.len(),
                actual: grads.len(),
            });
        }
        for (tensor, (w, g)) in self.weights.iter().zip(grads).enumerate() {
            if g.len() != w.len() {
                return Err(ReferenceError::TensorLength {
                    tensor,
                    expected: w.len(),
                    actual: g.len(),
                });
            }
        }
        Ok(())
    }
}
