//! Kinds of tensors. The tensors of one kind have the same parameter group, learning rate and step count, and
//! share a row of constants.

use super::constants::kind_uniforms;
use super::error::EngineError;
use super::plan::TensorRow;
use super::record::Constants;
use super::slices::{Columns, Slice};
use super::step::BlendSource;
use crate::layout::SCOPES;
use crate::method::{Hyperparameters, InGroup, MAX_OWN_NORMS, validate_lr};

/// Learning rates of a step: one for all tensors, or one for each tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rates<'a> {
    /// One rate for all tensors.
    Same(f64),
    /// One rate for each tensor, in the order of the tensors.
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
    /// Checks that every rate is a finite `f32`, and that there is one rate or one for each tensor.
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

// `Norms` has a field for the global norm and for each group's own norm.
const _: () = assert!(SCOPES > MAX_OWN_NORMS);

/// The properties that the tensors of one kind share.
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

/// The kinds of a phase's tensors.
#[derive(Debug, Default)]
pub(crate) struct Kinds {
    /// The kind of each tensor, as an index into `found`.
    of: Vec<usize>,
    found: Vec<(KindKey, InGroup)>,
}

impl Kinds {
    /// Sorts tensors into kinds by group, step count and learning rate. `rates` must have been
    /// [checked](Rates::check).
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

    /// Sorts tensors into kinds by group only, for a phase that takes no base step.
    pub(crate) fn of_groups(
        hyper: &Hyperparameters,
        groups: impl ExactSizeIterator<Item = usize>,
    ) -> Result<Self, EngineError> {
        Self::of_steps(hyper, groups.map(|group| (group, 1)), Rates::Same(0.0))
    }

    /// Returns the plan's row for the tensor at index `tensor`.
    pub(crate) fn row<'a>(&self, tensor: usize, len: u64, columns: Columns<'a>) -> TensorRow<'a> {
        let kind = self.of[tensor];
        let InGroup { scope, adaptive, perturbed, .. } = self.found[kind].1;
        let scope = perturbed.then_some(scope);
        TensorRow { kind, len, scope, adaptive: adaptive && perturbed, columns }
    }

    /// Returns whether the ascent perturbs the tensor at index `tensor`.
    pub(crate) fn perturbs(&self, tensor: usize) -> bool {
        self.found[self.of[tensor]].1.perturbed
    }

    /// Computes the table of constants, one row for each kind.
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

/// Checks that each tensor has `expected` states and a step count of at least 1.
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

/// Checks that exactly the perturbed tensors have a partner.
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
