//! Parameter classes. The tensors of one class have the same parameter group, learning rate and step count, and
//! share a row of constants.

use super::constants::{Constants, class_uniforms};
use super::error::EngineError;
use super::method_constants::{OfTensors, PhaseKind};
use super::options::{BlendSource, Rates};
use super::rows::TensorRow;
use super::slice::Columns;
use crate::layout::SCOPES;
use crate::method::{Hyperparameters, InGroup, MAX_OWN_NORMS};

// `Norms` has a field for the global norm and for each group's own norm.
const _: () = assert!(SCOPES > MAX_OWN_NORMS);

/// The properties that the tensors of one class share.
#[derive(Clone, Copy, Debug)]
struct ClassKey {
    group: usize,
    step: u64,
    lr: f64,
    /// Whether a step has written the method's state.
    is_set: bool,
}

impl ClassKey {
    fn same(&self, other: &Self) -> bool {
        (self.group, self.step, self.is_set) == (other.group, other.step, other.is_set)
            && self.lr.to_bits() == other.lr.to_bits()
    }
}

/// The classes of a phase's tensors.
#[derive(Debug, Default)]
pub(crate) struct ParamClasses {
    /// The class of each tensor, as an index into `found`.
    of: Vec<usize>,
    found: Vec<(ClassKey, InGroup)>,
}

impl ParamClasses {
    /// Sorts tensors, given as group, step count and whether the method's state is set, into classes by these and by the
    /// learning rate. `rates` must have been [checked](Rates::check).
    pub(crate) fn new(
        hyper: &Hyperparameters,
        tensors: impl ExactSizeIterator<Item = (usize, u64, bool)>,
        rates: Rates<'_>,
    ) -> Result<Self, EngineError> {
        let mut classes = Self { of: Vec::with_capacity(tensors.len()), found: Vec::new() };
        for (tensor, (group, step, is_set)) in tensors.enumerate() {
            let key = ClassKey { group, step, lr: rates.of(tensor), is_set };
            let known = classes.found.iter().position(|(known, _)| known.same(&key));
            let class = match known {
                Some(class) => class,
                None => {
                    let groups = hyper.groups.len();
                    let refused = EngineError::Group { tensor, group, groups };
                    classes.found.push((key, hyper.in_group(group).ok_or(refused)?));
                    classes.found.len() - 1
                }
            };
            classes.of.push(class);
        }
        Ok(classes)
    }

    /// Returns the plan's row for the tensor at index `tensor`.
    pub(crate) fn row<'a>(&self, tensor: usize, len: u64, columns: Columns<'a>) -> TensorRow<'a> {
        let class = self.of[tensor];
        let InGroup { scope, adaptive, perturbed, .. } = self.found[class].1;
        let scope = perturbed.then_some(scope);
        TensorRow { param_class: class, len, scope, adaptive: adaptive && perturbed, columns }
    }

    /// Returns whether the ascent perturbs the tensor at index `tensor`.
    pub(crate) fn perturbs(&self, tensor: usize) -> bool {
        self.found[self.of[tensor]].1.perturbed
    }

    /// Returns the same classes at another learning rate, `steps` steps later, with these hyperparameters.
    ///
    /// # Errors
    ///
    /// [`EngineError::Prepared`] if a plan over these classes does not suit the hyperparameters.
    pub(crate) fn at(
        &self,
        hyper: &Hyperparameters,
        lr: f64,
        steps: u64,
    ) -> Result<Self, EngineError> {
        let at = |(key, before): &(ClassKey, InGroup)| {
            let group = hyper.in_group(key.group)?;
            let plan = |group: &InGroup| (group.scope, group.adaptive, group.perturbed);
            let step = key.step.saturating_add(steps);
            (plan(before) == plan(&group)).then_some((ClassKey { step, lr, ..*key }, group))
        };
        let found: Option<Vec<_>> = self.found.iter().map(at).collect();
        Ok(Self { of: Vec::new(), found: found.ok_or(EngineError::Prepared)? })
    }

    /// Computes the table of constants, one row for each class.
    pub(crate) fn constants<'a>(
        &self,
        hyper: &Hyperparameters,
        blend: BlendSource<'a>,
        kind: PhaseKind,
    ) -> Constants<'a> {
        let classes = self.found.iter().map(|(key, group)| {
            let lr = key.lr * group.lr_factor;
            let class = class_uniforms(hyper, group, lr, key.step, blend);
            let of_tensors = OfTensors { group, step: key.step, is_set: key.is_set };
            kind.constants(hyper, of_tensors, class)
        });
        Constants { classes: classes.collect(), blend }
    }
}
