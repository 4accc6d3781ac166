//! Memory on the optimizer's device, counted.

use super::local::{SCOPES, replicas, shards};
use super::nets::{data, text};
use super::target::{self, Target};
use burn::backend::DispatchDevice;
use burn::cubecl::MemoryScope;
use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use burn_wsam::{AdamWBaseConfig, Perturbation, WsamConfig};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};

const WIDTH: usize = 256;
const LAYERS: usize = 8;

#[derive(Module, Debug)]
struct Deep {
    layers: Vec<Linear>,
}

impl Deep {
    fn new(device: &Device) -> Self {
        let layer = |_| LinearConfig::new(WIDTH, WIDTH).with_bias(false).init(device);
        Self { layers: (0..LAYERS).map(layer).collect() }
    }

    fn loss(&self, batch: u64) -> Tensor<1> {
        let x: Tensor<2> = data([4, WIDTH], batch, &self.layers[0].weight.device());
        self.layers.iter().fold(x, |x, layer| layer.forward(x)).powi_scalar(2).mean()
    }
}

/// Bytes in use and reserved.
fn usage(device: &Device) -> Result<(u64, u64), String> {
    device.sync().map_err(|error| format!("{error:?}"))?;
    match device.clone().without_autodiff().as_dispatch() {
        DispatchDevice::Cube(cube) => {
            let usage = cube.client().memory_report(MemoryScope::Device).usage();
            Ok((usage.bytes_in_use, usage.bytes_reserved))
        }
        other => Err(format!("{other:?} does not count")),
    }
}

/// Memory on the optimizer's device does not grow with the number of replicas: four need at most one gradient more than
/// one, the gradient that is added to the sum.
pub(crate) fn of_optimizer(target: &Target) -> Result<(), String> {
    let parameters = (4 * LAYERS * WIDTH * WIDTH) as u64;
    for scope in SCOPES {
        let mut most = Vec::new();
        for count in [1, 4] {
            let model = Deep::new(&target.device);
            drop(model.loss(0));
            let before = usage(&target.device)?.0;
            // In use during a pass of a replica: in the second one with what the ascent keeps.
            let passes = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
            let flex = target::flex().device;
            // No replica finishes a pass before the sample, so that no gradient has arrived.
            let sampled = Arc::new(Barrier::new(count));
            let mut replicas = replicas(&vec![flex; count], {
                let (passes, device) = (passes.clone(), target.device.clone());
                let at = AtomicU64::new(0);
                move |model: &Deep, batch| {
                    // The first replica's passes alternate.
                    if batch == 0 && scope == Perturbation::Whole {
                        let pass = at.fetch_add(1, Ordering::SeqCst) % 2;
                        if let Ok((in_use, _)) = usage(&device) {
                            passes[pass as usize].fetch_max(in_use, Ordering::SeqCst);
                        }
                    }
                    sampled.wait();
                    model.loss(batch)
                }
            })?;
            let config = WsamConfig::new(AdamWBaseConfig::new().into());
            let mut optim = target.init(&config)?;
            let mut model = model;
            let batches: Vec<u64> = (0..count as u64).collect();
            let mut after = 0;
            for _ in 0..6 {
                let stepped =
                    optim.step_data_parallel(0.01, model, scope, &mut replicas, shards(&batches));
                model = stepped.map_err(text)?.0;
                after = usage(&target.device)?.0;
            }
            let in_passes = passes.each_ref().map(|pass| pass.load(Ordering::SeqCst));
            let times = |bytes: u64| bytes.saturating_sub(before) as f64 / parameters as f64;
            println!(
                "{scope:?}, {count} replicas, in parameters: after a step {:.2}, in the first pass {:.2}, in the \
                 second {:.2}",
                times(after),
                times(in_passes[0]),
                times(in_passes[1]),
            );
            most.push(after.max(in_passes[0]).max(in_passes[1]));
            drop((model, optim, replicas));
        }
        // With several replicas the gradient that is added to the sum. Burn frees it later, so it is not always there.
        if most[1] > most[0] + parameters + parameters / 2 {
            return Err(format!("{scope:?}: {most:?} bytes with 1 and 4 replicas"));
        }
    }
    Ok(())
}
