//! Parameter groups and learning rates by parameter.

use super::Target;
use super::misuse::refused;
use super::nets::{Mlp, config, grads, near, parameters, read, same, text};
use burn::lr_scheduler::linear::LinearLrSchedulerConfig;
use burn::lr_scheduler::module_lr_scheduler::{ModuleLearningRate, ModuleLrSchedulerConfig};
use burn::module::ParamGroup;
use burn::optim::SgdConfig;
use burn::optim::momentum::MomentumConfig;
use burn_wsam::reference::Oracle;
use burn_wsam::{AdamWBaseConfig, BaseConfig, GroupConfig, SgdBaseConfig, WsamConfig, WsamError};

/// Groups of an [`Mlp`]'s four parameters: `a.bias` is in no group, each of the others in one.
fn groups() -> Vec<GroupConfig> {
    vec![
        // Both weights match here; `a.weight` also matches the next group, and the last match applies.
        GroupConfig::new(ParamGroup::from_predicate("weight")).with_perturbed(false),
        GroupConfig::new(ParamGroup::from_path("a.weight"))
            .with_lr_factor(2.0)
            .with_weight_decay(Some(0.1))
            .with_adaptive(Some(true)),
        GroupConfig::new(ParamGroup::from_path("b.bias"))
            .with_rho(Some(0.3))
            .with_gamma(Some(0.5))
            .with_own_norm(true),
    ]
}

fn group_of(path: &str) -> usize {
    match path {
        "a.weight" => 2,
        "a.bias" => 0,
        "b.weight" => 1,
        "b.bias" => 3,
        other => panic!("an Mlp has no {other}"),
    }
}

fn wide(read: Vec<(String, burn::module::ParamId, Vec<f32>)>) -> Vec<Vec<f64>> {
    read.into_iter().map(|(.., values)| values.into_iter().map(f64::from).collect()).collect()
}

fn all_near(what: &str, got: &Mlp, want: &[Vec<f64>]) -> Result<(), String> {
    let got = parameters(got);
    if got.len() != want.len() {
        return Err(format!("{what}: {} parameters, expected {}", got.len(), want.len()));
    }
    let mut pairs = got.iter().zip(want);
    pairs.try_for_each(|((path, got), want)| near(&format!("{what}: {path}"), got, want))
}

pub(crate) fn oracle(target: &Target) -> Result<(), String> {
    let momentum = SgdBaseConfig::new().with_momentum(Some(MomentumConfig::new()));
    for base in [BaseConfig::from(momentum), AdamWBaseConfig::new().into()] {
        for decouple in [false, true] {
            for max_norm in [None, Some(0.5)] {
                let config = WsamConfig::new(base.clone())
                    .with_rho(0.1)
                    .with_gamma(0.8)
                    .with_decouple(decouple)
                    .with_max_norm(max_norm)
                    .with_groups(groups());
                for lean in [false, true] {
                    if decouple || !lean {
                        let config = config.clone().with_lean(lean);
                        four_steps(target, &config).map_err(|e| format!("{config}: {e}"))?;
                    }
                }
            }
        }
    }
    Ok(())
}

fn four_steps(target: &Target, config: &WsamConfig) -> Result<(), String> {
    let mut optim = target.init(config)?;
    let mut model = Mlp::new(&target.device);
    let of: Vec<_> = parameters(&model).iter().map(|(path, _)| group_of(path)).collect();
    let weights = wide(read(&model, None));
    let hyper = optim.hyperparameters().clone();
    let mut oracle = Oracle::with_groups(hyper, weights, &of).map_err(text)?;
    for batch in 0..4 {
        let before = parameters(&model);
        let first = grads(&model.loss(batch), &model);
        let want = oracle.ascent(&wide(read(&model, Some(&first)))).map_err(text)?;
        if config.lean {
            let ascended = optim.lean_ascend(0.01, model, first).map_err(text)?;
            all_near(&format!("w + e_w, step {batch}"), ascended.model(), &want)?;
            same("the unperturbed parameter", &ascended.model().b.weight, &[before[2].clone()])?;
            let second = grads(&ascended.model().loss(batch), ascended.model());
            let g_perturbed = wide(read(ascended.model(), Some(&second)));
            oracle.descent(0.01, &g_perturbed).map_err(text)?;
            model = optim.lean_descend(ascended, second).map_err(text)?;
        } else {
            let ascended = optim.ascend(model, first).map_err(text)?;
            all_near(&format!("w + e_w, step {batch}"), ascended.model(), &want)?;
            same("the unperturbed parameter", &ascended.model().b.weight, &[before[2].clone()])?;
            let second = grads(&ascended.model().loss(batch), ascended.model());
            let g_perturbed = wide(read(ascended.model(), Some(&second)));
            oracle.descent(0.01, &g_perturbed).map_err(text)?;
            model = optim.descend(0.01, ascended, second).map_err(text)?;
        }
        all_near(&format!("w, step {batch}"), &model, oracle.weights())?;
    }
    Ok(())
}

