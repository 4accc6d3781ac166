//! What the engine refuses, and why.

use super::slices::Format;
use crate::layout::column;
use crate::method::InvalidHyperparameter;

/// What a slice is to its tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The weights `w`.
    Weight,
    /// The gradient `g`.
    Grad,
    /// The perturbed gradient `g~`.
    GradPerturbed,
    /// The second weight buffer of an ascent: `w + e_w`, or the anchor to be saved.
    Partner,
    /// The weights a descent restores from, or what the second pass of a lean step ran on.
    Anchor,
    /// A state tensor of the base optimizer, by its place in `Base::state_names`.
    State(u32),
}

impl Role {
    /// What the slice in this column is.
    pub(crate) fn of_column(column: usize) -> Self {
        match column {
            column::WEIGHT => Self::Weight,
            column::ANCHOR => Self::Anchor,
            column::GRAD => Self::Grad,
            column::GRAD_PERTURBED => Self::GradPerturbed,
            column::PARTNER => Self::Partner,
            state => Self::State((state - column::STATE) as u32),
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Role::Weight => f.write_str("weight"),
            Role::Grad => f.write_str("grad"),
            Role::GradPerturbed => f.write_str("grad_perturbed"),
            Role::Partner => f.write_str("partner"),
            Role::Anchor => f.write_str("anchor"),
            Role::State(index) => write!(f, "state {index}"),
        }
    }
}

