//! Models with more than trainable parameters.

use super::Target;
use super::local::{SCOPES, replicas, shards};
use super::nets::{ConvNet, config, data, fork, parameters, same, text};
use burn::module::{Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};

/// Statistics advance once a step, and are those of the first replica. A failed step leaves them unchanged.
pub(crate) fn statistics(target: &Target) -> Result<(), String> {
    for scope in SCOPES {
        let mut optim = target.init(&config())?;
        let devices = vec![target.device.clone(); 2];
        let mut replicas = replicas(&devices, |model: &ConvNet, batch| {
            assert!(batch < 1000, "a batch that panics");
            model.loss(batch)
        })?;
        let mut model = ConvNet::new(&target.device);
        for at in 0..3 {
            let want = fork(&model);
            drop(want.loss(at));
            drop(want.valid());
            let of = |model: &ConvNet| -> Vec<(String, Vec<f32>)> {
                let all = parameters(model).into_iter();
                all.filter(|(path, _)| path.contains("running")).collect()
            };
            let before = of(&model);
            let failed =
                optim.step_data_parallel(0.01, model, scope, &mut replicas, shards(&[at, 1000]));
            model = match failed {
                Ok(_) => return Err("a panic was accepted".to_owned()),
                Err(rejected) => *rejected.model,
            };
            if of(&model) != before {
                return Err(format!("{scope:?}: a failed step changed the statistics"));
            }
            let batches = shards(&[at, at + 100]);
            let stepped = optim.step_data_parallel(0.01, model, scope, &mut replicas, batches);
            model = stepped.map_err(text)?.0;
            drop(model.valid());
            let (got, want) = (of(&model), of(&want));
            if got.len() != 2 {
                return Err(format!("{} statistics", got.len()));
            }
            for ((path, got), (_, want)) in got.iter().zip(&want) {
                for (got, want) in got.iter().zip(want) {
                    let right = (got - want).abs() <= 1e-6 * (1.0 + want.abs());
                    if !right {
                        return Err(format!("{scope:?}, step {at}: {path} {got}, expected {want}"));
                    }
                }
            }
        }
    }
    Ok(())
}

/// One weight is frozen, and another is used twice.
#[derive(Module, Debug)]
struct Tied {
    frozen: Linear,
    first: Linear,
    again: Linear,
}

impl Tied {
    fn new(device: &Device) -> Self {
        device.seed(1);
        let first: Linear = LinearConfig::new(4, 4).with_bias(false).init(device);
        Self { frozen: LinearConfig::new(4, 4).init(device).no_grad(), again: first.clone(), first }
    }

    fn loss(&self, batch: u64) -> Tensor<1> {
        let x: Tensor<2> = data([6, 4], batch, &self.first.weight.device());
        let x = self.first.forward(self.frozen.forward(x)).tanh();
        self.again.forward(x).powi_scalar(2).mean()
    }
}

pub(crate) fn frozen_and_tied(target: &Target) -> Result<(), String> {
    for scope in SCOPES {
        let (mut optim, mut single) = (target.init(&config())?, target.init(&config())?);
        let mut replicas = replicas(&vec![target.device.clone(); 2], Tied::loss)?;
        let mut model = Tied::new(&target.device);
        let mut want = model.clone();
        for at in 0..4 {
            if at == 2 {
                // Changed frozen weights reach the replicas after `refresh`.
                for model in [&mut model, &mut want] {
                    let frozen = std::mem::replace(
                        &mut model.frozen.weight,
                        Param::from_tensor(Tensor::zeros([1, 1], &target.device)),
                    );
                    model.frozen.weight = frozen.map(|weight| (weight * 0.5).detach()).no_grad();
                }
                replicas.refresh();
            }
            let batches = [10 * at, 10 * at + 1];
            let stepped =
                optim.step_data_parallel(0.01, model, scope, &mut replicas, shards(&batches));
            model = stepped.map_err(text)?.0;
            let stepped =
                single.step_accumulated(0.01, want, scope, &batches, |model, b| model.loss(*b));
            want = stepped.map_err(text)?.0;
            super::nets::close(&format!("{scope:?}, step {at}"), &model, &want)?;
        }
    }
    Ok(())
}

/// A model with other parameters on the same replicas is copied to them.
pub(crate) fn another_model(target: &Target) -> Result<(), String> {
    for scope in SCOPES {
        let mut replicas = replicas(&vec![target.device.clone(); 2], Tied::loss)?;
        let mut models = Vec::new();
        for _ in 0..2 {
            let mut optim = target.init(&config())?;
            let model = Tied::new(&target.device);
            let stepped =
                optim.step_data_parallel(0.01, model, scope, &mut replicas, shards(&[1, 2]));
            models.push(stepped.map_err(text)?.0);
        }
        same("the second model", &models[1], &parameters(&models[0]))?;
    }
    Ok(())
}
