//! Groups of parameters: what some of them do in their own way.

use super::{
    Base, Blend, Coupling, Hyperparameters, InvalidHyperparameter, Moments, below_one, check,
    non_negative,
};

/// Which norm `e_w` is divided by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NormScope {
    /// That of all perturbed parameters whose group has no norm of its own.
    #[default]
    Global,
    /// That of the group's own parameters.
    Own,
}

/// How a group of parameters departs from [`Hyperparameters`]. The default departs in nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Group {
    /// Factor on the learning rate, at least 0.
    pub lr_factor: f64,
    /// Weight decay, if not the base optimizer's.
    pub weight_decay: Option<f64>,
    /// Radius of the perturbation, if not the method's.
    pub rho: Option<f64>,
    /// Weight of the sharpness, if not the method's.
    pub gamma: Option<f64>,
    /// Whether the perturbation is adaptive, if not as the method says.
    pub adaptive: Option<bool>,
    /// Whether the ascent moves these parameters. If not, they count in no norm that `e_w` is divided
    /// by; their step still takes both gradients.
    pub perturbed: bool,
    /// Which norm `e_w` is divided by.
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

/// The method as the parameters of one group see it.
#[derive(Clone, Copy, Debug, PartialEq)]
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
    /// Whether there is one.
    pub perturbed: bool,
    /// Which of the norms `e_w` is divided by: 0 is the global one, then come those of the groups that
    /// have their own, in the order of the groups.
    pub scope: usize,
}

/// Groups with a norm of their own, at most: the kernels keep so many norms.
pub const MAX_OWN_NORMS: usize = 31;

impl Hyperparameters {
    /// The method as group `group` sees it: 0 stands for the parameters of no group, `k` for
    /// [`groups`](Self::groups)`[k - 1]`. `None` beyond them.
    pub fn in_group(&self, group: usize) -> Option<InGroup> {
        let Some(place) = group.checked_sub(1) else {
            return Some(self.in_no_group());
        };
        let own = self.groups.get(place)?;
        let before = &self.groups[..place];
        let rank = 1 + before.iter().filter(|group| group.norm == NormScope::Own).count();
        Some(self.resolve(own, if own.norm == NormScope::Own { rank } else { 0 }))
    }

    /// The method outside of groups.
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

    /// Norms that perturbations are divided by: the global one and those of groups.
    pub fn scopes(&self) -> usize {
        1 + self.groups.iter().filter(|group| group.norm == NormScope::Own).count()
    }

    /// Whether some parameters are perturbed in another way than others, beyond its radius.
    pub fn perturbs_unevenly(&self) -> bool {
        self.groups.iter().any(|group| {
            !group.perturbed
                || group.norm == NormScope::Own
                || group.adaptive.is_some_and(|adaptive| adaptive != self.adaptive)
        })
    }

    /// Whether every perturbation is divided by `||g||`, and no other norm is needed for it.
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
    /// The same optimizer with another weight decay.
    pub fn with_weight_decay(self, weight_decay: f64) -> Self {
        match self {
            Base::Sgd { momentum, .. } => Base::Sgd { momentum, weight_decay },
            Base::Adam(moments) => Base::Adam(Moments { weight_decay, ..moments }),
            Base::AdamW(moments) => Base::AdamW(Moments { weight_decay, ..moments }),
        }
    }
}

impl Blend {
    /// The blend of a form and a weight of the sharpness: `alpha = gamma / (1 - gamma)`.
    pub fn new(coupling: Coupling, gamma: f64) -> Self {
        let alpha = gamma / (1.0 - gamma);
        match coupling {
            Coupling::Coupled => Blend { a: 1.0 - alpha, b: alpha, sharpness: 0.0 },
            Coupling::Decoupled => Blend { a: 1.0, b: 0.0, sharpness: alpha },
        }
    }

    /// How `a g + b g~` is computed: `None` as it stands; with a number `c` as `c g + b (g~ - g)`.
    ///
    /// The second form is for weights that add up to 1 or have two signs. There `a g` and `b g~` may be
    /// many times their sum, and the roundings of both products would stay in it, where `g~ - g` is exact
    /// or nearly so. A zero weight keeps the first form, which then gives the other gradient exactly.
    pub(crate) fn by_difference(&self) -> Option<f64> {
        let Blend { a, b, .. } = *self;
        if a == 0.0 || b == 0.0 {
            return None;
        }
        let sum = a + b;
        // `1 - alpha` and `alpha` add up to 1 but for the rounding of the first.
        if (sum - 1.0).abs() <= 2.0 * f64::EPSILON * a.abs().max(b.abs()) {
            return Some(1.0);
        }
        ((a < 0.0) != (b < 0.0)).then_some(sum)
    }
}
