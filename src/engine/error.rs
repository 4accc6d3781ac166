//! The engine's errors.

use super::slice::{Format, Role};
use crate::method::{IncompatibleOptions, InvalidHyperparameter};

/// Error of creating an engine, recording a step or reading a result.
///
/// If recording fails the encoder and all buffers are unchanged. `tensor` is an index into the list of tensors
/// that the caller passed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// A hyperparameter is outside its domain.
    #[error(transparent)]
    Hyperparameter(#[from] InvalidHyperparameter),
    /// Two options that make no sense together.
    #[error(transparent)]
    Incompatible(#[from] IncompatibleOptions),
    /// The call does not support the method.
    #[error("{call} does not support {method}: {reason}")]
    Method {
        /// Name of the method.
        method: &'static str,
        /// Name of the function.
        call: &'static str,
        /// Why, and what to do.
        reason: &'static str,
    },
    /// A tensor needs a method state but has none, or has one that the method or the phase does not use.
    #[error(
        "tensor {tensor}: method_state is {}",
        if *given {
            format!("given, but this phase of {method} has none for it: leave MethodState::None")
        } else {
            format!("missing, but {method} keeps one for each perturbed tensor: set it")
        }
    )]
    MethodState {
        /// Index of the tensor.
        tensor: usize,
        /// Whether it was given.
        given: bool,
        /// Name of the method.
        method: &'static str,
    },
    /// The lengths of a tensor's slices differ.
    #[error("tensor {tensor}: {role} has {len} elements, but weight has {weight_len}")]
    Length {
        /// Index of the tensor.
        tensor: usize,
        /// Role of the slice.
        role: Role,
        /// The slice's length in elements.
        len: u64,
        /// The weight's length in elements.
        weight_len: u64,
    },
    /// A slice's offset is not a multiple of the alignment that its format needs.
    #[error(
        "tensor {tensor}: {role} starts at byte {offset}, which is not a multiple of {alignment}"
    )]
    Misaligned {
        /// Index of the tensor.
        tensor: usize,
        /// Role of the slice.
        role: Role,
        /// The slice's offset in bytes.
        offset: u64,
        /// The required alignment in bytes.
        alignment: u64,
    },
    /// A slice's format differs from its tensor's.
    #[error("tensor {tensor}: {role} is {found:?}, but must be {expected:?}")]
    Format {
        /// Index of the tensor.
        tensor: usize,
        /// Role of the slice.
        role: Role,
        /// Format of the slice.
        found: Format,
        /// Format that the slice must have.
        expected: Format,
    },
    /// A slice ends after the end of its buffer.
    #[error("tensor {tensor}: {role} ends at byte {end}, but its buffer has {size} bytes")]
    OutOfBounds {
        /// Index of the tensor.
        tensor: usize,
        /// Role of the slice.
        role: Role,
        /// End of the slice in bytes; in half precision, the end of its last vector of four.
        end: u64,
        /// The buffer's size in bytes.
        size: u64,
    },
    /// A slice's buffer was created without `BufferUsages::STORAGE`.
    #[error("tensor {tensor}: {role} is in a buffer without BufferUsages::STORAGE ({usage:?})")]
    NotStorage {
        /// Index of the tensor.
        tensor: usize,
        /// Role of the slice.
        role: Role,
        /// Usages of the buffer.
        usage: wgpu::BufferUsages,
    },
    /// Two slices overlap and at least one of them is written.
    #[error(
        "tensor {tensor}: {role} overlaps the {other_role} of tensor {other_tensor}, \
         and one of them is written"
    )]
    Overlap {
        /// Index of the tensor.
        tensor: usize,
        /// Role of the slice.
        role: Role,
        /// Index of the other tensor.
        other_tensor: usize,
        /// Role of the other slice.
        other_role: Role,
    },
    /// A tensor has the wrong number of state slices.
    #[error("tensor {tensor} has {found} state slices, but the base optimizer keeps {expected}")]
    StateCount {
        /// Index of the tensor.
        tensor: usize,
        /// Number of state slices given.
        found: usize,
        /// Number of state tensors of the base optimizer.
        expected: usize,
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
    /// A perturbed tensor has no slice for `w + e_w`, or a tensor that is not perturbed has one.
    #[error("tensor {tensor}: the place for w + e_w is {}, but its group is {}perturbed",
        if *given { "given" } else { "missing" }, if *given { "not " } else { "" })]
    Placement {
        /// Index of the tensor.
        tensor: usize,
        /// Whether the tensor says where `w + e_w` is written.
        given: bool,
    },
    /// An ascent is in place for some tensors and out of place for others.
    #[error(
        "tensor {tensor}: w + e_w is placed in another way than for the tensors before it: \
         place all of an ascent's tensors in place, or all out of place"
    )]
    MixedPlacement {
        /// Index of the first tensor that differs.
        tensor: usize,
    },
    /// A tensor in place has no anchor, or a tensor with master weights has one.
    #[error("tensor {tensor}: the anchor is {}", if *given {
        "given beside master weights, from which w is read: leave it out"
    } else {
        "missing: an ascent in place needs one, or master weights, to restore w from"
    })]
    Anchor {
        /// Index of the tensor.
        tensor: usize,
        /// Whether the tensor has an anchor.
        given: bool,
    },
    /// A tensor in single precision has master weights.
    #[error("tensor {tensor}: master weights are given, but the tensor is not in half precision")]
    Master {
        /// Index of the tensor.
        tensor: usize,
    },
    /// The number of learning rates differs from the number of tensors.
    #[error(
        "{rates} learning rates were given for {tensors} tensors: give one, or one for each tensor"
    )]
    RateCount {
        /// Number of learning rates.
        rates: usize,
        /// Number of tensors.
        tensors: usize,
    },
    /// A tensor's step count is 0.
    #[error("tensor {tensor}: step is 0, but steps are counted from 1")]
    StepZero {
        /// Index of the tensor.
        tensor: usize,
    },
    /// The descent's number of tensors differs from its ascent's.
    #[error("the descent has {descent} tensors, but its ascent had {ascent}")]
    TensorCount {
        /// Number of tensors of the ascent.
        ascent: usize,
        /// Number of tensors of the descent.
        descent: usize,
    },
    /// The hyperparameters of a prepared step need other kernels, norms or groups than those that it was prepared
    /// with, or the engine is on another device.
    #[error(
        "the prepared step has other kernels, norms or groups than these hyperparameters need, \
         or is of another device: prepare it again"
    )]
    Prepared,
    /// A prepared step's descent without its ascent.
    #[error("the prepared step has no ascent since its last descent: record its ascent first")]
    NoAscent,
    /// Lean mode with the coupled form, whose base step needs `g~`.
    #[error(
        "lean mode requires the decoupled form, because it takes the base step before g~ is known"
    )]
    LeanCoupled,
    /// The blend buffer lacks a usage or is too small.
    #[error(
        "the blend buffer needs BufferUsages::UNIFORM and {need} bytes, but has {usage:?} and {size}"
    )]
    BlendBuffer {
        /// Usages of the buffer.
        usage: wgpu::BufferUsages,
        /// Size of the buffer in bytes.
        size: u64,
        /// Required size in bytes.
        need: u64,
    },
    /// The buffer of `InvScale::Device` lacks a usage or is too small.
    #[error(
        "the inv_scale buffer needs BufferUsages::COPY_SRC and 4 bytes, but has {usage:?} and {size}"
    )]
    ScaleBuffer {
        /// Usages of the buffer.
        usage: wgpu::BufferUsages,
        /// Size of the buffer in bytes.
        size: u64,
    },
    /// A field of `Tuning` is outside its domain.
    #[error("the tuning's {name} is {value}, but it must be {expected}")]
    Tuning {
        /// Name of the field.
        name: &'static str,
        /// Value of the field.
        value: u64,
        /// The domain, phrased to follow "must be".
        expected: String,
    },
    /// A device limit is lower than the kernels need.
    #[error("the device limit {name} is {granted}, but the kernels need {needed}")]
    Limit {
        /// Name of the limit in `wgpu::Limits`.
        name: &'static str,
        /// The device's value.
        granted: u64,
        /// Value that the kernels need.
        needed: u64,
    },
    /// The device was opened without a required feature.
    #[error("the device was opened without the feature {name}: add it to required_features")]
    Feature {
        /// Name of the feature in `wgpu::Features`.
        name: &'static str,
    },
    /// An environment variable has a value that is not known.
    #[error("the environment variable {name} is {value:?}, but it must be {expected}")]
    Environment {
        /// Name of the variable.
        name: &'static str,
        /// Value of the variable.
        value: String,
        /// The accepted values, phrased to follow "must be".
        expected: &'static str,
    },
    /// No adapter was found, or the adapter refused to open a device.
    #[error("no usable GPU adapter: {reason}")]
    NoAdapter {
        /// The cause, usually wgpu's message.
        reason: String,
    },
    /// A kernel could not be compiled on this device.
    #[error("the kernel {kernel} could not be created: {reason}")]
    Pipeline {
        /// Name of the kernel or of its specialisation.
        kernel: String,
        /// The cause, usually wgpu's message.
        reason: String,
    },
    /// The device is out of memory.
    #[error("out of memory for {what}: {reason}")]
    OutOfMemory {
        /// Name of the object that could not be allocated.
        what: String,
        /// The cause, usually wgpu's message.
        reason: String,
    },
    /// The device is lost and can no longer be used.
    #[error("the device is lost: {reason}")]
    Lost {
        /// The cause, usually wgpu's message.
        reason: String,
    },
    /// A slice's buffer belongs to another device.
    #[error("tensor {tensor}: {role} is in a buffer of another device")]
    Foreign {
        /// Index of the tensor.
        tensor: usize,
        /// Role of the slice.
        role: Role,
    },
    /// A buffer could not be read back.
    #[error("the norms could not be read back: {reason}")]
    Readback {
        /// The cause, usually wgpu's message.
        reason: String,
    },
}
