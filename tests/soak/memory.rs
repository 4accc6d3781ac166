//! What is in use, by Burn's count on a GPU and by the system's for the process.

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
        target.sync().map_err(|error| format!("{error:?}"))?;
        Ok(Self { device: device(target)?, process: process() })
    }
}

#[cfg(feature = "fused-wsam")]
fn device(target: &Device) -> Result<u64, String> {
    use burn::backend::DispatchDevice;
    match target.clone().without_autodiff().as_dispatch() {
        DispatchDevice::Cube(device) => {
            let report = device.client().memory_report(burn::cubecl::MemoryScope::Device);
            Ok(report.usage().bytes_in_use)
        }
        _ => Ok(0),
    }
}

#[cfg(not(feature = "fused-wsam"))]
fn device(_target: &Device) -> Result<u64, String> {
    Ok(0)
}

fn process() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.map_or(0, |kibibytes| kibibytes * 1024)
}
