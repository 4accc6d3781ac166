//! The state tensor of a method.

use super::slice::Slice;

/// The tensor that a method keeps for each perturbed parameter beside the base optimizer's state, in `f32`
/// ([`Method::state_names`](crate::method::Method::state_names)).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MethodState {
    /// The method keeps none for this tensor.
    #[default]
    None,
    /// Memory whose content is ignored: no step has written it yet.
    ///
    /// After a step that was not skipped it is [`Set`](Self::Set). LookSAM also leaves it as it is in a step that the
    /// base optimizer took over because `g~` was not finite.
    Unset(Slice),
    /// The state that the last step wrote.
    Set(Slice),
}

impl MethodState {
    /// Returns the tensor.
    pub fn slice(&self) -> Option<&Slice> {
        match self {
            Self::None => None,
            Self::Unset(slice) | Self::Set(slice) => Some(slice),
        }
    }

    /// Returns whether a step has written the tensor.
    pub fn is_set(&self) -> bool {
        matches!(self, Self::Set(_))
    }
}
