//! What is in use, by Burn's count on a GPU and by the system's for the process.

use crate::common::burned::memory_in_use;
use burn::tensor::Device;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// Bytes of Burn's device memory in use; 0 off the GPU.
    pub(crate) device: u64,
    /// Bytes of the process in memory; 0 where nobody tells.
    pub(crate) process: u64,
}

impl Usage {
    /// Once the device has done all it has to do.
    pub(crate) fn of(target: &Device) -> Result<Self, String> {
        Ok(Self { device: memory_in_use(target)?, process: process() })
    }
}

fn process() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.map_or(0, |kibibytes| kibibytes * 1024)
}
