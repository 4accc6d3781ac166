//! Devices and routes of the Burn optimizer's tests: tensor operations on the CPU, and both routes on every
//! adapter.

use burn::optim::ModuleOptimizer;
use burn::tensor::Device;
#[cfg(feature = "train")]
use burn_wsam::train::WsamTraining;
use burn_wsam::{RoutePolicy, Wsam, WsamConfig};
use libtest_mimic::{Failed, Trial};

/// Where a test runs, and by which route.
#[derive(Clone, Debug)]
pub struct Target {
    /// With autodiff.
    pub device: Device,
    pub policy: RoutePolicy,
}

impl Target {
    /// An optimizer on the device, by the route.
    pub fn init(&self, config: &WsamConfig) -> Result<Wsam, String> {
        let config = config.clone().with_route(self.policy);
        config.init(&self.device).map_err(|error| error.to_string())
    }

    /// The same around one of Burn's optimizers.
    pub fn with_burn_base(
        &self,
        config: &WsamConfig,
        base: ModuleOptimizer,
    ) -> Result<Wsam, String> {
        let config = config.clone().with_route(self.policy);
        config.init_with(base, &self.device).map_err(|error| error.to_string())
    }

    /// A strategy for burn-train.
    #[cfg(feature = "train")]
    pub fn wsam(&self, config: &WsamConfig) -> Result<WsamTraining, String> {
        Ok(WsamTraining::new(self.init(config)?))
    }
}

pub type Test = fn(&Target) -> Result<(), String>;

/// Burn's CPU backend.
pub fn flex() -> Target {
    Target { device: Device::flex().autodiff(), policy: RoutePolicy::TensorOps }
}

/// A trial for each test.
pub fn on(tests: &[(&str, Test)], target: &Target, label: &str) -> Vec<Trial> {
    let trial = |(name, test): &(&str, Test)| {
        let (target, test) = (target.clone(), *test);
        Trial::test(format!("{name} [{label}]"), move || test(&target).map_err(Failed::from))
    };
    tests.iter().map(trial).collect()
}

/// The routes of a wgpu device, and what they are called.
pub const ROUTES: [(RoutePolicy, &str); 2] =
    [(RoutePolicy::Fused, "fused"), (RoutePolicy::TensorOps, "tensor operations")];

/// Trials for each test, fused on every adapter and in tensor operations on one, and what `more` adds for its device. Without an
/// adapter one trial called `nothing` tells.
#[cfg(feature = "fused-wsam")]
pub fn on_adapters(
    tests: &[(&str, Test)],
    nothing: &str,
    mut more: impl FnMut(&super::gpu::Gpu, &Device) -> Vec<Trial>,
) -> Vec<Trial> {
    let adapters = super::gpu::adapters();
    if adapters.is_empty() {
        return super::gpu::trials(&[(nothing, |_| unreachable!())]);
    }
    let mut trials = Vec::new();
    for (place, gpu) in adapters.iter().enumerate() {
        let device = match super::burn_route::device(gpu) {
            Ok(device) => device.autodiff(),
            Err(error) => {
                trials.push(Trial::test(format!("device [{}]", gpu.name), || Err(error.into())));
                continue;
            }
        };
        for (policy, label) in ROUTES {
            // Tensor operations are Burn's own: one adapter will do.
            if policy == RoutePolicy::TensorOps && place + 1 < adapters.len() {
                continue;
            }
            let target = Target { device: device.clone(), policy };
            trials.extend(on(tests, &target, &format!("{label}, {}", gpu.name)));
        }
        trials.extend(more(gpu, &device));
    }
    trials
}
