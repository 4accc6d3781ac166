//! Replicas on several devices in one step.

use super::local::{SCOPES, replicas, shards};
use super::memory;
use super::nets::{Mlp, close, parameters, text};
use super::target::{self, Target, Test};
use burn::tensor::Device;
use burn_wsam::{AdamWBaseConfig, RoutePolicy, WsamConfig};
use libtest_mimic::Trial;

pub(crate) fn trials(tests: &[(&str, Test)]) -> Vec<Trial> {
    let mut devices = vec![(target::flex().device, "flex".to_owned())];
    let mut trials = target::on_adapters(tests, "replicas on the GPU", |gpu, device| {
        devices.push((device.clone(), gpu.name.clone()));
        let fused = Target { device: device.clone(), policy: RoutePolicy::Fused };
        let counted: &[(&str, Test)] = &[("memory with four replicas", memory::of_optimizer)];
        target::on(counted, &fused, &format!("fused, {}", gpu.name))
    });
    // Each device in turn has the optimizer, and all have a replica.
    let all: Vec<_> = devices.iter().map(|(device, _)| device.clone()).collect();
    for (device, name) in devices {
        for (policy, label) in target::ROUTES {
            let label = if name == "flex" { "tensor operations" } else { label };
            let (target, all) = (Target { device: device.clone(), policy }, all.clone());
            let name = format!("replicas on {} devices [{label}, {name}]", all.len());
            if trials.iter().any(|trial| trial.name() == name) {
                continue;
            }
            let target = match label {
                "fused" => target,
                _ => Target { policy: RoutePolicy::TensorOps, ..target },
            };
            trials.push(Trial::test(name, move || Ok(on_all(&target, &all)?)));
        }
    }
    trials
}

/// Steps with replicas on all devices match steps over micro-batches on one.
fn on_all(target: &Target, devices: &[Device]) -> Result<(), String> {
    for scope in SCOPES {
        let config = WsamConfig::new(AdamWBaseConfig::new().into()).with_rho(0.1).with_gamma(0.8);
        let (mut optim, mut single) = (target.init(&config)?, target.init(&config)?);
        let mut replicas = replicas(devices, |model: &Mlp, batch| model.loss(batch))?;
        let mut model = Mlp::new(&target.device);
        let mut want = model.clone();
        for at in 0..20 {
            let batches: Vec<u64> = (0..devices.len() as u64).map(|i| 10 * at + i).collect();
            let stepped =
                optim.step_data_parallel(0.01, model, scope, &mut replicas, shards(&batches));
            model = stepped.map_err(text)?.0;
            let stepped =
                single.step_accumulated(0.01, want, scope, &batches, |model, b| model.loss(*b));
            want = stepped.map_err(text)?.0;
            close(&format!("{scope:?}, step {at}"), &model, &want)?;
        }
        if parameters(&model).iter().flat_map(|(_, values)| values).any(|x| !x.is_finite()) {
            return Err("a weight is not finite".to_owned());
        }
    }
    Ok(())
}
