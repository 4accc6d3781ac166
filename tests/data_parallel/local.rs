//! Steps over replicas on one device, compared with steps without replicas.

use super::Target;
use super::nets::{Mlp, data, parameters, same, text};
use burn::module::Module;
use burn::tensor::{Device, Tensor, activation::relu};
use burn_wsam::{AdamWBaseConfig, Perturbation, Replicas, SgdBaseConfig, Shard, WsamConfig};
use std::sync::{Arc, Mutex};

pub(crate) const SCOPES: [Perturbation; 2] = [Perturbation::Whole, Perturbation::EachMicroBatch];

const STEPS: u64 = 20;

/// Replicas whose batches are numbers of data, with this loss.
pub(crate) fn replicas<M: Module + 'static>(
    devices: &[Device],
    loss: impl Fn(&M, u64) -> Tensor<1> + Send + Sync + 'static,
) -> Result<Replicas<M, u64>, String> {
    let mut replicas =
        Replicas::new(|batch: u64, _: &Device| batch, move |model: &M, batch| loss(model, *batch));
    for (place, device) in devices.iter().enumerate() {
        replicas.add(format!("replica {place}"), device).map_err(text)?;
    }
    Ok(replicas)
}

pub(crate) fn shards(batches: &[u64]) -> Vec<Shard<u64>> {
    batches.iter().map(|batch| Shard::new(*batch, 1.0)).collect()
}

/// The rows `from..to` of one batch of 7.
fn rows(model: &Mlp, from: usize, to: usize, at: u64) -> Tensor<1> {
    let device = model.a.weight.device();
    let x: Tensor<2> = data([7, 5], at, &device);
    let y: Tensor<2> = data([7, 3], 1000 + at, &device);
    let (x, y) = (x.narrow(0, from, to - from), y.narrow(0, from, to - from));
    (model.b.forward(relu(model.a.forward(x))) - y).powi_scalar(2).mean()
}

/// Three replicas with 2, 4 and 1 of 7 rows take the steps of one batch of 7 rows, whose gradients differ only in the
/// order of their sums.
pub(crate) fn one_batch(target: &Target) -> Result<(), String> {
    const LR: f64 = 0.05;
    const GAMMA: f64 = 0.6;
    let config = WsamConfig::new(SgdBaseConfig::new().into()).with_gamma(GAMMA).with_rho(0.05);
    let (mut optim, mut plain) = (target.init(&config)?, target.init(&config)?);
    let mut replicas = Replicas::new(
        |(from, to, at): (usize, usize, u64), _: &Device| (from, to, at),
        |model: &Mlp, (from, to, at)| rows(model, *from, *to, *at),
    );
    for place in 0..3 {
        replicas.add(place.to_string(), &target.device).map_err(text)?;
    }
    let mut model = Mlp::new(&target.device);
    let mut want = model.clone();
    for at in 0..STEPS {
        let shards = [(0, 2), (2, 6), (6, 7)]
            .map(|(from, to)| Shard::new((from, to, at), (to - from) as f64));
        let stepped = optim.step_data_parallel(
            LR,
            model,
            Perturbation::Whole,
            &mut replicas,
            shards.to_vec(),
        );
        let (stepped, report) = stepped.map_err(text)?;
        let (stepped_want, report_want) =
            plain.step(LR, want, |model| rows(model, 0, 7, at)).map_err(text)?;
        (model, want) = (stepped, stepped_want);
        near_loss(report.step.loss(), report_want.loss())?;
        let perturbed = report.step.perturbed_loss().zip(report_want.perturbed_loss());
        let (perturbed, perturbed_want) = perturbed.ok_or("no loss of the second pass")?;
        near_loss(perturbed, perturbed_want)?;
        // An element of a gradient is a sum of at most n = 7 * 3 * 19 products of numbers below 4, so two orders
        // of summation differ by at most 2 n u times the largest sum, which is below 4 in these runs. The update
        // is lr ((1 - alpha) g + alpha g~), and errors of earlier steps grow by lr times the curvature, below 10.
        let alpha = GAMMA / (1.0 - GAMMA);
        let one_step = LR * (1.0 + 2.0 * alpha) * 2.0 * 399.0 * 2f64.powi(-24) * 4.0;
        let growth = (1.0 + LR * 10.0_f64.min(1.0)).powi(at as i32);
        within(&format!("step {at}"), &model, &want, (at + 1) as f64 * one_step * growth)?;
    }
    Ok(())
}

fn near_loss(got: Tensor<1>, want: Tensor<1>) -> Result<(), String> {
    let (got, want) = (got.into_scalar::<f32>(), want.into_scalar::<f32>());
    let right = (got - want).abs() <= 1e-5 * want.abs();
    if right { Ok(()) } else { Err(format!("loss {got}, expected {want}")) }
}

fn within(what: &str, got: &Mlp, want: &Mlp, tolerance: f64) -> Result<(), String> {
    for ((path, got), (_, want)) in parameters(got).iter().zip(&parameters(want)) {
        for (got, want) in got.iter().zip(want) {
            let right = f64::from((got - want).abs()) <= tolerance;
            if !right {
                return Err(format!("{what}: {path} is {got}, expected {want} ± {tolerance:e}"));
            }
        }
    }
    Ok(())
}

