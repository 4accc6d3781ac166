//! Costs of a step.

use std::fmt;
use std::ops::AddAssign;
use std::time::Duration;

/// Costs of a step or of a part of one. Counts are exact; only `recording` is a measurement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StepStats {
    /// Compute dispatches recorded.
    pub dispatches: u32,
    /// Queue submissions made by this crate.
    pub submissions: u32,
    /// Buffers of constants that the host uploads.
    pub uploads: u32,
    /// Tensor bytes that the kernels read.
    pub bytes_read: u64,
    /// Tensor bytes that the kernels write.
    pub bytes_written: u64,
    /// Bytes of chunk tables, uniforms and partial sums, read and written.
    pub overhead_bytes: u64,
    /// Distinct tensor buffers that were bound, in the phase that binds more.
    pub buffers: u32,
    /// Peak tensor bytes that the step holds during the second pass in addition to the weights, `g`, `g~` and the
    /// base optimizer's state: 4 bytes a parameter for an `f32` `w + e_w`, and 0 in lean mode, which can free
    /// `g` before the second pass.
    pub extra_bytes: u64,
    /// Plans (chunk tables and bind groups) that had to be made. 0 if the tensors are in the same buffers at the
    /// same offsets as in an earlier step.
    pub plans_made: u32,
    /// Whether the optimizer kept the model's Burn tensors and gave them other memory. Otherwise it replaced them.
    /// `false` for steps on raw buffers.
    pub in_place: bool,
    /// Burn tensors that the step made. 0 for a step in place, and on raw buffers.
    pub tensors_made: u32,
    /// Calls to Burn's servers that the step waited for. 0 on raw buffers.
    pub server_calls: u32,
    /// Host time spent recording.
    pub recording: Duration,
}

impl StepStats {
    /// Returns the tensor bytes moved, read and written.
    pub fn bytes(&self) -> u64 {
        self.bytes_read + self.bytes_written
    }
}

/// Formats the costs as one line, for example `4 dispatches, 2 submissions, 17.2 MB read, 8.6 MB written, ...`.
impl fmt::Display for StepStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, {}, {}, {} read, {} written, {} of overhead, {}, {} extra, {} made, recorded in {:.0?}",
            Count(self.dispatches, "dispatch", "dispatches"),
            Count(self.submissions, "submission", "submissions"),
            Count(self.uploads, "upload", "uploads"),
            Bytes(self.bytes_read),
            Bytes(self.bytes_written),
            Bytes(self.overhead_bytes),
            Count(self.buffers, "buffer", "buffers"),
            Bytes(self.extra_bytes),
            Count(self.plans_made, "plan", "plans"),
            self.recording,
        )
    }
}

/// A number with its noun, in the singular and the plural.
struct Count(u32, &'static str, &'static str);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0, if self.0 == 1 { self.1 } else { self.2 })
    }
}

/// A number of bytes, with a decimal unit.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
        match units.into_iter().find(|(size, _)| self.0 as f64 >= *size) {
            Some((size, unit)) => write!(f, "{:.1} {unit}", self.0 as f64 / size),
            None => write!(f, "{} B", self.0),
        }
    }
}

/// Adds the costs of a step's second phase: the sum of each field, but the maximum of `buffers` and of
/// `extra_bytes`, and `in_place` if one of them is.
impl AddAssign for StepStats {
    fn add_assign(&mut self, other: Self) {
        self.dispatches += other.dispatches;
        self.submissions += other.submissions;
        self.uploads += other.uploads;
        self.bytes_read += other.bytes_read;
        self.bytes_written += other.bytes_written;
        self.overhead_bytes += other.overhead_bytes;
        self.buffers = self.buffers.max(other.buffers);
        self.extra_bytes = self.extra_bytes.max(other.extra_bytes);
        self.plans_made += other.plans_made;
        self.in_place |= other.in_place;
        self.tensors_made += other.tensors_made;
        self.server_calls += other.server_calls;
        self.recording += other.recording;
    }
}
