//! Sorts tensors into kinds: those of one parameter group, learning rate and count of steps share a row
//! of constants.

use super::constants::kind_uniforms;
use super::error::EngineError;
use super::plan::TensorRow;
use super::record::Constants;
use super::slices::{Columns, Slice};
use super::step::BlendSource;
use crate::layout::SCOPES;
use crate::method::{Hyperparameters, InGroup, MAX_OWN_NORMS, validate_lr};

/// Learning rates of a step: one for all tensors, or one for each, in their order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rates<'a> {
    /// The same for all.
    Same(f64),
    /// Each its own.
    Each(&'a [f64]),
}

impl From<f64> for Rates<'_> {
    fn from(rate: f64) -> Self {
        Self::Same(rate)
    }
}

impl<'a> From<&'a [f64]> for Rates<'a> {
    fn from(rates: &'a [f64]) -> Self {
        Self::Each(rates)
    }
}

impl Rates<'_> {
    /// Refuses rates that are no numbers, and too many or too few of them.
    pub(crate) fn check(&self, tensors: usize) -> Result<(), EngineError> {
        match self {
            Self::Same(rate) => Ok(validate_lr(*rate)?),
            Self::Each(rates) if rates.len() != tensors => {
                Err(EngineError::RateCount { rates: rates.len(), tensors })
            }
            Self::Each(rates) => Ok(rates.iter().try_for_each(|rate| validate_lr(*rate))?),
        }
    }

    fn of(&self, tensor: usize) -> f64 {
        match self {
            Self::Same(rate) => *rate,
            Self::Each(rates) => rates.get(tensor).copied().unwrap_or(f64::NAN),
        }
    }
}

/// Every norm that the method allows has its place, the global one too.
const _: () = assert!(SCOPES > MAX_OWN_NORMS);

/// What tells kinds apart.
#[derive(Clone, Copy, Debug)]
struct KindKey {
    group: usize,
    step: u64,
    lr: f64,
}

impl KindKey {
    fn same(&self, other: &Self) -> bool {
        (self.group, self.step) == (other.group, other.step)
            && self.lr.to_bits() == other.lr.to_bits()
    }
}

/// Kinds of the tensors of a half of a step.
#[derive(Debug, Default)]
pub(crate) struct Kinds {
    /// Of each tensor.
    of: Vec<usize>,
    found: Vec<(KindKey, InGroup)>,
}

impl Kinds {
    /// By group, step and rate. The half's rates were checked.
    pub(crate) fn of_steps(
        hyper: &Hyperparameters,
        tensors: impl ExactSizeIterator<Item = (usize, u64)>,
        rates: Rates<'_>,
    ) -> Result<Self, EngineError> {
        let mut kinds = Self { of: Vec::with_capacity(tensors.len()), found: Vec::new() };
        for (tensor, (group, step)) in tensors.enumerate() {
            let key = KindKey { group, step, lr: rates.of(tensor) };
            let known = kinds.found.iter().position(|(known, _)| known.same(&key));
            let kind = match known {
                Some(kind) => kind,
                None => {
                    let groups = hyper.groups.len();
                    let refused = EngineError::Group { tensor, group, groups };
                    kinds.found.push((key, hyper.in_group(group).ok_or(refused)?));
                    kinds.found.len() - 1
                }
            };
            kinds.of.push(kind);
        }
        Ok(kinds)
    }

    /// By group alone, for a half that takes no base step.
    pub(crate) fn of_groups(
        hyper: &Hyperparameters,
        groups: impl ExactSizeIterator<Item = usize>,
    ) -> Result<Self, EngineError> {
        Self::of_steps(hyper, groups.map(|group| (group, 1)), Rates::Same(0.0))
    }

    /// What a plan needs to know of tensor `tensor`.
    pub(crate) fn row<'a>(&self, tensor: usize, len: u64, columns: Columns<'a>) -> TensorRow<'a> {
        let kind = self.of[tensor];
        let InGroup { scope, adaptive, perturbed, .. } = self.found[kind].1;
        let scope = perturbed.then_some(scope);
        TensorRow { kind, len, scope, adaptive: adaptive && perturbed, columns }
    }

    /// Whether the ascent moves tensor `tensor`.
    pub(crate) fn perturbs(&self, tensor: usize) -> bool {
        self.found[self.of[tensor]].1.perturbed
    }

    /// The table of constants.
    pub(crate) fn constants<'a>(
        &self,
        hyper: &Hyperparameters,
        blend: BlendSource<'a>,
    ) -> Constants<'a> {
        let kinds = self.found.iter().map(|(key, group)| {
            kind_uniforms(hyper, group, key.lr * group.lr_factor, key.step, blend)
        });
        Constants { kinds: kinds.collect(), blend }
    }
}

/// Refuses a tensor with the wrong number of states, or at step 0.
pub(crate) fn check_states<'a>(
    tensors: impl Iterator<Item = (&'a [Slice], u64)>,
    expected: usize,
) -> Result<(), EngineError> {
    for (tensor, (state, step)) in tensors.enumerate() {
        if state.len() != expected {
            return Err(EngineError::StateCount { tensor, found: state.len(), expected });
        }
        if step == 0 {
            return Err(EngineError::StepZero { tensor });
        }
    }
    Ok(())
}

/// Refuses a tensor that is perturbed and has no place for it, or the other way round.
pub(crate) fn check_partners(
    kinds: &Kinds,
    partners: impl Iterator<Item = bool>,
) -> Result<(), EngineError> {
    for (tensor, given) in partners.enumerate() {
        if given != kinds.perturbs(tensor) {
            return Err(EngineError::Partner { tensor, given });
        }
    }
    Ok(())
}
