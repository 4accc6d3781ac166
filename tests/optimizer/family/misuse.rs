//! Refused configurations and calls.

use super::{bases, methods, momentum, sam};
use crate::Target;
use crate::misuse::refused;
use crate::nets::{Mlp, grads, parameters, text};
use burn::config::Config;
use burn::optim::SgdConfig;
use burn::tensor::Device;
use burn_wsam::{
    AeSamConfig, BaseConfig, FriendlySamConfig, GroupConfig, GsamConfig, IntervalConfig,
    LookSamConfig, MethodConfig, NonFinitePolicy, PassRuleConfig, SgdBaseConfig, WsamConfig,
    WsamError,
};

fn is_conflict(error: &WsamError) -> bool {
    matches!(error, WsamError::Conflict { .. })
}

/// Pairs of options that make no sense together, and constants out of their domains. Each error names both options, or
/// the constant and its value.
pub(crate) fn configurations() -> Result<(), String> {
    let device = Device::flex();
    let base = || WsamConfig::new(momentum().into());
    let interval = || IntervalConfig::new(2).into();
    let msam = || base().with_method(MethodConfig::MomentumSam);
    let looksam = |k| LookSamConfig::new().with_k(k);
    let bias = GroupConfig::new(burn::module::ParamGroup::from_predicate("bias"));
    let conflicts: Vec<(WsamConfig, [&str; 2])> = vec![
        (msam().with_base(SgdBaseConfig::new()), ["Momentum-SAM", "SGD without momentum"]),
        (msam().with_adaptive(true), ["Momentum-SAM", "adaptive"]),
        (msam().with_pass_rule(interval()), ["Momentum-SAM", "interval"]),
        (base().with_method(looksam(5).into()).with_pass_rule(interval()), ["LookSAM", "interval"]),
        (
            base()
                .with_method(GsamConfig::new().into())
                .with_groups(vec![bias.with_gamma(Some(0.5))]),
            ["GSAM", "gamma of a group"],
        ),
        (
            base()
                .with_pass_rule(AeSamConfig::new(9).into())
                .with_non_finite(NonFinitePolicy::Propagate),
            ["AE-SAM's rule", "non_finite = Propagate"],
        ),
    ];
    for (config, names) in conflicts {
        match config.init(&device) {
            Err(error) if is_conflict(&error) && names.iter().all(|n| text(&error).contains(n)) => {
            }
            other => return Err(format!("{config}: {:?}", other.map(|_| "accepted"))),
        }
    }
    for method in methods() {
        let config = base().with_method(method).with_lean(true);
        match config.init(&device) {
            Err(error) if is_conflict(&error) && text(&error).contains("lean mode") => {}
            other => return Err(format!("{config}: {:?}", other.map(|_| "accepted"))),
        }
    }
    let outside: Vec<(MethodConfig, PassRuleConfig, &str)> = vec![
        (GsamConfig::new().with_alpha(-0.5).into(), PassRuleConfig::EveryStep, "alpha is -0.5"),
        (
            FriendlySamConfig::new().with_lambda(1.5).into(),
            PassRuleConfig::EveryStep,
            "lambda is 1.5",
        ),
        (
            FriendlySamConfig::new().with_sigma(f64::NAN).into(),
            PassRuleConfig::EveryStep,
            "sigma is NaN",
        ),
        (looksam(0).into(), PassRuleConfig::EveryStep, "k is 0"),
        (MethodConfig::Wsam, IntervalConfig::new(0).into(), "interval is 0"),
        (MethodConfig::Wsam, AeSamConfig::new(0).into(), "steps of AE-SAM is 0"),
    ];
    for (method, rule, message) in outside {
        let config = base().with_method(method).with_pass_rule(rule);
        match config.init(&device) {
            Err(WsamError::Hyperparameter(error)) if text(&error).contains(message) => {}
            other => return Err(format!("{message}: {:?}", other.map(|_| "accepted"))),
        }
    }
    let burn = WsamConfig::burn().with_method(MethodConfig::MomentumSam);
    match burn.init_with(SgdConfig::new().init(), &device) {
        Err(WsamError::NotWithBurnOptimizer { what }) if what.contains("Momentum-SAM") => {}
        other => return Err(format!("Momentum-SAM around SGD: {:?}", other.map(|_| "accepted"))),
    }
    Ok(())
}

