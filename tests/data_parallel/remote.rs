//! Replicas on worker processes.

use super::local::{SCOPES, replicas, shards};
use super::nets::{Mlp, parameters, same, text};
use super::remote_faults;
use super::target;
use super::workers::{Process, TOKEN};
use burn::module::Module;
use burn::remote::ConnectError;
use burn::tensor::Device;
use burn_wsam::remote::{RemoteError, connect};
use burn_wsam::{AdamWBaseConfig, Perturbation, Replicas, SgdBaseConfig, Shard, WsamConfig};
use burn_wsam_support::digits::data::{Digits, Shuffle, batch};
use burn_wsam_support::digits::model::Network;
use libtest_mimic::Trial;
use std::time::Duration;

pub(crate) fn trials() -> Vec<Trial> {
    let trial = |name: &str, test: fn() -> Result<(), String>| {
        Trial::test(name.to_owned(), move || Ok(test()?))
    };
    let mut trials = vec![
        trial("two workers match local steps", || matches_local(2)),
        trial("four workers match local steps", || matches_local(4)),
        trial("two workers learn the digits", || digits(2)),
        trial("four workers learn the digits", || digits(4)),
        trial("the exchange overlaps the second pass", overlap),
        trial("wrong tokens and dead addresses", refused),
    ];
    trials.extend(remote_faults::trials());
    trials
}

/// Steps with replicas on workers equal steps over micro-batches in this process, bit for bit.
fn matches_local(workers: usize) -> Result<(), String> {
    let target = target::flex();
    let workers = (0..workers).map(|_| Process::start()).collect::<Result<Vec<_>, _>>()?;
    let devices = workers.iter().map(Process::device).collect::<Result<Vec<_>, _>>()?;
    for scope in SCOPES {
        let config = WsamConfig::new(AdamWBaseConfig::new().into()).with_rho(0.1).with_gamma(0.8);
        let (mut optim, mut single) = (target.init(&config)?, target.init(&config)?);
        let mut replicas = replicas(&devices, |model: &Mlp, batch| model.loss(batch))?;
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
            same(&format!("{scope:?}, step {at}"), &model, &parameters(&want))?;
        }
    }
    Ok(())
}

/// Two workers, for measurements.
pub(crate) fn two() -> super::costs::Opened {
    let workers = [Process::start()?, Process::start()?];
    Ok((vec![workers[0].device()?, workers[1].device()?], Box::new(workers)))
}

/// Number of images of a step.
const BATCH: usize = 64;

/// Workers reach the accuracy of one process with the same batches.
fn digits(workers: usize) -> Result<(), String> {
    let target = target::flex();
    let processes = (0..workers).map(|_| Process::start()).collect::<Result<Vec<_>, _>>()?;
    let (train, test) = Digits::split();
    let accuracy = |network: &Network| -> f64 {
        let all = test.all(&target.device.clone().inner());
        let correct: i64 = network.valid().correct(&all).into_scalar();
        correct as f64 / test.count() as f64
    };
    let base = SgdBaseConfig::new();
    let config = WsamConfig::new(base.into()).with_gamma(0.8);
    for scope in SCOPES {
        let mut replicas = Replicas::new(
            |indices: Vec<usize>, device: &Device| batch(&indices, device),
            |network: &Network, batch| network.loss(batch),
        );
        for (place, process) in processes.iter().enumerate() {
            replicas.add(place.to_string(), &process.device()?).map_err(text)?;
        }
        let (mut optim, mut single) = (target.init(&config)?, target.init(&config)?);
        let mut network = Network::new(1, &target.device);
        let mut alone = Network::new(1, &target.device);
        let mut shuffle = Shuffle::new(1);
        for _ in 0..3 {
            let mut order = train.indices.clone();
            shuffle.shuffle(&mut order);
            for indices in order.chunks(BATCH) {
                let part = indices.len().div_ceil(workers);
                let shards =
                    indices.chunks(part).map(|part| Shard::new(part.to_vec(), part.len() as f64));
                let stepped =
                    optim.step_data_parallel(0.1, network, scope, &mut replicas, shards.collect());
                network = stepped.map_err(text)?.0;
                let whole = batch(indices, &target.device);
                alone = single.step(0.1, alone, |network| network.loss(&whole)).map_err(text)?.0;
            }
        }
        let (got, want) = (accuracy(&network), accuracy(&alone));
        println!("{workers} workers, {scope:?}: {got:.4}, one process {want:.4}");
        let right = want > 0.9 && got >= want - 0.02;
        if !right {
            return Err(format!("{scope:?}: accuracy {got}, one process has {want}"));
        }
    }
    Ok(())
}

/// With a perturbation for each replica, `g` is read while the second pass runs.
fn overlap() -> Result<(), String> {
    let target = target::flex();
    let worker = Process::start()?;
    let mut optim = target.init(&WsamConfig::new(SgdBaseConfig::new().into()))?;
    let mut replicas = replicas(&[worker.device()?], |network: &Network, at| {
        let indices: Vec<usize> = (0..256).map(|i| i + at as usize).collect();
        network.loss(&batch(&indices, &network.devices()[0]))
    })?;
    let mut network = Network::new(1, &target.device);
    let mut overlapped = 0;
    for at in 0..5 {
        let scope = Perturbation::EachMicroBatch;
        let stepped = optim.step_data_parallel(0.01, network, scope, &mut replicas, shards(&[at]));
        let report;
        (network, report) = stepped.map_err(text)?;
        let replica = &report.replicas[0];
        println!("{replica:?}");
        overlapped += usize::from(!replica.first_exchange.overlap(&replica.second_pass).is_zero());
    }
    if overlapped < 4 {
        return Err(format!("the exchange overlapped the second pass in {overlapped} of 5 steps"));
    }
    Ok(())
}

fn refused() -> Result<(), String> {
    let worker = Process::start()?;
    for token in ["", "another token"] {
        match connect(&worker.host(token), Duration::from_secs(30)) {
            Err(RemoteError::Connect(ConnectError::Unauthorized)) => (),
            other => return Err(format!("token {token:?}: {other:?}")),
        }
    }
    let host = worker.host(TOKEN);
    let device = connect(&host, Duration::from_secs(30)).map_err(text)?;
    let sum = burn::tensor::Tensor::<1>::ones([3], &device).sum().into_scalar::<f32>();
    if sum != 3.0 {
        return Err(format!("the worker says 1 + 1 + 1 = {sum}"));
    }
    drop(worker);
    match connect(&host, Duration::from_millis(500)) {
        Err(RemoteError::TimedOut { .. } | RemoteError::Connect(_)) => Ok(()),
        other => Err(format!("a dead address: {other:?}")),
    }
}
