//! Steps in Burn, in place and out of place, interleaved with steps of the engine alone. Prints the host's time of a
//! step's calls, and the time of a step with its wait for the device.
//!
//! `cargo bench --bench burn_host -- ROUNDS PART`: the number of rounds, and a part of a set's name.

use burn::backend::fusion::observer::{BlockOperations, FusionObservation, FusionObserver};
use burn::tensor::Device;
use burn_wsam::RoutePolicy::Fused;
use burn_wsam::Wsam;
use burn_wsam::method::{Hyperparameters, NonFinite};
use burn_wsam_support::bench::burn_models::{Flat, bases, wsam};
use burn_wsam_support::bench::engine_steps::{self, Model, Steps};
use burn_wsam_support::bench::sets;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

/// Operations that Burn's fusion server is given, and the tensors that they name.
#[derive(Default)]
struct Counter {
    operations: AtomicUsize,
    tensors: AtomicUsize,
}

impl FusionObserver for Counter {
    fn registered(&self, operation: &burn::backend::ir::OperationIr) {
        self.operations.fetch_add(1, Relaxed);
        self.tensors.fetch_add(operation.nodes().len(), Relaxed);
    }

    fn block_starts(&self, _block: BlockOperations<'_>) {}

    fn block_ran(&self) {}
}

/// Times of one step, in seconds.
#[derive(Clone, Copy, Default)]
struct Times {
    ascent: f64,
    descent: f64,
    /// With a wait after each phase.
    whole: f64,
}

struct Trained<'a> {
    device: &'a Device,
    optim: Wsam,
    model: Option<Flat>,
    random: &'a [burn::tensor::Tensor<1>],
    /// Whether a clone of the model is kept, which forces the step out of place.
    clones: bool,
}

impl Trained<'_> {
    fn step(&mut self) -> Times {
        let sync = || self.device.sync().expect("the device works");
        let before = self.model.take().expect("put back after each step");
        let clone = self.clones.then(|| before.clone());
        let [first, second] = [before.grads(self.random), before.grads(self.random)];
        sync();
        let start = Instant::now();
        let ascended = self.optim.ascend(before, first).expect("a valid step");
        let ascent = start.elapsed().as_secs_f64();
        sync();
        let waited = start.elapsed().as_secs_f64();
        let start = Instant::now();
        let after = self.optim.descend(1e-3, ascended, second).expect("a valid step");
        let descent = start.elapsed().as_secs_f64();
        sync();
        let whole = waited + start.elapsed().as_secs_f64();
        drop(clone);
        self.model = Some(after);
        Times { ascent, descent, whole }
    }
}

/// Counts of one step, without its gradients.
fn counted(trained: &mut Trained<'_>) -> String {
    let counter = Arc::new(Counter::default());
    let observation = FusionObservation::new(counter.clone());
    trained.step();
    drop(observation);
    let [operations, tensors] =
        [&counter.operations, &counter.tensors].map(|count| count.load(Relaxed));
    let stats = trained.optim.last_step_stats().unwrap_or_default();
    format!(
        "{operations} operations of Burn's, which name {tensors} tensors; {} tensors made, {} waits for servers, \
         {} dispatches",
        stats.tensors_made, stats.server_calls, stats.dispatches
    )
}

fn quantiles(times: &[Times], of: fn(&Times) -> f64) -> [f64; 3] {
    let mut sorted: Vec<_> = times.iter().map(of).collect();
    sorted.sort_by(f64::total_cmp);
    [0, sorted.len() / 4, sorted.len() / 2].map(|at| sorted[at])
}

fn print(name: &str, tensors: usize, times: &[Times]) {
    let host = quantiles(times, |times| times.ascent + times.descent);
    let [ascent, descent, whole] = [
        quantiles(times, |t| t.ascent),
        quantiles(times, |t| t.descent),
        quantiles(times, |t| t.whole),
    ];
    let each = host.map(|seconds| seconds * 1e6 / tensors as f64);
    println!(
        "  {name:14} host, us a tensor: least {:.2}, quartile {:.2}, median {:.2}; us: ascent {:.0}, descent {:.0}; \
         whole, ms: least {:.2}, quartile {:.2}, median {:.2}",
        each[0],
        each[1],
        each[2],
        ascent[0] * 1e6,
        descent[0] * 1e6,
        whole[0] * 1e3,
        whole[1] * 1e3,
        whole[2] * 1e3
    );
}

fn main() {
    let mut words = std::env::args().skip(1).filter(|word| !word.starts_with("--"));
    let rounds = words.next().and_then(|word| word.parse().ok()).unwrap_or(50);
    let part = words.next().unwrap_or_default();
    let device = engine_steps::shared().autodiff();
    let (engine, adapter) = engine_steps::engine();
    println!("{}, SGD + momentum, {rounds} rounds", adapter.name);
    let hyper = Hyperparameters {
        non_finite: NonFinite::Propagate,
        ..Hyperparameters::new(engine_steps::bases()[1].1)
    };
    let (_, config, _) = &bases()[0];
    let mut all = sets::sets();
    all.insert(0, sets::Set { name: "160 x 576", lens: vec![576; 160] });
    for set in all.iter().filter(|set| set.name.contains(&part)) {
        let raw = Model::new(&engine, &set.lens, 5);
        let steps = Steps::new(&raw, false);
        let random = Flat::new(&set.lens, &device).random_grads(&device.clone().inner());
        let trained = |clones| Trained {
            device: &device,
            optim: wsam(config, Fused, false, &device),
            model: Some(Flat::new(&set.lens, &device)),
            random: &random,
            clones,
        };
        let (mut in_place, mut replacing) = (trained(false), trained(true));
        let engine_step = || {
            let (times, _) = steps.run(&engine, &hyper).expect("a valid step");
            let host = (times.recording + times.submitting).as_secs_f64();
            Times { ascent: host, descent: 0.0, whole: times.whole.as_secs_f64() }
        };
        let mut times: [Vec<Times>; 3] = Default::default();
        for round in 0..rounds + 5 {
            let row = [engine_step(), in_place.step(), replacing.step()];
            if round >= 5 {
                times.iter_mut().zip(row).for_each(|(times, one)| times.push(one));
            }
        }
        println!("{}, {} tensors", set.name, set.lens.len());
        for (name, times) in ["engine", "in place", "out of place"].iter().zip(&times) {
            print(name, set.lens.len(), times);
        }
        let ratio = |place: usize| {
            let ratios: Vec<_> = times[place]
                .iter()
                .zip(&times[0])
                .map(|(burn, engine)| Times { whole: burn.whole / engine.whole, ..*burn })
                .collect();
            quantiles(&ratios, |times| times.whole)[2]
        };
        println!("  over the engine's: in place {:.2}, out of place {:.2}", ratio(1), ratio(2));
        println!("  in place: {}", counted(&mut in_place));
        println!("  out of place: {}", counted(&mut replacing));
    }
}
