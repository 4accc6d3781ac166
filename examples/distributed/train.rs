//! The training process.

use crate::options::Train;
use burn::lr_scheduler::cosine::CosineAnnealingLrSchedulerConfig;
use burn::module::Module;
use burn::optim::momentum::MomentumConfig;
use burn::remote::{EndpointId, IrohHost, IrohRelays, RemoteHost};
use burn::tensor::Device;
use burn_wsam::{
    DataParallelReport, Perturbation, Rejected, Replicas, SgdBaseConfig, Shard, WsamConfig,
    WsamError,
};
use burn_wsam_support::digits::data::{Digits, Shuffle, batch};
use burn_wsam_support::digits::model::Network;
use std::error::Error;
use std::time::{Duration, Instant};

/// A network on replicas, each with a list of images.
type Workers = Replicas<Network, Vec<usize>>;

pub(crate) fn train(options: &Train) -> Result<(), Box<dyn Error>> {
    let device = crate::device(options.device)?.autodiff();
    let mut replicas = Replicas::new(
        |indices: Vec<usize>, device: &Device| batch(&indices, device),
        |network: &Network, batch| network.loss(batch),
    )
    .with_timeout(options.timeout);
    for worker in &options.workers {
        join(&mut replicas, worker, options)?;
    }
    let perturbation = match options.per_replica {
        true => Perturbation::EachMicroBatch,
        false => Perturbation::Whole,
    };
    let momentum = MomentumConfig::new().with_momentum(0.9).with_dampening(0.0);
    let base = SgdBaseConfig::new().with_momentum(Some(momentum));
    let mut optim = WsamConfig::new(base.into()).with_gamma(0.8).init(&device)?;
    println!("Route: {}; {} workers, perturbation {perturbation:?}", optim.route(), replicas.len());

    let (train, test) = Digits::split();
    let batch_size = options.batch_size as usize;
    let steps = train.count() / batch_size * options.epochs as usize;
    let mut rate = CosineAnnealingLrSchedulerConfig::new(0.05, steps).init()?;
    let mut network = Network::new(1, &device);
    let mut shuffle = Shuffle::new(1);
    for epoch in 1..=options.epochs {
        let mut order = train.indices.clone();
        shuffle.shuffle(&mut order);
        let mut sum = Sum::default();
        for images in order.chunks_exact(batch_size) {
            let lr = rate.step().base();
            loop {
                let shards = shards(images, replicas.len());
                match optim.step_data_parallel(lr, network, perturbation, &mut replicas, shards) {
                    Ok((stepped, report)) => {
                        network = stepped;
                        sum.add(images.len(), &report);
                        break;
                    }
                    Err(rejected) => network = without_lost(rejected, &mut replicas)?,
                }
            }
        }
        let all = test.all(&device.clone().inner());
        let correct: i64 = network.valid().correct(&all).into_scalar();
        println!("epoch {epoch}: {:.2} %, {sum}", 100.0 * correct as f64 / test.count() as f64);
        // A worker that was lost may come back.
        for worker in &options.workers {
            if !replicas.names().any(|name| name == worker) {
                match join(&mut replicas, worker, options) {
                    Ok(()) => println!("{worker} is back"),
                    Err(error) => println!("{worker} is still lost: {error}"),
                }
            }
        }
    }
    Ok(())
}

/// Connects to a worker.
fn join(replicas: &mut Workers, worker: &str, options: &Train) -> Result<(), Box<dyn Error>> {
    let mut host = match worker.strip_prefix("iroh:") {
        Some(rest) => {
            let (id, address) =
                rest.split_once('@').ok_or("an Iroh worker is iroh:ID@ADDRESS:PORT")?;
            let host = IrohHost::new(id.parse::<EndpointId>()?).with_relays(IrohRelays::Disabled);
            RemoteHost::iroh(host.with_address(address.parse()?))
        }
        None => RemoteHost::websocket(worker),
    };
    if let Some(token) = &options.token {
        host = host.with_credential(token.as_str());
    }
    let device = burn_wsam::remote::connect(&host, Duration::from_secs(20))
        .map_err(|error| format!("{worker}: {error}"))?;
    Ok(replicas.add(worker, &device)?)
}

/// Removes the worker that a step has lost, and returns the network.
fn without_lost(
    rejected: Rejected<Network>,
    replicas: &mut Workers,
) -> Result<Network, Box<dyn Error>> {
    match &rejected.error {
        WsamError::Replica(error) if replicas.len() > 1 => {
            println!("{error}; going on without it");
            replicas.remove(&error.replica);
            Ok(*rejected.model)
        }
        _ => Err(rejected.error.into()),
    }
}

/// Splits a batch evenly.
fn shards(images: &[usize], workers: usize) -> Vec<Shard<Vec<usize>>> {
    let images_each = images.len().div_ceil(workers);
    let shard = |part: &[usize]| Shard::new(part.to_vec(), part.len() as f64);
    images.chunks(images_each).map(shard).collect()
}

/// Throughput of an epoch.
struct Sum {
    began: Instant,
    images: usize,
    bytes: u64,
    /// Time of exchanges of `g` that ran during second passes.
    overlap: Duration,
}

impl Default for Sum {
    fn default() -> Self {
        Self { began: Instant::now(), images: 0, bytes: 0, overlap: Duration::ZERO }
    }
}

impl Sum {
    fn add(&mut self, images: usize, report: &DataParallelReport) {
        self.images += images;
        self.bytes += report.bytes_sent() + report.bytes_received();
        for replica in &report.replicas {
            self.overlap += replica.first_exchange.overlap(&replica.second_pass);
        }
    }
}

impl std::fmt::Display for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.began.elapsed().as_secs_f64();
        let (rate, megabytes) = (self.images as f64 / seconds, self.bytes as f64 / 1e6);
        write!(f, "{rate:.0} images/s, {megabytes:.1} MB exchanged")?;
        if !self.overlap.is_zero() {
            write!(f, ", {:.0} ms of it during second passes", 1e3 * self.overlap.as_secs_f64())?;
        }
        Ok(())
    }
}
