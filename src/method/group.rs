//! Parameter groups, which override hyperparameters for some of the parameters.

use super::{
    Base, Blend, Coupling, Hyperparameters, InvalidHyperparameter, Moments, below_one, check,
    non_negative,
};

/// The norm that `e_w` is divided by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NormScope {
    /// The norm over all perturbed parameters whose group does not use [`Own`](Self::Own).
    #[default]
    Global,
    /// The norm over the group's parameters.
    Own,
}

/// The settings of a parameter group that override [`Hyperparameters`]. The default overrides nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Group {
    /// Factor on the learning rate, at least 0.
    pub lr_factor: f64,
    /// Weight decay; `None` takes the base optimizer's.
    pub weight_decay: Option<f64>,
    /// Radius of the perturbation; `None` takes [`Hyperparameters::rho`].
    pub rho: Option<f64>,
    /// Weight of the sharpness; `None` takes [`Hyperparameters::gamma`].
    pub gamma: Option<f64>,
    /// Whether the perturbation is adaptive; `None` takes [`Hyperparameters::adaptive`].
    pub adaptive: Option<bool>,
    /// Whether the ascent perturbs these parameters. If not, the norms that `e_w` is divided by exclude them, but
    /// their step still uses both gradients.
    pub perturbed: bool,
    /// The norm that `e_w` is divided by.
    pub norm: NormScope,
}

impl Default for Group {
    fn default() -> Self {
        Self {
            lr_factor: 1.0,
            weight_decay: None,
            rho: None,
            gamma: None,
            adaptive: None,
            perturbed: true,
            norm: NormScope::Global,
        }
    }
}

/// The resolved hyperparameters of one parameter group.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct InGroup {
    /// The base optimizer.
    pub base: Base,
    /// Factor on the learning rate.
    pub lr_factor: f64,
    /// Radius of the perturbation.
    pub rho: f64,
    /// Blend of the two gradients.
    pub blend: Blend,
    /// Whether the perturbation is adaptive.
    pub adaptive: bool,
    /// Whether the parameters are perturbed.
    pub perturbed: bool,
    /// Index of the norm that `e_w` is divided by: 0 for the global norm, then one for each group with
    /// [`NormScope::Own`], in the order of the groups.
    pub scope: usize,
}

/// Largest number of groups with [`NormScope::Own`]. The kernels store this many norms.
pub const MAX_OWN_NORMS: usize = 31;

impl Hyperparameters {
    /// Returns the resolved hyperparameters of group `group`: 0 for the parameters of no group, `k` for
    /// [`groups`](Self::groups)`[k - 1]`. Returns `None` if there is no such group.
    pub fn in_group(&self, group: usize) -> Option<InGroup> {
        let Some(place) = group.checked_sub(1) else {
            return Some(self.in_no_group());
        };
        let own = self.groups.get(place)?;
        let before = &self.groups[..place];
        let rank = 1 + before.iter().filter(|group| group.norm == NormScope::Own).count();
        Some(self.resolve(own, if own.norm == NormScope::Own { rank } else { 0 }))
    }

    /// Returns the hyperparameters of the parameters of no group.
    pub(crate) fn in_no_group(&self) -> InGroup {
        self.resolve(&Group::default(), 0)
    }

    fn resolve(&self, group: &Group, scope: usize) -> InGroup {
        InGroup {
            base: group.weight_decay.map_or(self.base, |decay| self.base.with_weight_decay(decay)),
            lr_factor: group.lr_factor,
            rho: group.rho.unwrap_or(self.rho),
            blend: Blend::new(self.coupling, group.gamma.unwrap_or(self.gamma)),
            adaptive: group.adaptive.unwrap_or(self.adaptive),
            perturbed: group.perturbed,
            scope,
        }
    }

    /// Returns the number of norms that perturbations are divided by: the global one and those of groups.
    pub fn scopes(&self) -> usize {
        1 + self.groups.iter().filter(|group| group.norm == NormScope::Own).count()
    }

    /// Returns whether groups differ in whether they are perturbed, in their norm or in `adaptive`. Differences
    /// in `rho` do not count.
    pub fn perturbs_unevenly(&self) -> bool {
        self.groups.iter().any(|group| {
            !group.perturbed
                || group.norm == NormScope::Own
                || group.adaptive.is_some_and(|adaptive| adaptive != self.adaptive)
        })
    }

    /// Returns whether every perturbation is divided by `||g||`, so that no other norm is needed.
    pub fn perturbs_by_gradient_norm(&self) -> bool {
        !self.adaptive && !self.perturbs_unevenly()
    }

    pub(super) fn validate_groups(&self) -> Result<(), InvalidHyperparameter> {
        for group in &self.groups {
            non_negative("lr_factor of a group", group.lr_factor)?;
            group.weight_decay.map_or(Ok(()), |v| non_negative("weight_decay of a group", v))?;
            group.rho.map_or(Ok(()), |v| non_negative("rho of a group", v))?;
            group.gamma.map_or(Ok(()), |v| below_one("gamma of a group", v))?;
        }
        let own = self.scopes() - 1;
        check("the number of groups with a norm of their own", own as f64, "at most 31", |_| {
            own <= MAX_OWN_NORMS
        })
    }
}

impl Base {
    /// Sets the weight decay.
    pub fn with_weight_decay(self, weight_decay: f64) -> Self {
        match self {
            Base::Sgd { momentum, .. } => Base::Sgd { momentum, weight_decay },
            Base::Adam(moments) => Base::Adam(Moments { weight_decay, ..moments }),
            Base::AdamW(moments) => Base::AdamW(Moments { weight_decay, ..moments }),
        }
    }
}

impl Blend {
    /// Creates the blend for a form of WSAM and `gamma`, with `alpha = gamma / (1 - gamma)`.
    pub fn new(coupling: Coupling, gamma: f64) -> Self {
        let alpha = gamma / (1.0 - gamma);
        match coupling {
            Coupling::Coupled => Blend { a: 1.0 - alpha, b: alpha, sharpness: 0.0 },
            Coupling::Decoupled => Blend { a: 1.0, b: 0.0, sharpness: alpha },
        }
    }

    /// Returns `Some(c)` if the blend is computed as `c g + b (g~ - g)`, and `None` if as `a g + b g~`.
    ///
    /// The difference form is used if the weights sum to 1 or have opposite signs. `a g` and `b g~` may then be
    /// much larger than their sum, so that their rounding errors would dominate it, while `g~ - g` is exact or
    /// nearly so. If a weight is zero, the direct form gives the other gradient exactly.
    pub(crate) fn by_difference(&self) -> Option<f64> {
        let Blend { a, b, .. } = *self;
        if a == 0.0 || b == 0.0 {
            return None;
        }
        let sum = a + b;
        // `1 - alpha` is rounded, so `(1 - alpha) + alpha` may differ from 1.
        if (sum - 1.0).abs() <= 2.0 * f64::EPSILON * a.abs().max(b.abs()) {
            return Some(1.0);
        }
        ((a < 0.0) != (b < 0.0)).then_some(sum)
    }
}
