//! Whole training steps of the methods and pass rules, compared with the base optimizer's, on the digits' network with
//! large batches, where the passes dominate. The methods take turns of ten steps, so that a change of the machine's
//! speed meets all of them. Prints the mean of a step, and its ratio to the base optimizer's in the same round: the
//! median over the rounds, with quartiles.
//!
//! `WSAM_ROUNDS` and `WSAM_BATCH` set the number of rounds (12) and of images in a batch (512).

use burn::optim::GradientsParams;
use burn::optim::momentum::MomentumConfig;
use burn::tensor::Device;
use burn_wsam::{
    AeSamConfig, FriendlySamConfig, GsamConfig, IntervalConfig, LookSamConfig, MethodConfig,
    RoutePolicy, SgdBaseConfig, Wsam, WsamConfig,
};
use burn_wsam_support::bench::engine_steps;
use burn_wsam_support::digits::data::{self as digits, Batch, Digits};
use burn_wsam_support::digits::model::Network;
use std::time::Instant;

/// Steps in a turn: a multiple of every cycle.
const TURN: usize = 10;

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// A training by one method.
struct Training {
    name: &'static str,
    optim: Wsam,
    network: Option<Network>,
    /// Whether the base optimizer steps alone.
    is_base: bool,
}

impl Training {
    /// A turn's mean seconds a step.
    fn turn(&mut self, device: &Device, batch: &Batch) -> Fallible<f64> {
        let mut network = self.network.take().ok_or("no network")?;
        let start = Instant::now();
        for _ in 0..TURN {
            network = if self.is_base {
                let loss = network.loss(batch);
                let grads = GradientsParams::from_grads(loss.backward(), &network);
                self.optim.base_step(1e-3, network, grads)?
            } else {
                self.optim.step(1e-3, network, |network| network.loss(batch))?.0
            };
        }
        device.sync().map_err(|error| format!("{error:?}"))?;
        self.network = Some(network);
        Ok(start.elapsed().as_secs_f64() / TURN as f64)
    }
}

fn configs() -> Vec<(&'static str, WsamConfig)> {
    let momentum = SgdBaseConfig::new().with_momentum(Some(MomentumConfig::new()));
    let sam = WsamConfig::sgd(momentum).with_gamma(0.5).with_decouple(false);
    let method = |method: MethodConfig| sam.clone().with_method(method);
    vec![
        ("base", sam.clone()),
        ("SAM", sam.clone()),
        ("GSAM", method(GsamConfig::new().into())),
        ("Friendly-SAM", method(FriendlySamConfig::new().into())),
        ("LookSAM, k 5", method(LookSamConfig::new().with_k(5).into())),
        ("interval 5", sam.clone().with_pass_rule(IntervalConfig::new(5).into())),
        ("AE-SAM", sam.clone().with_pass_rule(AeSamConfig::new(1000).into())),
        ("Momentum-SAM", method(MethodConfig::MomentumSam)),
    ]
}

fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| values[quarter * (values.len() - 1) / 4])
}

fn compare(label: &str, device: &Device, policy: RoutePolicy, sizes: [usize; 2]) -> Fallible<()> {
    let [rounds, images] = sizes;
    let autodiff = device.clone().autodiff();
    let (training, _) = Digits::split();
    let batch = digits::batch(&training.indices[..images.min(training.indices.len())], &autodiff);
    let network = Network::new(1, &autodiff);
    let mut trainings = Vec::new();
    for (name, config) in configs() {
        let optim = config.with_route(policy).init(&autodiff)?;
        let (network, is_base) = (Some(network.copy()), name == "base");
        trainings.push(Training { name, optim, network, is_base });
    }
    println!("{label}, {images} images, {rounds} rounds of {TURN} steps");
    let mut times = vec![Vec::new(); trainings.len()];
    for round in 0..=rounds {
        for (training, times) in trainings.iter_mut().zip(&mut times) {
            let time = training.turn(&autodiff, &batch)?;
            // The first round compiles pipelines and makes states.
            if round > 0 {
                times.push(time);
            }
        }
    }
    let base = times[0].clone();
    for (training, times) in trainings.iter().zip(times) {
        let mean = times.iter().sum::<f64>() / times.len() as f64;
        let ratios = times.iter().zip(&base).map(|(time, base)| time / base).collect();
        let [low, median, high] = quartiles(ratios);
        println!(
            "  {:<14} {:8.2} ms a step, {median:.3} of the base ({low:.3} to {high:.3})",
            training.name,
            1e3 * mean
        );
    }
    Ok(())
}

fn main() -> Fallible<()> {
    let number = |name: &str, default: usize| {
        std::env::var(name).map_or(Ok(default), |value| value.parse::<usize>())
    };
    let sizes = [number("WSAM_ROUNDS", 12)?, number("WSAM_BATCH", 512)?];
    compare("flex, tensor operations", &Device::flex(), RoutePolicy::TensorOps, sizes)?;
    let device = engine_steps::shared();
    compare("the default adapter, fused", &device, RoutePolicy::Fused, sizes)
}
