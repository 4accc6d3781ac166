//! Devices shared by Burn and the kernels.
//!
//! Burn returns its wgpu handles only when a device is made, so this module stores them then.

use super::error::WsamError;
use super::route::{Route, TensorOpsReason};
use crate::engine::Engine;
use burn::backend::DispatchDevice;
use burn::backend::wgpu::{WgpuInitError, WgpuSetup};
use burn::tensor::Device;
use burn::tensor::wgpu::WgpuOptions;
use std::sync::{Arc, Mutex, PoisonError};

/// A device's engine, with the adapter and the graphics API it runs on.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) engine: Arc<Engine>,
    adapter: String,
    backend: String,
}

impl Shared {
    pub(crate) fn route(&self) -> Route {
        Route::Fused { adapter: self.adapter.clone(), backend: self.backend.clone() }
    }
}

/// Shared devices, by Burn's device without autodiff. A list suffices for the few devices of a program.
static SHARED: Mutex<Vec<(Device, Shared)>> = Mutex::new(Vec::new());

/// The device that [`device`] made. The lock is held while it is made, so that two threads make one device.
static DEFAULT: Mutex<Option<Device>> = Mutex::new(None);

/// Burn's default wgpu device, shared with the WSAM kernels.
///
/// Returns the same device at every call. Call it before anything else uses Burn's default wgpu device: Burn
/// would make the device itself, and it could no longer be shared. For other devices and options use
/// [`device_with`] and [`share`].
///
/// # Errors
///
/// [`WsamError::NoAdapter`] if there is no adapter; [`WsamError::Backend`] if the device could not
/// be made, for one because it was already in use; [`WsamError::Engine`] if it does not take the
/// kernels.
pub fn device() -> Result<Device, WsamError> {
    let mut default = DEFAULT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(device) = default.as_ref() {
        return Ok(device.clone());
    }
    let device = device_with(Device::wgpu_options())?;
    *default = Some(device.clone());
    Ok(device)
}

/// A wgpu device made with Burn's own options, shared with the WSAM kernels.
///
/// # Errors
///
/// As [`device`].
pub fn device_with(options: WgpuOptions) -> Result<Device, WsamError> {
    let (device, setup) = options.init_with_setup().map_err(|error| match error {
        WgpuInitError::AdapterUnavailable { message: reason, .. } => {
            WsamError::NoAdapter { reason }
        }
        WgpuInitError::Registration { message } => WsamError::Backend {
            reason: format!("{message} (was the device used before it was made here?)"),
        },
        other => WsamError::Backend { reason: other.to_string() },
    })?;
    share(&device, &setup)?;
    Ok(device)
}

/// Shares a Burn device that was made from the application's wgpu handles.
///
/// `setup` must be the setup that `device` was made from. Sharing a device again replaces its
/// handles.
///
/// # Errors
///
/// [`WsamError::NotFused`] if `device` does not run on wgpu, [`WsamError::Engine`] if it does not
/// take the kernels.
pub fn share(device: &Device, setup: &WgpuSetup) -> Result<(), WsamError> {
    let device = device.clone().without_autodiff();
    if !on_wgpu(&device) {
        return Err(WsamError::NotFused { reason: TensorOpsReason::NotWgpu.to_string() });
    }
    let engine = Arc::new(Engine::new(&setup.device, &setup.queue)?);
    let info = setup.adapter.get_info();
    let shared = Shared { engine, adapter: info.name, backend: info.backend.to_string() };
    let mut all = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    all.retain(|(known, _)| *known != device);
    all.push((device, shared));
    Ok(())
}

/// Returns the engine of a device, or the reason why it has no engine.
pub(crate) fn shared(device: &Device) -> Result<Shared, TensorOpsReason> {
    if !on_wgpu(device) {
        return Err(TensorOpsReason::NotWgpu);
    }
    let all = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    let found = all.iter().find(|(known, _)| known == device);
    found.map(|(_, shared)| shared.clone()).ok_or(TensorOpsReason::NotShared)
}

fn on_wgpu(device: &Device) -> bool {
    use burn::cubecl::Device as CubeDevice;
    matches!(device.as_dispatch(), DispatchDevice::Cube(CubeDevice::Wgpu(_)))
}
