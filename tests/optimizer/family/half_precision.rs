//! Every method on a parameter in f32 and one in f16, with master weights, on given gradients.

use super::{methods, momentum};
use crate::Target;
use crate::half_precision::{Mixed, values};
use crate::nets::{fork, text};
use burn_wsam::reference::Oracle;
use burn_wsam::{AdamWBaseConfig, BaseConfig, MASTER_WEIGHTS, NextStep, Wsam, WsamConfig};
use burn_wsam_support::replay::{Tolerance, Worst, compare};

/// Without an L2 penalty: tensor operations take it from the rounded perturbed weights, and kernels from the others.
fn configs() -> Vec<WsamConfig> {
    let bases: [BaseConfig; 2] =
        [momentum().with_weight_decay(None).into(), AdamWBaseConfig::new().into()];
    let config = |(base, method): (&BaseConfig, burn_wsam::MethodConfig)| {
        let config = WsamConfig::new(base.clone()).with_rho(1.0).with_max_norm(Some(2.0));
        config.with_method(method).with_master_weights(true)
    };
    let pairs =
        methods().into_iter().flat_map(|method| bases.each_ref().map(|b| (b, method.clone())));
    pairs.map(config).collect()
}

/// A step by the calls that `next_step` names, on the gradients of two seeds.
fn step(optim: &mut Wsam, model: Mixed, seed: u64) -> Result<Mixed, String> {
    match optim.next_step().map_err(text)? {
        NextStep::OnePass => {
            let grads = model.grads(seed);
            optim.one_pass_step(0.1, model, grads).map_err(text)
        }
        NextStep::AlongMomentum => {
            let ascended = optim.ascend_along_momentum(model).map_err(text)?;
            let grads = ascended.model().grads(seed);
            optim.descend(0.1, ascended, grads).map_err(text)
        }
        _ => {
            let grads = model.grads(seed);
            let ascended = optim.ascend(model, grads).map_err(text)?;
            let grads = ascended.model().grads(seed + 1);
            optim.descend(0.1, ascended, grads).map_err(text)
        }
    }
}

/// The weights in f32, and the master weights of the half.
fn masters(optim: &Wsam, model: &Mixed) -> Result<Vec<Vec<f64>>, String> {
    let mut weights = model.read()?;
    let state = optim.state(model.ids()[1]).map_err(text)?.ok_or("no state")?;
    let master = state.tensors.iter().find(|(name, _)| *name == MASTER_WEIGHTS);
    weights[1] = master.ok_or("no master weights")?.1.iter::<f64>().collect();
    Ok(weights)
}

pub(crate) fn oracle(target: &Target) -> Result<(), String> {
    for config in configs() {
        let mut optim = target.init(&config)?;
        let mut model = Mixed::new(&values(1), &target.device);
        let hyper = optim.hyperparameters().clone();
        let mut oracle = Oracle::new(hyper, values(1).to_vec());
        let mut worst = Worst::default();
        for seed in [2, 4, 6, 8, 10] {
            match optim.next_step().map_err(text)? {
                NextStep::TwoPasses => {
                    oracle.ascent(&values(seed)).map_err(text)?;
                    oracle.descent(0.1, &values(seed + 1)).map_err(text)?;
                }
                _ => oracle.one_pass_step(0.1, &values(seed)).map_err(text)?,
            }
            model = step(&mut optim, model, seed)?;
            let got = masters(&optim, &model)?;
            // Sums of tensors of order 1 over some steps.
            let tolerance = Tolerance { rtol: 2e-5, atol: 2e-6, share: 1e-4 };
            compare(seed as usize, "weight", &got, oracle.weights(), tolerance, &mut worst)
                .map_err(|error| format!("{config}: {error}"))?;
        }
    }
    Ok(())
}

pub(crate) fn resume(target: &Target) -> Result<(), String> {
    for config in configs() {
        let mut optim = target.init(&config)?;
        let mut model = Mixed::new(&values(1), &target.device);
        for seed in [2, 4] {
            model = step(&mut optim, model, seed)?;
        }
        let bytes = optim.to_bytes(&model).map_err(text)?;
        let mut resumed = target.init(&config)?;
        resumed.load_bytes(&model, bytes).map_err(text)?;
        let mut twin = fork(&model);
        for seed in [6, 8, 10] {
            model = step(&mut optim, model, seed)?;
            twin = step(&mut resumed, twin, seed)?;
        }
        if model.read()? != twin.read()? {
            return Err(format!("{config}: the resumed run differs"));
        }
    }
    Ok(())
}
