//! Data-parallel training with several replicas.

use super::Target;
use super::nets::{Mlp, close, grads, parameters, same, text};
use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
#[cfg(feature = "fused-wsam")]
use burn::tensor::Device;
use burn::tensor::{Tensor, TensorData};
use burn_wsam::{AdamWBaseConfig, Perturbation, Wsam, WsamConfig};
use std::collections::HashMap;

const STEPS: u64 = 20;
const SCOPES: [Perturbation; 2] = [Perturbation::Whole, Perturbation::EachMicroBatch];

fn config() -> WsamConfig {
    WsamConfig::new(AdamWBaseConfig::new().into()).with_rho(0.1).with_gamma(0.8)
}

/// Gradients by parameter, as replicas exchange them.
type SentGrads = HashMap<ParamId, TensorData>;

fn send(model: &Mlp, grads: &GradientsParams) -> SentGrads {
    struct Send<'a>(&'a GradientsParams, SentGrads);
    impl ModuleVisitor for Send<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(grad) = self.0.get::<D>(param.id) {
                self.1.insert(param.id, grad.into_data());
            }
        }
    }
    let mut send = Send(grads, SentGrads::new());
    model.visit(&mut send);
    send.1
}

/// The average of the sent gradients, on the model's device.
fn average(model: &Mlp, sent: &[SentGrads]) -> GradientsParams {
    struct Receive<'a>(&'a [SentGrads], GradientsParams);
    impl ModuleVisitor for Receive<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let device = param.val().device().inner();
            let parts = self.0.iter().filter_map(|sent| sent.get(&param.id));
            let sum = parts
                .map(|data| Tensor::<D>::from_data(data.clone(), &device))
                .reduce(|sum, part| sum + part);
            if let Some(sum) = sum {
                // Multiplication by 1/2 is exact in every kernel.
                self.1.register(param.id, sum * (1.0 / self.0.len() as f32));
            }
        }
    }
    let mut receive = Receive(sent, GradientsParams::new());
    model.visit(&mut receive);
    receive.1
}

struct Replica {
    optim: Wsam,
    model: Mlp,
    data: u64,
}

impl Replica {
    fn gradient(&self, model: &Mlp, step: u64) -> GradientsParams {
        grads(&model.loss(10 * step + self.data), model)
    }
}

/// One step of all replicas, as described in the guide.
fn step(replicas: Vec<Replica>, scope: Perturbation, step: u64) -> Result<Vec<Replica>, String> {
    let local: Vec<_> = replicas.iter().map(|r| r.gradient(&r.model, step)).collect();
    let sent: Vec<_> = replicas.iter().zip(&local).map(|(r, g)| send(&r.model, g)).collect();
    let mut ascents = Vec::new();
    for (replica, local) in replicas.into_iter().zip(local) {
        let Replica { mut optim, model, data } = replica;
        let first = match scope {
            Perturbation::Whole => average(&model, &sent),
            Perturbation::EachMicroBatch => local,
            other => unimplemented!("{other:?}"),
        };
        let ascended = optim.ascend(model, first).map_err(text)?;
        ascents.push((optim, ascended, data));
    }
    let sent_perturbed: Vec<_> = ascents
        .iter()
        .map(|(_, ascended, data)| {
            send(
                ascended.model(),
                &grads(&ascended.model().loss(10 * step + data), ascended.model()),
            )
        })
        .collect();
    let mut stepped = Vec::new();
    for (mut optim, mut ascended, data) in ascents {
        if scope == Perturbation::EachMicroBatch {
            let model = ascended.restore();
            let first = average(&model, &sent);
            ascended = optim.ascend(model, first).map_err(text)?;
        }
        let second = average(ascended.model(), &sent_perturbed);
        let model = optim.descend(0.01, ascended, second).map_err(text)?;
        stepped.push(Replica { optim, model, data });
    }
    Ok(stepped)
}

/// Replicas with one optimizer each stay equal bit for bit, and match one optimizer with micro-batches.
pub(crate) fn own_optimizers(target: &Target) -> Result<(), String> {
    for scope in SCOPES {
        let start = Mlp::new(&target.device);
        let mut replicas = Vec::new();
        for data in [0, 1] {
            let (optim, model) = (target.init(&config())?, start.clone());
            replicas.push(Replica { optim, model, data });
        }
        let mut single = target.init(&config())?;
        let mut want = start;
        for at in 0..STEPS {
            replicas = step(replicas, scope, at)?;
            let what = format!("{scope:?}, step {at}");
            same(&what, &replicas[1].model, &parameters(&replicas[0].model))?;
            let batches = [10 * at, 10 * at + 1];
            let stepped = single
                .step_accumulated(0.01, want, scope, &batches, |model, batch| model.loss(*batch));
            want = stepped.map_err(text)?.0;
            close(&what, &replicas[0].model, &want)?;
        }
    }
    Ok(())
}

/// One optimizer with passes on two devices matches a run on one device.
#[cfg(feature = "fused-wsam")]
pub(crate) fn two_devices(target: &Target, other: &Device) -> Result<(), String> {
    for scope in SCOPES {
        let (mut optim, mut single) = (target.init(&config())?, target.init(&config())?);
        let mut model = Mlp::new(&target.device);
        let mut want = model.clone();
        let devices = [target.device.clone(), other.clone()];
        for at in 0..STEPS {
            let batches = [0, 1].map(|data| (10 * at + data, &devices[data as usize]));
            let stepped =
                optim.step_accumulated(0.01, model, scope, &batches, |model, (batch, device)| {
                    let replica = model.clone().to_device(device);
                    replica.loss(*batch).to_device(&target.device)
                });
            model = stepped.map_err(text)?.0;
            let stepped =
                single.step_accumulated(0.01, want, scope, &batches, |model, (batch, _)| {
                    model.loss(*batch)
                });
            want = stepped.map_err(text)?.0;
            close(&format!("{scope:?}, step {at}"), &model, &want)?;
        }
        let copy = model.clone().fork(other);
        same("a replica", &copy, &parameters(&model))?;
    }
    Ok(())
}
