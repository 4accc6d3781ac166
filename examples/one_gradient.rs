//! `Wsam` as a fused AdamW with one gradient a step, interleaved with Burn's own AdamW.
//!
//! The model has 320 small tensors, so the host's work and the number of kernels bound a step. The table has the time from
//! the gradients to the updated weights, without the passes.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, Distribution, Tensor};
use burn_wsam::{AdamWBaseConfig, Rejected, WsamConfig};
use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const LR: f64 = 1e-3;
const LAYERS: usize = 160;
const WARM_UP: usize = 5;
const STEPS: usize = 30;

#[derive(Module, Debug)]
struct Model {
    layers: Vec<Linear>,
}

impl Model {
    fn new(device: &Device) -> Self {
        Self { layers: (0..LAYERS).map(|_| LinearConfig::new(24, 24).init(device)).collect() }
    }

    fn grads(&self, x: &Tensor<2>) -> GradientsParams {
        let output = self.layers.iter().fold(x.clone(), |x, layer| layer.forward(x));
        GradientsParams::from_grads(output.powi_scalar(2).mean().backward(), self)
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let device = burn_wsam::device()?.autodiff();
    let x = Tensor::random([16, 24], Distribution::Default, &device);

    let mut fused = WsamConfig::adamw(AdamWBaseConfig::new()).init(&device)?;
    let mut fused_model = Model::new(&device);
    let mut burns = AdamWConfig::new().init();
    let mut burns_model = fused_model.clone();
    println!("{}\n", fused.route());

    let mut times = [Vec::new(), Vec::new()];
    for step in 0..WARM_UP + STEPS {
        let grads = fused_model.grads(&x);
        let fused_time;
        (fused_time, fused_model) =
            timed(&device, fused_model, |model| fused.base_step(LR, model, grads))?;
        let grads = burns_model.grads(&x);
        let burns_time;
        (burns_time, burns_model) =
            timed(&device, burns_model, |model| Ok(burns.step(LR, model, grads)))?;
        if step >= WARM_UP {
            times[0].push(fused_time);
            times[1].push(burns_time);
        }
    }

    println!("| Optimizer | Median | Quartiles |");
    println!("| --- | --- | --- |");
    for (name, times) in ["`Wsam::base_step`", "Burn's AdamW"].into_iter().zip(&mut times) {
        times.sort();
        let [low, median, high] = [1, 2, 3].map(|quarter| times[quarter * (STEPS - 1) / 4]);
        println!("| {name} | {median:.2?} | {low:.2?} to {high:.2?} |");
    }
    Ok(())
}

/// Time of a step on host and device, and the updated model.
fn timed(
    device: &Device,
    model: Model,
    step: impl FnOnce(Model) -> Result<Model, Rejected<Model>>,
) -> Result<(Duration, Model), Box<dyn Error>> {
    device.sync()?;
    let start = Instant::now();
    let model = step(model)?;
    device.sync()?;
    Ok((start.elapsed(), model))
}