/// Why the engine could not be made, or refused to record a step.
///
/// A refused step recorded nothing: the encoder and all buffers are as they were. Tensors are
/// named by their place in the list that was handed in.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// A hyperparameter is outside its domain.
    #[error(transparent)]
    Hyperparameter(#[from] InvalidHyperparameter),
    /// The lengths of a tensor's slices differ.
    #[error("tensor {tensor}: {role} has {len} elements, but weight has {weight_len}")]
    Length {
        /// The tensor's place in the list.
        tensor: usize,
        /// The slice.
        role: Role,
        /// Its length in elements.
        len: u64,
        /// The weight's length in elements.
        weight_len: u64,
    },
    /// A slice does not start on an element.
    #[error(
        "tensor {tensor}: {role} starts at byte {offset}, which is not a multiple of {alignment}"
    )]
    Misaligned {
        /// The tensor's place in the list.
        tensor: usize,
        /// The slice.
        role: Role,
        /// Its offset in bytes.
        offset: u64,
        /// What it must be a multiple of.
        alignment: u64,
    },
    /// A slice's elements are not what its tensor's are.
    #[error("tensor {tensor}: {role} is {found:?}, but must be {expected:?}")]
    Format {
        /// The tensor's place in the list.
        tensor: usize,
        /// The slice.
        role: Role,
        /// What its elements are.
        found: Format,
        /// What they must be.
        expected: Format,
    },
    /// A slice reaches past its buffer.
    #[error("tensor {tensor}: {role} ends at byte {end}, but its buffer has {size} bytes")]
    OutOfBounds {
        /// The tensor's place in the list.
        tensor: usize,
        /// The slice.
        role: Role,
        /// Where it would end, in bytes: in half precision, the end of its last vector.
        end: u64,
        /// The buffer's size in bytes.
        size: u64,
    },
    /// A slice lies in a buffer that was created without `STORAGE`.
    #[error("tensor {tensor}: {role} is in a buffer without BufferUsages::STORAGE ({usage:?})")]
    NotStorage {
        /// The tensor's place in the list.
        tensor: usize,
        /// The slice.
        role: Role,
        /// The usages the buffer has.
        usage: wgpu::BufferUsages,
    },
    /// Two slices overlap and at least one of them is written.
    #[error(
        "tensor {tensor}: {role} overlaps the {other_role} of tensor {other_tensor}, \
         and one of them is written"
    )]
    Overlap {
        /// The tensor's place in the list.
        tensor: usize,
        /// The slice.
        role: Role,
        /// The other tensor's place in the list.
        other_tensor: usize,
        /// The other slice.
        other_role: Role,
    },
    /// A tensor has the wrong number of state slices.
    #[error("tensor {tensor} has {found} state slices, but the base optimizer keeps {expected}")]
    StateCount {
        /// The tensor's place in the list.
        tensor: usize,
        /// State slices handed in.
        found: usize,
        /// State tensors of the base optimizer.
        expected: usize,
    },
    /// A tensor is of a group that the hyperparameters do not have.
    #[error("tensor {tensor} is of group {group}, but the hyperparameters have {groups}")]
    Group {
        /// The tensor's place in the list.
        tensor: usize,
        /// Its group, counted from 1.
        group: usize,
        /// Groups there are.
        groups: usize,
    },
    /// A perturbed tensor has no partner, or one that is not perturbed has one.
    #[error("tensor {tensor}: its group is {}perturbed, but it has {} partner",
        if *given { "not " } else { "" }, if *given { "a" } else { "no" })]
    Partner {
        /// The tensor's place in the list.
        tensor: usize,
        /// Whether it has a partner.
        given: bool,
    },
    /// Learning rates for another number of tensors.
    #[error("{rates} learning rates were given for {tensors} tensors")]
    RateCount {
        /// Learning rates.
        rates: usize,
        /// Tensors.
        tensors: usize,
    },
    /// Steps count from 1.
    #[error("tensor {tensor}: step is 0, but the first step is 1")]
    StepZero {
        /// The tensor's place in the list.
        tensor: usize,
    },
    /// The descent was given another number of tensors than its ascent.
    #[error("the descent has {descent} tensors, but its ascent had {ascent}")]
    TensorCount {
        /// Tensors of the ascent.
        ascent: usize,
        /// Tensors of the descent.
        descent: usize,
    },
    /// Lean mode was asked for with the coupled form, whose base step needs `g~`.
    #[error("lean mode takes the base step before g~ is known, so it needs the decoupled form")]
    LeanCoupled,
    /// The blend buffer cannot be bound.
    #[error(
        "the blend buffer needs BufferUsages::UNIFORM and {need} bytes, but has {usage:?} and {size}"
    )]
    BlendBuffer {
        /// Usages it has.
        usage: wgpu::BufferUsages,
        /// Bytes it has.
        size: u64,
        /// Bytes needed.
        need: u64,
    },
    /// The buffer of a step's scale cannot be copied from.
    #[error(
        "the scale's buffer needs BufferUsages::COPY_SRC and 4 bytes, but has {usage:?} and {size}"
    )]
    ScaleBuffer {
        /// Usages it has.
        usage: wgpu::BufferUsages,
        /// Bytes it has.
        size: u64,
    },
    /// A tuning is outside its domain.
    #[error("the tuning's {name} is {value}, but it must be {expected}")]
    Tuning {
        /// The field.
        name: &'static str,
        /// Its value.
        value: u64,
        /// The domain, in words that follow "must be".
        expected: String,
    },
    /// The device grants less than the kernels need.
    #[error("the device limit {name} is {granted}, but the kernels need {needed}")]
    Limit {
        /// The limit's name in `wgpu::Limits`.
        name: &'static str,
        /// What the device grants.
        granted: u64,
        /// What the kernels need.
        needed: u64,
    },
    /// The device was opened without a feature that was asked for.
    #[error("the device was opened without the feature {name}")]
    Feature {
        /// The feature's name in `wgpu::Features`.
        name: &'static str,
    },
    /// No adapter, or none that grants a device.
    #[error("no usable GPU adapter: {reason}")]
    NoAdapter {
        /// What wgpu said.
        reason: String,
    },
    /// A kernel could not be compiled on this device.
    #[error("the kernel {kernel} could not be created: {reason}")]
    Pipeline {
        /// The specialisation.
        kernel: String,
        /// What wgpu said.
        reason: String,
    },
    /// The device has no memory left for something the engine needs.
    #[error("out of memory for {what}: {reason}")]
    OutOfMemory {
        /// What could not be allocated.
        what: String,
        /// What wgpu said.
        reason: String,
    },
    /// The device is lost: nothing can be done with it any more.
    #[error("the device is lost: {reason}")]
    Lost {
        /// What wgpu said.
        reason: String,
    },
    /// A slice's buffer belongs to another device.
    #[error("tensor {tensor}: {role} is in a buffer of another device")]
    Foreign {
        /// The tensor's place in the list.
        tensor: usize,
        /// The slice.
        role: Role,
    },
    /// Norms could not be read back.
    #[error("the norms could not be read back: {reason}")]
    Readback {
        /// What wgpu said.
        reason: String,
    },
}