/// Burn's learning rates by parameter give the same weights as Burn's own optimizer at gamma 0.
pub(crate) fn rates(target: &Target) -> Result<(), String> {
    let schedule = || {
        ModuleLrSchedulerConfig::new(LinearLrSchedulerConfig::new(0.1, 0.01, 5).into())
            .with_group(
                ParamGroup::from_predicate("bias"),
                LinearLrSchedulerConfig::new(0.5, 0.05, 5),
            )
            .init()
    };
    let momentum = || Some(MomentumConfig::new());
    let base = SgdBaseConfig::new().with_momentum(momentum());
    for (decouple, lean) in [(false, false), (true, false), (true, true)] {
        let config = WsamConfig::new(base.clone().into())
            .with_gamma(0.0)
            .with_decouple(decouple)
            .with_lean(lean);
        let mut optim = target.init(&config)?;
        let mut burn = SgdConfig::new().with_momentum(momentum()).init();
        let mut schedule = schedule().map_err(text)?;
        let mut ours = Mlp::new(&target.device);
        let mut theirs = ours.clone();
        for batch in 0..5 {
            let rates = schedule.step();
            let first = grads(&theirs.loss(batch), &theirs);
            theirs = burn.step(rates.clone(), theirs, first);
            (ours, _) = optim.step(rates, ours, |model| model.loss(batch)).map_err(text)?;
            super::nets::close(&format!("{config}, step {batch}"), &ours, &theirs)?;
        }
    }
    Ok(())
}

pub(crate) fn misuse(target: &Target) -> Result<(), String> {
    let missing = GroupConfig::new(ParamGroup::from_path("c.weight"));
    let there = GroupConfig::new(ParamGroup::from_path("a.bias"));
    let config = config().with_groups(vec![there, missing]);
    let mut optim = target.init(&config)?;
    let mut model = Mlp::new(&target.device);
    let before = parameters(&model);
    let first = grads(&model.loss(0), &model);
    model = refused(
        "a group that matches no parameter",
        optim.ascend(model, first),
        &before,
        |error| matches!(error, WsamError::EmptyGroup { group: 1 }),
    )?;
    let step = optim.step(ModuleLearningRate::default(), model, |model| model.loss(0));
    refused("no learning rate", step, &before, |error| matches!(error, WsamError::NoLearningRate))?;

    // A group whose parameters have no gradient is valid.
    let frozen = GroupConfig::new(ParamGroup::from_predicate("a."));
    let config = super::nets::config().with_groups(vec![frozen]);
    let mut optim = target.init(&config)?;
    let mut model = Mlp::new(&target.device);
    model.a = burn::module::Module::no_grad(model.a);
    optim.step(0.1, model, |model| model.loss(0)).map_err(text)?;

    let group = || GroupConfig::new(ParamGroup::from_predicate("a."));
    match optim.set_group(1, group()) {
        Err(WsamError::EmptyGroup { group: 1 }) => {}
        other => return Err(format!("a nonexistent group was set: {other:?}")),
    }
    match optim.set_group(0, group().with_rho(Some(f64::NAN))) {
        Err(WsamError::Hyperparameter(error)) if error.name == "rho of a group" => {}
        other => return Err(format!("a radius of NaN was set: {other:?}")),
    }
    optim.set_group(0, group().with_rho(Some(0.5))).map_err(text)?;
    match optim.hyperparameters().groups[0].rho {
        Some(0.5) => Ok(()),
        other => Err(format!("the group's rho is {other:?}")),
    }
}

/// A step with groups takes as many dispatches as one without, once all tensors are in arenas.
#[cfg(feature = "fused-wsam")]
pub(crate) fn dispatches(target: &Target) -> Result<(), String> {
    let dispatches = |config: &WsamConfig| {
        let mut optim = target.init(config)?;
        let mut model = Mlp::new(&target.device);
        for batch in 0..4 {
            (model, _) = optim.step(0.01, model, |model| model.loss(batch)).map_err(text)?;
        }
        Ok::<_, String>(optim.last_step_stats().map(|stats| stats.dispatches))
    };
    let base = || AdamWBaseConfig::new().into();
    let plain = dispatches(&WsamConfig::new(base()))?;
    let grouped = dispatches(&WsamConfig::new(base()).with_groups(groups()))?;
    if plain == grouped { Ok(()) } else { Err(format!("{grouped:?}, expected {plain:?}")) }
}
