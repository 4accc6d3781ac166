//! Errors of the oracle.

/// Error of a call to the oracle: the tensors do not match, or the call does not fit the step.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReferenceError {
    /// The number of gradients differs from the number of weights.
    #[error("{actual} gradient tensors were given for {expected} weight tensors")]
    TensorCount {
        /// Number of weight tensors.
        expected: usize,
        /// Number of gradient tensors.
        actual: usize,
    },
    /// A gradient's length differs from its weight's.
    #[error("gradient tensor {tensor} has {actual} elements, but its weight has {expected}")]
    TensorLength {
        /// Index of the tensor.
        tensor: usize,
        /// Number of elements of the weight.
        expected: usize,
        /// Number of elements of the gradient.
        actual: usize,
    },
    /// A tensor's group is not among the hyperparameters' groups.
    #[error("tensor {tensor} has group {group}, but the hyperparameters define {groups} groups")]
    Group {
        /// Index of the tensor.
        tensor: usize,
        /// The tensor's group, counted from 1.
        group: usize,
        /// Number of groups in the hyperparameters.
        groups: usize,
    },
    /// A descent without an ascent before it. Each descent needs a new ascent.
    #[error("descent was called without an ascent before it: call ascent before each descent")]
    DescentBeforeAscent,
    /// An ascent, where the method's step takes one gradient.
    #[error("ascent was called, but this step of {method} takes one gradient: call one_pass_step")]
    OnePass {
        /// Name of the method.
        method: &'static str,
    },
    /// A step over one gradient, where the method's step takes two.
    #[error(
        "one_pass_step was called, but this step of {method} takes two gradients: call ascent and \
         descent"
    )]
    TwoPasses {
        /// Name of the method.
        method: &'static str,
    },
}
