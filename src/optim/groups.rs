//! Parameter groups: Burn's matchers with the settings for each group.

use super::error::WsamError;
use super::walk::for_each_param;
use crate::method::{Group, NormScope};
use burn::config::Config;
use burn::module::{Module, ParamGroup, ParamId};

/// A group of parameters, with settings that override [`WsamConfig`](crate::WsamConfig). Unset options keep the
/// configuration's value. If several groups match a parameter, the last one applies, as in Burn's optimizers.
///
/// ```
/// use burn::module::ParamGroup;
/// use burn_wsam::{AdamWBaseConfig, GroupConfig, WsamConfig};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // Biases and normalisation layers: neither decayed nor perturbed.
/// let small = ParamGroup::from_any_predicates(vec!["bias", "norm"]);
/// let config = WsamConfig::adamw(AdamWBaseConfig::new()).with_groups(vec![
///     GroupConfig::new(small).with_weight_decay(Some(0.0)).with_perturbed(false),
///     GroupConfig::new(ParamGroup::from_predicate("head")).with_lr_factor(10.0),
/// ]);
/// # assert_eq!(config.hyperparameters()?.groups.len(), 2);
/// # Ok(())
/// # }
/// ```
#[derive(Config, Debug)]
#[non_exhaustive]
pub struct GroupConfig {
    /// Matches the parameters of the group.
    pub params: ParamGroup,
    /// Factor on the learning rate, at least 0.
    #[config(default = 1.0)]
    pub lr_factor: f64,
    /// Weight decay.
    pub weight_decay: Option<f64>,
    /// Radius of the perturbation.
    pub rho: Option<f64>,
    /// Weight of the sharpness.
    pub gamma: Option<f64>,
    /// Whether the perturbation is in proportion to the squared weights.
    pub adaptive: Option<bool>,
    /// Whether the ascent perturbs these parameters. If not, the norm that perturbations are divided by excludes
    /// them; their step still uses both gradients.
    #[config(default = true)]
    pub perturbed: bool,
    /// Divide the perturbation by the norm over this group, instead of the norm over all parameters without an
    /// own norm.
    #[config(default = false)]
    pub own_norm: bool,
}

impl GroupConfig {
    /// Returns an error for settings that belong in a Burn optimizer, if that is the base.
    pub(crate) fn check_with_burn_optimizer(&self) -> Result<(), WsamError> {
        let unsupported = |what| Err(WsamError::NotWithBurnOptimizer { what });
        if self.lr_factor != 1.0 {
            return unsupported("the learning-rate factor of a group");
        }
        if self.weight_decay.is_some() {
            return unsupported("the weight decay of a group");
        }
        Ok(())
    }

    pub(crate) fn settings(&self) -> Group {
        Group {
            lr_factor: self.lr_factor,
            weight_decay: self.weight_decay,
            rho: self.rho,
            gamma: self.gamma,
            adaptive: self.adaptive,
            perturbed: self.perturbed,
            norm: if self.own_norm { NormScope::Own } else { NormScope::Global },
        }
    }
}

/// Returns the group of a parameter: 0 if no group matches, otherwise its index plus 1.
pub(crate) fn group_of(groups: &[ParamGroup], id: ParamId, path: &str) -> usize {
    let last = groups.iter().rposition(|group| group.matches(&id, Some(path)));
    last.map_or(0, |place| place + 1)
}

/// Returns an error for a group that matches no parameter of the model. `taken` are the groups of the step's
/// parameters; the model is visited only if a group is missing among them.
pub(crate) fn check_groups<M: Module>(
    groups: &[ParamGroup],
    model: &M,
    taken: impl Iterator<Item = usize> + Clone,
) -> Result<(), WsamError> {
    let is_missing = |place: &usize| !taken.clone().any(|group| group == place + 1);
    let mut missing: Vec<usize> = (0..groups.len()).filter(is_missing).collect();
    if !missing.is_empty() {
        for_each_param(model, |param, path| {
            missing.retain(|place| !groups[*place].matches(&param.id(), Some(path.as_str())));
        });
    }
    match missing.first() {
        Some(group) => Err(WsamError::EmptyGroup { group: *group }),
        None => Ok(()),
    }
}
