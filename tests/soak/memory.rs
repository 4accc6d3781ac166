//! Memory in use: Burn's count on a GPU, and the resident set of the process.

use burn::tensor::Device;
use burn_wsam_support::burn_route::memory_in_use;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// Bytes of Burn's device memory in use, 0 on the CPU.
    pub(crate) device: u64,
    /// Resident bytes of the process, 0 where `/proc` does not exist.
    pub(crate) process: u64,
}

impl Usage {
    /// Waits for the device, then measures.
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
