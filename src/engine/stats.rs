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
    /// Host time spent recording.
    pub recording: Duration,
}

impl StepStats {
    /// Bytes of tensors moved, reads and writes.
    pub fn bytes(&self) -> u64 {
        self.bytes_read + self.bytes_written
    }
}

impl AddAssign for StepStats {
    fn add_assign(&mut self, other: Self) {
        self.dispatches += other.dispatches;
        self.submissions += other.submissions;
        self.bytes_read += other.bytes_read;
        self.bytes_written += other.bytes_written;
        self.overhead_bytes += other.overhead_bytes;
        self.recording += other.recording;
    }
}