/// A configuration is the same after it was serialised.
pub(crate) fn serialisation() -> Result<(), String> {
    for method in methods() {
        for rule in [IntervalConfig::new(3).into(), AeSamConfig::new(100).into()] {
            let config = WsamConfig::new(bases()[3].clone())
                .with_method(method.clone())
                .with_pass_rule(rule)
                .with_start_step(7);
            let back = WsamConfig::load_binary(config.to_string().as_bytes()).map_err(text)?;
            if back.to_string() != config.to_string() {
                return Err(format!("{back}, expected {config}"));
            }
        }
    }
    Ok(())
}

/// Calls that the next step does not take, and setters of another method.
pub(crate) fn calls(target: &Target) -> Result<(), String> {
    let is_next = |error: &WsamError| matches!(error, WsamError::NextStep { .. });
    let with = |method: MethodConfig| target.init(&sam(momentum().into()).with_method(method));
    let model = Mlp::new(&target.device);
    let first = || grads(&model.exact(0), &model);

    let mut optim = with(MethodConfig::MomentumSam)?;
    let ascended = optim.ascend(model.clone(), first()).map(|ascended| ascended.restore());
    refused("ascend", ascended, &parameters(&model), is_next)?;
    let stepped = optim.one_pass_step(0.1, model.clone(), first());
    refused("one_pass_step", stepped, &parameters(&model), is_next)?;
    if !optim.set_gamma(0.5).is_err_and(|error| is_conflict(&error)) {
        return Err("Momentum-SAM has no gamma".to_owned());
    }
    if !optim.set_method(GsamConfig::new()).is_err_and(|error| is_conflict(&error)) {
        return Err("another method was set".to_owned());
    }

    let mut optim = with(LookSamConfig::new().with_k(2).into())?;
    let stepped = optim.one_pass_step(0.1, model.clone(), first());
    refused("one_pass_step", stepped, &parameters(&model), is_next)?;
    let along = optim.ascend_along_momentum(model.clone()).map(|ascended| ascended.restore());
    refused("ascend_along_momentum", along, &parameters(&model), is_next)?;
    let stepped = optim.step(0.1, model.clone(), |model| model.exact(0));
    let (model, _) = stepped.map_err(text)?;
    let first = || grads(&model.exact(1), &model);
    let ascended = optim.ascend(model.clone(), first()).map(|ascended| ascended.restore());
    refused("ascend in LookSAM's other steps", ascended, &parameters(&model), is_next)?;
    optim.set_method(LookSamConfig::new().with_k(3)).map_err(text)?;
    if !optim
        .set_method(LookSamConfig::new().with_k(0))
        .is_err_and(|error| matches!(error, WsamError::Hyperparameter(_)))
    {
        return Err("k 0 was set".to_owned());
    }
    // The step of the base optimizer is always possible, and does not advance the cycle.
    let next = optim.next_step().map_err(text)?;
    let model = optim.base_step(0.1, model.clone(), first()).map_err(text)?;
    if optim.next_step().map_err(text)? != next {
        return Err("a base step advanced the cycle".to_owned());
    }
    drop(model);
    Ok(())
}

/// A policy for parameters without a second gradient, under the methods that store a tensor.
pub(crate) fn missing(target: &Target) -> Result<(), String> {
    use burn_wsam::MissingGradientPolicy::{Hold, UseFirst};
    for method in methods().into_iter().take(3) {
        for policy in [Hold, UseFirst] {
            let config = sam(momentum().into())
                .with_method(method.clone())
                .with_missing_gradient(policy)
                .with_base(BaseConfig::from(SgdBaseConfig::new()));
            let mut optim = target.init(&config)?;
            let model = Mlp::new(&target.device);
            let first = grads(&model.exact(0), &model);
            let ascended = optim.ascend(model.clone(), first).map_err(text)?;
            // The second pass uses the second layer only.
            let perturbed = ascended.model();
            let loss = perturbed.b.weight.val().powi_scalar(2).sum()
                + perturbed.b.bias.as_ref().map_or_else(
                    || perturbed.b.weight.val().sum() * 0.0,
                    |bias| bias.val().powi_scalar(2).sum(),
                );
            let second = grads(&loss, perturbed);
            let stepped = optim.descend(0.1, ascended, second).map_err(text)?;
            let moved = parameters(&stepped.a) != parameters(&model.a);
            if moved != (policy == UseFirst) || parameters(&stepped.b) == parameters(&model.b) {
                return Err(format!("{config}: the first layer moved: {moved}"));
            }
            let id = model.a.weight.id;
            let has_state = optim.state(id).map_err(text)?.is_some();
            if has_state != (policy == UseFirst) {
                return Err(format!("{config}: a state of the first layer: {has_state}"));
            }
        }
    }
    Ok(())
}
