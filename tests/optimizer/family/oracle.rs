//! Every method compared with the oracle, on the gradients of a network.

use super::{bases, methods};
use crate::Target;
use crate::nets::{Mlp, grads, near, read, text};
use burn::module::{ParamGroup, ParamId};
use burn::optim::GradientsParams;
use burn_wsam::reference::Oracle;
use burn_wsam::{GroupConfig, MethodConfig, NextStep, NonFinitePolicy, Wsam, WsamConfig};

fn values(read: &[(String, ParamId, Vec<f32>)]) -> Vec<Vec<f64>> {
    let widened = |values: &Vec<f32>| values.iter().copied().map(f64::from).collect();
    read.iter().map(|(_, _, values)| widened(values)).collect()
}

fn check(what: &str, got: &Mlp, want: &[Vec<f64>]) -> Result<(), String> {
    let got = read(got, None);
    if got.len() != want.len() {
        return Err(format!("{what}: {} parameters, expected {}", got.len(), want.len()));
    }
    let mut pairs = got.iter().zip(want);
    pairs.try_for_each(|((path, _, got), want)| near(&format!("{what}: {path}"), got, want))
}

/// The gradient of a batch times `factor`, and its values.
fn gradient(model: &Mlp, batch: u64, factor: f32) -> (GradientsParams, Vec<Vec<f64>>) {
    let grads = grads(&(model.loss(batch) * factor), model);
    let values = values(&read(model, Some(&grads)));
    (grads, values)
}

/// Runs ten steps by the calls that `next_step` names. `bad` says which passes have NaNs: step and pass.
fn match_oracle(target: &Target, config: &WsamConfig, bad: &[(u64, u64)]) -> Result<(), String> {
    let mut optim = target.init(config)?;
    let mut model = Mlp::new(&target.device);
    let groups: Vec<usize> = read(&model, None)
        .iter()
        .map(|(path, id, _)| {
            let last = config.groups.iter().rposition(|group| group.params.matches(id, Some(path)));
            last.map_or(0, |place| place + 1)
        })
        .collect();
    let weights = values(&read(&model, None));
    let mut oracle =
        Oracle::with_groups(optim.hyperparameters().clone(), weights, &groups).map_err(text)?;
    let factor = |batch, pass| if bad.contains(&(batch, pass)) { f32::NAN } else { 1.0 };
    for batch in 0..10 {
        let what = format!("{config}, step {batch}");
        model = match optim.next_step().map_err(text)? {
            NextStep::TwoPasses => {
                let (first, g) = gradient(&model, batch, factor(batch, 0));
                let want = oracle.ascent(&g).map_err(text)?;
                let ascended = optim.ascend(model, first).map_err(text)?;
                if factor(batch, 0) == 1.0 {
                    check(&format!("{what}, w + e_w"), ascended.model(), &want)?;
                }
                let (second, p) = gradient(ascended.model(), batch, factor(batch, 1));
                oracle.descent(0.01, &p).map_err(text)?;
                optim.descend(0.01, ascended, second).map_err(text)?
            }
            NextStep::AlongMomentum => {
                let want = oracle.gradient_point();
                let ascended = optim.ascend_along_momentum(model).map_err(text)?;
                check(&format!("{what}, w + e_w"), ascended.model(), &want)?;
                let (only, g) = gradient(ascended.model(), batch, factor(batch, 0));
                oracle.one_pass_step(0.01, &g).map_err(text)?;
                optim.descend(0.01, ascended, only).map_err(text)?
            }
            _ => {
                let (only, g) = gradient(&model, batch, factor(batch, 0));
                oracle.one_pass_step(0.01, &g).map_err(text)?;
                optim.one_pass_step(0.01, model, only).map_err(text)?
            }
        };
        check(&what, &model, oracle.weights())
            .map_err(|error| format!("{error}; {}", states(&optim, &model, &oracle)))?;
    }
    Ok(())
}

/// The largest difference of the method's states from the oracle's, for messages.
fn states(optim: &Wsam, model: &Mlp, oracle: &Oracle) -> String {
    let Some(want) = oracle.method_state().first() else { return "no state".to_owned() };
    let of = |(place, (path, id, _)): (usize, (String, ParamId, Vec<f32>))| {
        let state = optim.state(id).ok().flatten()?;
        let names = optim.hyperparameters().method.state_names();
        let (_, found) = state.tensors.into_iter().find(|(name, _)| names.contains(name))?;
        let pairs = found.iter::<f64>().zip(&want[place]).collect::<Vec<_>>();
        let largest = pairs.iter().map(|(got, want)| (got - *want).abs()).fold(0.0, f64::max);
        let length = pairs.iter().map(|(got, _)| got * got).sum::<f64>().sqrt();
        Some(format!("{path}: {largest:e} of a length of {length}"))
    };
    read(model, None).into_iter().enumerate().filter_map(of).collect::<Vec<_>>().join(", ")
}

fn config(base: usize, method: &MethodConfig) -> WsamConfig {
    WsamConfig::new(bases()[base].clone()).with_rho(0.1).with_method(method.clone())
}

pub(crate) fn every_base(target: &Target) -> Result<(), String> {
    for method in methods() {
        for base in 0..bases().len() {
            let config = config(base, &method);
            match_oracle(target, &config, &[])?;
            match_oracle(target, &config.clone().with_max_norm(Some(0.2)), &[])?;
            let perturbed_only = config.with_max_norm(Some(0.2)).with_clip_perturbed_only(true);
            match_oracle(target, &perturbed_only, &[])?;
        }
    }
    Ok(())
}

/// Adaptive perturbations, and groups that are not perturbed or have a norm of their own.
pub(crate) fn groups(target: &Target) -> Result<(), String> {
    let group = |name: &str| GroupConfig::new(ParamGroup::from_predicate(name));
    for (place, method) in methods().iter().enumerate() {
        let config = config(place % 2, method).with_max_norm(Some(0.4));
        let groups = vec![
            group("bias").with_perturbed(false).with_weight_decay(Some(0.0)),
            group("b.weight").with_own_norm(true).with_rho(Some(0.2)).with_lr_factor(0.5),
        ];
        match_oracle(target, &config.clone().with_groups(groups.clone()), &[])?;
        if matches!(method, MethodConfig::MomentumSam) {
            continue;
        }
        let config = config.with_adaptive(true).with_rho(0.5);
        match_oracle(target, &config, &[])?;
        match_oracle(target, &config.with_groups(groups), &[])?;
        let uneven = vec![group("a.weight").with_adaptive(Some(true))];
        match_oracle(target, &self::config(1, method).with_groups(uneven), &[])?;
    }
    Ok(())
}

/// Skipped steps and steps of the base optimizer, at every place of LookSAM's cycle, and in the first step.
pub(crate) fn non_finite(target: &Target) -> Result<(), String> {
    for policy in [NonFinitePolicy::Skip, NonFinitePolicy::BaseStep] {
        for (place, method) in methods().iter().enumerate() {
            let config = config((place + 1) % 4, method).with_non_finite(policy);
            match_oracle(target, &config, &[(0, 1), (1, 0), (4, 0), (4, 1), (6, 1), (8, 0)])?;
            match_oracle(target, &config, &[(0, 0), (3, 1), (5, 1), (7, 0)])?;
        }
    }
    Ok(())
}
