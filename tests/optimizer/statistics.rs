//! Running statistics in skipped and refused steps, and submodules in evaluation mode.

use super::Target;
use super::nets::{config, data, grads, parameters, text};
use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Dropout, DropoutConfig, Linear, LinearConfig};
use burn::optim::SgdConfig;
use burn::tensor::{Device, Tensor};
use burn_wsam::{
    BaseConfig, NonFinitePolicy, Perturbation, RunningStatistics, WsamConfig, WsamError,
};

#[derive(Module, Debug)]
struct Net {
    frozen: Linear,
    norm: BatchNorm,
    linear: Linear,
}

impl Net {
    fn new(device: &Device) -> Self {
        device.seed(1);
        Self {
            frozen: LinearConfig::new(5, 4).init(device).no_grad(),
            norm: BatchNormConfig::new(4).init(device),
            linear: LinearConfig::new(4, 3).init(device),
        }
    }

    /// One element of the input is `outlier`.
    fn loss(&self, batch: u64, outlier: f32) -> Tensor<1> {
        let device = self.linear.weight.device();
        let x: Tensor<2> = data([8, 5], batch, &device);
        let x = x.slice_fill([0..1, 0..1], outlier);
        self.linear.forward(self.norm.forward(self.frozen.forward(x))).powi_scalar(2).mean()
    }
}

/// Bits of all parameters and running statistics, after Burn's deferred updates of the statistics.
fn values(model: &Net) -> Vec<(String, Vec<u32>)> {
    drop(model.valid());
    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect();
    parameters(model).into_iter().map(|(path, values)| (path, bits(values))).collect()
}

fn policies() -> [NonFinitePolicy; 3] {
    [NonFinitePolicy::Skip, NonFinitePolicy::BaseStep, NonFinitePolicy::Refuse]
}

/// A step over an infinite input leaves weights and statistics unchanged, and does not affect the next step.
pub(crate) fn skipped(target: &Target) -> Result<(), String> {
    let configs = [
        (config(), false),
        (config().with_lean(true), false),
        (WsamConfig::new(BaseConfig::Burn), true),
    ];
    for (config, burn_base) in configs {
        for policy in policies() {
            if config.lean && policy == NonFinitePolicy::BaseStep {
                continue;
            }
            for parts in [0, 1, 2] {
                let what = format!("{policy:?}, {parts} micro-batches, {config}");
                let config = config.clone().with_non_finite(policy).with_route(target.policy);
                let init = || match burn_base {
                    true => config.init_with(SgdConfig::new().init(), &target.device),
                    false => config.init(&target.device),
                };
                let mut optim = init().map_err(text)?;
                let mut reference = init().map_err(text)?;
                let step = |optim: &mut burn_wsam::Wsam, model, outlier: f32| match parts {
                    0 => optim.step(0.05, model, |model: &Net| model.loss(1, outlier)),
                    parts => {
                        let perturbation = match parts {
                            1 => Perturbation::Whole,
                            _ => Perturbation::EachMicroBatch,
                        };
                        // The second micro-batch is finite.
                        let batches = [(2, outlier), (3, 0.1)];
                        optim.step_accumulated(0.05, model, perturbation, &batches, |model, at| {
                            model.loss(at.0, at.1)
                        })
                    }
                };
                let mut model = Net::new(&target.device);
                let mut want = model.clone().valid().train();
                for outlier in [0.2, f32::INFINITY, 0.3] {
                    let before = values(&model);
                    match step(&mut optim, model, outlier) {
                        Ok((stepped, _)) => model = stepped,
                        Err(rejected) => {
                            if outlier.is_finite() || policy != NonFinitePolicy::Refuse {
                                return Err(format!("{what}: {}", rejected.error));
                            }
                            model = *rejected.model;
                        }
                    }
                    if outlier.is_finite() {
                        (want, _) = step(&mut reference, want, outlier).map_err(text)?;
                    } else if values(&model) != before {
                        return Err(format!("{what}: {:?}, expected {before:?}", values(&model)));
                    }
                    if values(&model) != values(&want) {
                        return Err(format!(
                            "{what}: {:?}, expected {:?}",
                            values(&model),
                            values(&want)
                        ));
                    }
                }
            }
        }
    }
    Ok(())
}

