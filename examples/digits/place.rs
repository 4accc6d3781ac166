//! Selects the device, a GPU if there is one, otherwise Burn's CPU backend, and reports the choice.

use crate::Error;
use crate::options::DeviceChoice;
use burn::tensor::Device;
use burn_wsam::{Route, RoutePolicy, SgdBaseConfig, WsamConfig};

const FLEX: &str = "Burn's flex CPU backend";

/// How to get a software adapter.
pub(crate) const DRIVER_HINT: &str = "a software adapter comes with a Vulkan driver \
    (Debian: apt install mesa-vulkan-drivers; or sh scripts/test.sh, which installs one)";

/// A device and its description.
pub(crate) struct Place {
    /// Without autodiff.
    pub(crate) device: Device,
    /// The adapter's name, or the CPU backend's.
    pub(crate) adapter: String,
    /// First line of the output.
    pub(crate) headline: String,
}

/// Opens the requested device.
pub(crate) fn open(choice: DeviceChoice, policy: RoutePolicy) -> Result<Place, Error> {
    match (choice, policy) {
        (DeviceChoice::Flex, _) => flex(policy, "--device flex"),
        (DeviceChoice::Wgpu, _) | (DeviceChoice::Auto, RoutePolicy::Fused) => {
            on_gpu(gpu().map_err(Error::NoAdapter)?, policy)
        }
        (DeviceChoice::Auto, _) => match gpu() {
            Ok(gpu) => on_gpu(gpu, policy),
            Err(reason) => flex(policy, &format!("no usable GPU adapter: {reason}; {DRIVER_HINT}")),
        },
    }
}

fn flex(policy: RoutePolicy, why: &str) -> Result<Place, Error> {
    let device = Device::flex();
    // An error for `--route fused`.
    route(&device, policy)?;
    let headline = format!("Route: tensor operations on {FLEX} ({why})");
    Ok(Place { device, adapter: FLEX.to_owned(), headline })
}

fn on_gpu((device, adapter): (Device, String), policy: RoutePolicy) -> Result<Place, Error> {
    let headline = match route(&device, policy)? {
        Route::TensorOps(why) => format!("Route: tensor operations on {adapter} ({why})"),
        other => format!("Route: {other}"),
    };
    Ok(Place { device, adapter, headline })
}

/// The route that a `Wsam` takes on this device.
fn route(device: &Device, policy: RoutePolicy) -> Result<Route, Error> {
    let config = WsamConfig::new(SgdBaseConfig::new().into()).with_route(policy);
    Ok(config.init(device)?.route().clone())
}

/// Burn's default wgpu device and its adapter, or the reason why there is none.
#[cfg(feature = "fused-wsam")]
fn gpu() -> Result<(Device, String), String> {
    let device = burn_wsam::device().map_err(|error| match error {
        burn_wsam::WsamError::NoAdapter { reason } => reason,
        other => other.to_string(),
    })?;
    match route(&device, RoutePolicy::Auto).map_err(|error| error.to_string())? {
        Route::Fused { adapter, backend } => Ok((device, format!("{adapter} ({backend})"))),
        Route::TensorOps(why) => Err(why.to_string()),
        other => Err(format!("unknown route: {other}")),
    }
}

/// Burn's default wgpu device and its adapter, or the reason why there is none.
#[cfg(not(feature = "fused-wsam"))]
fn gpu() -> Result<(Device, String), String> {
    let made = Device::wgpu_options().init_with_setup();
    let (device, setup) = made.map_err(|error| error.to_string())?;
    let info = setup.adapter.get_info();
    Ok((device, format!("{} ({})", info.name, info.backend)))
}
