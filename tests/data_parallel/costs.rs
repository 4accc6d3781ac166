//! Times of the local parts of a step over ResNet-50's parameters: copies between device and host, and with workers
//! the loopback interface. Run with `--ignored`; docs/data-parallel.md has results.

use super::local::{SCOPES, replicas, shards};
use super::nets::text;
use super::target;
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use burn_wsam::{SgdBaseConfig, WsamConfig};
use burn_wsam_support::bench::sets::sets;
use libtest_mimic::Trial;
use std::time::{Duration, Instant};

/// Parameters without layers, so that passes cost little.
#[derive(Module, Debug)]
struct Flat {
    params: Vec<Param<Tensor<1>>>,
}

impl Flat {
    fn new(lens: &[u64], device: &Device) -> Self {
        let tensor = |len: &u64| Tensor::ones([*len as usize], device).require_grad();
        Self { params: lens.iter().map(tensor).map(Param::from_tensor).collect() }
    }

    fn loss(&self, _: u64) -> Tensor<1> {
        let squares = self.params.iter().map(|param| (param.val() * param.val()).mean());
        Tensor::cat(squares.collect(), 0).mean()
    }
}

pub(crate) fn trial(name: &str, devices: fn() -> Opened) -> Trial {
    let test = move || Ok(times(devices)?);
    Trial::test(format!("times over ResNet-50's parameters [{name}]"), test).with_ignored_flag(true)
}

/// What must live as long as the devices are used.
pub(crate) type Hold = Box<dyn std::any::Any>;
pub(crate) type Opened = Result<(Vec<Device>, Hold), String>;

fn times(devices: fn() -> Opened) -> Result<(), String> {
    let target = target::flex();
    let (devices, _hold) = devices()?;
    let set = sets().into_iter().find(|set| set.name == "ResNet-50").ok_or("no ResNet-50")?;
    for scope in SCOPES {
        let mut optim = target.init(&WsamConfig::new(SgdBaseConfig::new().into()))?;
        let mut replicas = replicas(&devices, Flat::loss)?;
        let mut model = Flat::new(&set.lens, &target.device);
        let batches: Vec<u64> = (0..devices.len() as u64).collect();
        let mut steps = Vec::new();
        for _ in 0..6 {
            let began = Instant::now();
            let stepped =
                optim.step_data_parallel(0.01, model, scope, &mut replicas, shards(&batches));
            let report;
            (model, report) = stepped.map_err(text)?;
            steps.push((began.elapsed(), report));
        }
        // The first step copies the model.
        let mut whole: Vec<Duration> = steps[1..].iter().map(|(took, _)| *took).collect();
        whole.sort();
        println!("{scope:?}: median {:.0?}, {:.0?} to {:.0?}", whole[2], whole[0], whole[4]);
        for replica in &steps[5].1.replicas {
            println!("  {replica:.0?}");
        }
    }
    Ok(())
}