/// A NaN loss skips the step, and finite statistics are restored too.
pub(crate) fn finite_statistics(target: &Target) -> Result<(), String> {
    let mut optim = target.init(&config())?;
    let mut model = Net::new(&target.device);
    for bad in [[f32::NAN, 1.0], [1.0, f32::NAN]] {
        let before = values(&model);
        let mut pass = 0;
        let stepped = optim.step(0.05, model, |model| {
            pass += 1;
            model.loss(1, 0.2) * bad[pass - 1]
        });
        (model, _) = stepped.map_err(text)?;
        if values(&model) != before {
            return Err(format!("{bad:?}: {:?}, expected {before:?}", values(&model)));
        }
    }
    // After `ascend` and `descend` the caller restores them.
    let before = values(&model);
    let statistics = RunningStatistics::of(&model);
    let first = grads(&model.loss(1, 0.2), &model);
    let ascended = optim.ascend(model, first).map_err(text)?;
    let second = grads(&(ascended.model().loss(1, 0.2) * f32::NAN), ascended.model());
    let model = optim.descend(0.05, ascended, second).map_err(text)?;
    let model = optim.restore_statistics_if_skipped(model, &statistics).map_err(text)?;
    if values(&model) != before {
        return Err("keep_statistics did not restore the statistics of a skipped step".into());
    }
    // A refused loss returns the unchanged model.
    let refused = optim.step(0.05, model, |model| {
        let x = model.norm.forward(data::<2>([8, 4], 1, &model.linear.weight.device()));
        x.flatten::<1>(0, 1)
    });
    match refused {
        Err(rejected) if matches!(&rejected.error, WsamError::LossShape { shape } if shape == &[32]) => {
            match values(&rejected.model) == before {
                true => Ok(()),
                false => Err("a refused step changed statistics".into()),
            }
        }
        other => Err(format!("an unreduced loss: {:?}", other.map(|_| ()))),
    }
}

#[derive(Module, Debug)]
struct Mixed {
    /// In evaluation mode, like `norm` and `dropout`.
    conv: Conv2d,
    norm: BatchNorm,
    dropout: Dropout,
    /// In training mode.
    own_norm: BatchNorm,
    linear: Linear,
}

impl Mixed {
    fn new(device: &Device) -> Self {
        device.seed(1);
        let norm: BatchNorm = BatchNormConfig::new(2).init(device);
        // Statistics that differ from the initial ones.
        let _ = norm.forward(data::<4>([6, 2, 4, 4], 5, device) * 3.0);
        Self {
            conv: Conv2dConfig::new([1, 2], [3, 3]).init(device).valid(),
            norm: norm.valid(),
            dropout: DropoutConfig::new(0.5).init().valid(),
            own_norm: BatchNormConfig::new(8).init(device),
            linear: LinearConfig::new(8, 3).init(device),
        }
    }

    fn features(&self) -> Tensor<2> {
        let device = self.linear.weight.device().inner();
        let x: Tensor<4> = data([6, 1, 4, 4], 1, &device);
        self.dropout.forward(self.norm.forward(self.conv.forward(x))).flatten(1, 3)
    }

    fn loss(&self) -> Tensor<1> {
        let features = Tensor::from_inner(self.features());
        self.linear.forward(self.own_norm.forward(features)).powi_scalar(2).mean()
    }
}

/// A submodule in evaluation mode stays in it, in the second pass and after the step.
pub(crate) fn modes(target: &Target) -> Result<(), String> {
    for lean in [false, true] {
        let mut optim = target.init(&config().with_lean(lean))?;
        let mut model = Mixed::new(&target.device);
        let read = |tensor: Tensor<2>| tensor.into_data().try_to_vec::<f32>().unwrap_or_default();
        let want = read(model.features());
        for _ in 0..2 {
            let mut outputs = Vec::new();
            let stepped = optim.step(0.05, model, |model| {
                outputs.push(read(model.features()));
                model.loss()
            });
            (model, _) = stepped.map_err(text)?;
            outputs.push(read(model.features()));
            if outputs.iter().any(|output| *output != want || want.is_empty()) {
                return Err(format!("lean {lean}: {outputs:?}, expected {want:?}"));
            }
            if model.conv.weight.val().is_autodiff() || model.norm.training.is_enabled() {
                return Err("a submodule left evaluation mode".into());
            }
        }
        if !model.own_norm.training.is_enabled() {
            return Err("the other layer left training mode".into());
        }
    }
    Ok(())
}
