//! What a step cost, counted.

use std::ops::AddAssign;
use std::time::Duration;

/// Costs of a step or of a part of one. Counts are exact; only `recording` is a measurement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepStats {
    /// Compute dispatches recorded.
    pub dispatches: u32,
    /// Queue submissions made by this crate.
    pub submissions: u32,
    /// Bytes of tensors that the kernels read.
    pub bytes_read: u64,
    /// Bytes of tensors that the kernels write.
    pub bytes_written: u64,
    /// Bytes of chunk tables, uniforms and partial sums, read and written.
    pub overhead_bytes: u64,
    /// Distinct buffers of tensors that were bound, in the half that binds more.
    pub buffers: u32,
    /// Most bytes of tensors that the step holds through the second pass beside the weights, `g`,
    /// the second pass's own `g~` and the base optimizer's state. 4 a parameter for `w + e_w`; 0 in
    /// lean mode, where `w + e_w` takes the room that `g` leaves.
    pub extra_bytes: u64,
    /// Plans (chunk tables, bind groups) that had to be made: 0 while tensors stay where they were.
    pub plans_made: u32,
    /// Host time spent recording.
    pub recording: Duration,
}

impl StepStats {
    /// Bytes of tensors moved, reads and writes.
    pub fn bytes(&self) -> u64 {
        self.bytes_read + self.bytes_written
    }
}

/// Of the two halves of one step: sums, and the larger of `buffers` and `extra_bytes`.
impl AddAssign for StepStats {
    fn add_assign(&mut self, other: Self) {
        self.dispatches += other.dispatches;
        self.submissions += other.submissions;
        self.bytes_read += other.bytes_read;
        self.bytes_written += other.bytes_written;
        self.overhead_bytes += other.overhead_bytes;
        self.buffers = self.buffers.max(other.buffers);
        self.extra_bytes = self.extra_bytes.max(other.extra_bytes);
        self.plans_made += other.plans_made;
        self.recording += other.recording;
    }
}