/// Steps equal those over micro-batches with the same weights on one device, bit for bit.
pub(crate) fn accumulated(target: &Target) -> Result<(), String> {
    for (scope, lean) in SCOPES.into_iter().flat_map(|scope| [(scope, false), (scope, true)]) {
        let config = WsamConfig::new(AdamWBaseConfig::new().into())
            .with_rho(0.1)
            .with_gamma(0.8)
            .with_lean(lean);
        let (mut optim, mut single) = (target.init(&config)?, target.init(&config)?);
        let devices = vec![target.device.clone(); 3];
        let mut replicas = replicas(&devices, Mlp::exact)?;
        let mut model = Mlp::new(&target.device);
        let mut want = model.clone();
        let weights = [1.0, 2.0, 1.0];
        for at in 0..STEPS {
            // Schedules may change these between steps.
            for optim in [&mut optim, &mut single] {
                optim.set_rho(0.1 + 0.01 * at as f64).map_err(text)?;
            }
            let batches = [10 * at, 10 * at + 1, 10 * at + 2];
            let shards = batches.iter().zip(weights).map(|(b, w)| Shard::new(*b, w)).collect();
            let stepped = optim.step_data_parallel(0.01, model, scope, &mut replicas, shards);
            model = stepped.map_err(text)?.0;
            let stepped = single.step_accumulated_weighted(
                0.01,
                want,
                scope,
                &batches,
                &weights,
                |model, batch| model.exact(*batch),
            );
            want = stepped.map_err(text)?.0;
            let what = format!("{scope:?}, lean {lean}, step {at}");
            same(&what, &model, &parameters(&want))?;
        }
    }
    Ok(())
}

/// Weights by pass, as the replicas see them.
type Seen = Arc<Mutex<Vec<(u64, Vec<(String, Vec<f32>)>)>>>;

/// All replicas have the same weights in the first pass, and with [`Perturbation::Whole`] in the second one.
pub(crate) fn equal_weights(target: &Target) -> Result<(), String> {
    for scope in SCOPES {
        let config = WsamConfig::new(AdamWBaseConfig::new().into());
        let mut optim = target.init(&config)?;
        let seen = Seen::default();
        let devices = vec![target.device.clone(); 3];
        let mut replicas = replicas(&devices, {
            let seen = seen.clone();
            move |model: &Mlp, batch| {
                if let Ok(mut seen) = seen.lock() {
                    seen.push((batch, parameters(model)));
                }
                model.loss(batch)
            }
        })?;
        let mut model = Mlp::new(&target.device);
        for at in 0..3 {
            let before = parameters(&model);
            let batches = shards(&[10 * at, 10 * at + 1, 10 * at + 2]);
            let stepped = optim.step_data_parallel(0.1, model, scope, &mut replicas, batches);
            model = stepped.map_err(text)?.0;
            let seen = std::mem::take(&mut *seen.lock().map_err(text)?);
            let of = |batch| seen.iter().filter(move |(b, _)| *b == batch).map(|(_, w)| w);
            let mut perturbed = Vec::new();
            for batch in [10 * at, 10 * at + 1, 10 * at + 2] {
                let [first, second] = of(batch).collect::<Vec<_>>()[..] else {
                    return Err(format!("batch {batch} did not have two passes"));
                };
                if *first != before {
                    return Err(format!("{scope:?}, batch {batch}: not the optimizer's weights"));
                }
                perturbed.push(second);
            }
            let equal = perturbed.windows(2).all(|pair| pair[0] == pair[1]);
            if equal != (scope == Perturbation::Whole) || perturbed.contains(&&before) {
                return Err(format!("{scope:?}: equal perturbed weights: {equal}"));
            }
        }
    }
    Ok(())
}

/// Losses are weighted averages, and bytes follow the formula of docs/data-parallel.md.
pub(crate) fn report(target: &Target) -> Result<(), String> {
    let config = WsamConfig::new(SgdBaseConfig::new().into());
    let model = Mlp::new(&target.device);
    let [first, second] = [3, 4].map(|at| model.loss(at).into_scalar::<f32>());
    let bytes = 4 * (5 * 19 + 19 + 19 * 3 + 3);
    for (scope, sends) in SCOPES.into_iter().zip([2, 1]) {
        let mut optim = target.init(&config)?;
        let mut replicas =
            replicas(&vec![target.device.clone(); 3], |model: &Mlp, b| model.loss(b))?;
        let shards = vec![Shard::new(3, 1.0), Shard::new(4, 3.0)];
        let stepped = optim.step_data_parallel(0.1, model.clone(), scope, &mut replicas, shards);
        let (_, report) = stepped.map_err(text)?;
        near_loss(
            report.step.loss() * 4.0,
            Tensor::from_data([first + 3.0 * second], &target.device),
        )?;
        let counted = (report.bytes_sent(), report.bytes_received());
        // Two replicas, each with two losses.
        let want = (2 * sends * bytes, 2 * (2 * bytes + 2 * 4));
        if counted != want {
            return Err(format!("{scope:?}: {counted:?} bytes, expected {want:?}"));
        }
        let names: Vec<_> = report.replicas.iter().map(|replica| &*replica.name).collect();
        if names != ["replica 0", "replica 1"] {
            return Err(format!("reports of {names:?}"));
        }
        for replica in &report.replicas {
            let ordered = replica.first_pass.start < replica.first_pass.end
                && replica.first_pass.end <= replica.second_pass.start
                && replica.second_pass.start < replica.second_pass.end
                && replica.second_pass.end <= replica.second_exchange.end;
            if !ordered {
                return Err(format!("{scope:?}: times {replica:?}"));
            }
        }
    }
    Ok(())
}
