//! Options that cannot be combined.

use super::{Hyperparameters, Method, PassRule};

/// Error for two options that make no sense together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{first} cannot be combined with {second}: {reason}")]
#[non_exhaustive]
pub struct IncompatibleOptions {
    /// The first option, as a user knows it.
    pub first: &'static str,
    /// The second option.
    pub second: &'static str,
    /// Why the two cannot be combined, and what to do.
    pub reason: &'static str,
}

impl Hyperparameters {
    /// Checks that the method, the base optimizer and the groups can be combined.
    ///
    /// [`validate`](Self::validate) checks each constant by itself. Call both.
    ///
    /// # Errors
    ///
    /// The first pair of options that cannot be combined.
    pub fn validate_pairs(&self) -> Result<(), IncompatibleOptions> {
        let first = self.method.name();
        if self.method == Method::MomentumSam {
            let adaptive = |own: Option<bool>| own.unwrap_or(self.adaptive);
            let of_groups = || self.groups.iter().any(|group| adaptive(group.adaptive));
            if self.base.momentum_state().is_none() {
                let reason = "it perturbs along the momentum buffer, which this base does not \
                              have: set a momentum";
                return refuse(first, "SGD without momentum", reason);
            }
            if self.adaptive || of_groups() {
                let reason = "its authors define no adaptive perturbation: set adaptive to false";
                return refuse(first, "adaptive", reason);
            }
        }
        if self.method != Method::Wsam && self.groups.iter().any(|group| group.gamma.is_some()) {
            let reason = "only WSAM weights the sharpness by gamma: leave it out";
            return refuse(first, "gamma of a group", reason);
        }
        Ok(())
    }
}

impl PassRule {
    /// Checks that `method` can be combined with this rule.
    ///
    /// # Errors
    ///
    /// Momentum-SAM has no second pass that a rule could save. LookSAM has its own rule, `k`.
    pub fn validate_pair(&self, method: &Method) -> Result<(), IncompatibleOptions> {
        let second = match self {
            Self::EveryStep => return Ok(()),
            Self::Interval(_) => "interval",
            Self::AeSam(_) => "AE-SAM's rule",
        };
        match method {
            Method::MomentumSam => {
                let reason = "its steps take one gradient: there is no second pass to save";
                refuse(method.name(), second, reason)
            }
            Method::LookSam { .. } => {
                let reason = "its k already says which steps have a second pass: set k alone";
                refuse(method.name(), second, reason)
            }
            Method::Wsam | Method::Gsam { .. } | Method::FriendlySam { .. } => Ok(()),
        }
    }
}

fn refuse(
    first: &'static str,
    second: &'static str,
    reason: &'static str,
) -> Result<(), IncompatibleOptions> {
    Err(IncompatibleOptions { first, second, reason })
}

#[cfg(test)]
mod tests {
    use super::super::{Base, Group, Moments, Momentum};
    use super::*;

    #[test]
    fn only_momentum_free_sgd_has_no_momentum_state() {
        let momentum = Momentum { momentum: 0.9, dampening: 0.0, nesterov: false };
        let moments = Moments {
            beta_1: 0.9,
            beta_2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.0,
            amsgrad: false,
        };
        let found = [
            Base::Sgd { momentum: None, weight_decay: 0.0 },
            Base::Sgd { momentum: Some(momentum), weight_decay: 0.0 },
            Base::Adam(moments),
            Base::AdamW(moments),
        ]
        .map(|base| base.momentum_state().map(|index| base.state_names()[index]));
        assert_eq!(found, [None, Some("momentum_buffer"), Some("exp_avg"), Some("exp_avg")]);
    }

    #[test]
    fn wsam_keeps_groups_with_a_gamma() {
        let base = Base::Sgd { momentum: None, weight_decay: 0.0 };
        let groups = vec![Group { gamma: Some(0.5), ..Group::default() }];
        let hyper = Hyperparameters { groups, ..Hyperparameters::new(base) };
        assert_eq!(hyper.validate_pairs(), Ok(()));
    }
}
