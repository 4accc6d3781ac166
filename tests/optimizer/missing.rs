//! Parameters that have a gradient in only one of the two passes, and states of removed parameters.

use super::Target;
use super::misuse::refused;
use super::nets::{Mlp, data, grads, parameters, read, same, text};
use burn::module::{Module, Param};
use burn::optim::{GradientsParams, LionConfig};
use burn::tensor::Tensor;
use burn_wsam::reference::Oracle;
use burn_wsam::{AdamWBaseConfig, LossScaleConfig, MissingGradientPolicy, WsamConfig, WsamError};

fn adamw() -> WsamConfig {
    WsamConfig::new(AdamWBaseConfig::new().into()).with_max_norm(Some(0.3))
}

/// The gradients of both layers, or of `a` alone.
fn gradients_of(model: &Mlp, batch: u64, both: bool) -> GradientsParams {
    let mut gradients = model.loss(batch).backward();
    if both {
        return GradientsParams::from_grads(gradients, model);
    }
    let ids = [Some(model.a.weight.id), model.a.bias.as_ref().map(|bias| bias.id)];
    GradientsParams::from_params(
        &mut gradients,
        model,
        &ids.into_iter().flatten().collect::<Vec<_>>(),
    )
}

fn wide(values: Vec<f32>) -> Vec<f64> {
    values.into_iter().map(f64::from).collect()
}

pub(crate) fn policies(target: &Target) -> Result<(), String> {
    for scaled in [false, true] {
        let scale = scaled.then(|| LossScaleConfig::fixed(64.0));
        refuse(target, &adamw().with_loss_scale(scale.clone()))?;
        hold(target, &adamw().with_loss_scale(scale.clone()))?;
        use_first(target, &adamw().with_loss_scale(scale))?;
    }
    burn_base(target)
}

fn refuse(target: &Target, config: &WsamConfig) -> Result<(), String> {
    let mut optim = target.init(config)?;
    let mut model = Mlp::new(&target.device);
    let before = parameters(&model);
    for (first, second) in [(true, false), (false, true)] {
        let given = gradients_of(&model, 0, first);
        let ascended = optim.ascend(model, given).map_err(text)?;
        let given = gradients_of(ascended.model(), 0, second);
        let what = format!("gradients of b: {first}, {second}");
        model =
            refused(&what, optim.descend(0.1, ascended, given), &before, |error| match error {
                WsamError::MissingGradient { param } => first && param == "b.weight",
                WsamError::MissingFirstGradient { param } => second && param == "b.bias",
                _ => false,
            })?;
    }
    Ok(())
}

/// A held parameter keeps its weight, state and step count. The others are stepped; the norm of `g` includes the
/// held parameter's first gradient.
fn hold(target: &Target, config: &WsamConfig) -> Result<(), String> {
    let config = config.clone().with_missing_gradient(MissingGradientPolicy::Hold);
    let mut optim = target.init(&config)?;
    let mut model = Mlp::new(&target.device);
    for (first, second) in [(true, true), (true, false), (false, true)] {
        let given = gradients_of(&model, 0, first);
        let b = parameters(&model.b);
        let b_state = optim.state(model.b.weight.id).map_err(text)?;
        let ascended = optim.ascend(model, given).map_err(text)?;
        let given = gradients_of(ascended.model(), 0, second);
        let a = parameters(&ascended.model().a);
        model = optim.descend(0.1, ascended, given).map_err(text)?;
        if parameters(&model.a) == a {
            return Err("the other layer was not updated".into());
        }
        if first && second {
            continue;
        }
        same("the held layer", &model.b, &b)?;
        if optim.state(model.b.weight.id).map_err(text)? != b_state {
            return Err("a held parameter's state changed".into());
        }
    }
    // No parameter has a second gradient.
    let given = gradients_of(&model, 0, true);
    let before = parameters(&model);
    let ascended = optim.ascend(model, given).map_err(text)?;
    let none = optim.descend(0.1, ascended, GradientsParams::new());
    refused("no second gradients", none, &before, |error| {
        matches!(error, WsamError::NoGradients { gradients: 0 })
    })?;
    Ok(())
}

/// Compares with the oracle, which receives the first gradient in place of a missing second one.
fn use_first(target: &Target, config: &WsamConfig) -> Result<(), String> {
    let config = config.clone().with_missing_gradient(MissingGradientPolicy::UseFirst);
    let mut optim = target.init(&config)?;
    let mut model = Mlp::new(&target.device);
    let hyper = config.hyperparameters().map_err(text)?;
    let weights = read(&model, None).into_iter().map(|(_, _, values)| wide(values)).collect();
    let mut oracle = Oracle::new(hyper, weights);
    let scale = optim.loss_scale() as f32;
    for batch in 0..3 {
        let first = grads(&model.loss(batch), &model);
        let g: Vec<_> = read(&model, Some(&first)).into_iter().map(|(_, _, g)| wide(g)).collect();
        let first = grads(&(model.loss(batch) * scale), &model);
        let ascended = optim.ascend(model, first).map_err(text)?;
        oracle.ascent(&g).map_err(text)?;
        let second = gradients_of(ascended.model(), batch, batch == 1);
        let mut g_perturbed: Vec<_> =
            read(ascended.model(), Some(&second)).into_iter().map(|(_, _, g)| wide(g)).collect();
        let given = g_perturbed.len();
        g_perturbed.extend(g.into_iter().skip(given));
        let mut second = (ascended.model().loss(batch) * scale).backward();
        let ids: Vec<_> =
            read(ascended.model(), None).into_iter().map(|(_, id, _)| id).take(given).collect();
        let second = GradientsParams::from_params(&mut second, ascended.model(), &ids);
        model = optim.descend(0.01, ascended, second).map_err(text)?;
        oracle.descent(0.01, &g_perturbed).map_err(text)?;
        for ((path, got), want) in parameters(&model).iter().zip(oracle.weights()) {
            super::nets::near(&format!("{path}, step {batch}"), got, want)?;
        }
    }
    Ok(())
}

/// The policies with a Burn optimizer as the base.
fn burn_base(target: &Target) -> Result<(), String> {
    for policy in [MissingGradientPolicy::Hold, MissingGradientPolicy::UseFirst] {
        let config = WsamConfig::burn().with_missing_gradient(policy).with_route(target.policy);
        let lion = LionConfig::new().init();
        let mut optim = config.init_with(lion, &target.device).map_err(text)?;
        let model = Mlp::new(&target.device);
        let before = parameters(&model.b);
        let given = gradients_of(&model, 0, true);
        let ascended = optim.ascend(model, given).map_err(text)?;
        let given = gradients_of(ascended.model(), 0, false);
        let model = optim.descend(0.1, ascended, given).map_err(text)?;
        let held = parameters(&model.b) == before;
        if held != (policy == MissingGradientPolicy::Hold) {
            return Err(format!("{policy:?}: the layer without a second gradient, held: {held}"));
        }
    }
    Ok(())
}

#[derive(Module, Debug)]
struct One {
    weight: Param<Tensor<1>>,
}

fn squares(model: &One) -> Tensor<1> {
    model.weight.val().powi_scalar(2).mean()
}

/// `retain` removes the states of parameters that no longer exist, and `forget` the state of a parameter whose
/// shape changes under its id.
pub(crate) fn removed(target: &Target) -> Result<(), String> {
    let burn_base = WsamConfig::burn().with_route(target.policy);
    let lion = || burn_base.init_with(LionConfig::new().init(), &target.device);
    for external in [false, true] {
        let mut optim = match external {
            true => lion().map_err(text)?,
            false => target.init(&adamw())?,
        };
        let models = [Mlp::new(&target.device), Mlp::new(&target.device)];
        for model in &models {
            optim.step(0.1, model.clone(), |model| model.loss(0)).map_err(text)?;
        }
        optim.retain(&models[1]).map_err(text)?;
        let record = |model: &Mlp| -> Result<usize, String> {
            Ok(optim.to_record(model).map_err(text)?.into_bytes().map_err(text)?.len())
        };
        let (removed, kept) = (record(&models[0]), record(&models[1])?);
        let removed = removed.unwrap_or(0);
        if !external && removed >= kept {
            return Err(format!(
                "the removed model's record has {removed} bytes, the kept model's {kept}"
            ));
        }
        if external && removed != kept {
            return Err(format!(
                "a Burn optimizer's record must not depend on the model: {removed}, {kept}"
            ));
        }
    }

    let mut optim = target.init(&adamw())?;
    let weight = Param::from_tensor(data::<1>([6], 1, &target.device));
    let id = weight.id;
    let (_, _) = optim.step(0.1, One { weight }, squares).map_err(text)?;
    let again =
        || One { weight: Param::initialized(id, data::<1>([9], 1, &target.device).require_grad()) };
    let message = match optim.step(0.1, again(), squares) {
        Err(rejected) if matches!(rejected.error, WsamError::State { .. }) => rejected.to_string(),
        other => return Err(format!("another shape: {:?}", other.map(|_| ()))),
    };
    if !message.contains("Wsam::forget") {
        return Err(format!("{message} does not say what to call"));
    }
    optim.forget([id]).map_err(text)?;
    optim.step(0.1, again(), squares).map_err(text)?;
    match optim.state(id).map_err(text)? {
        Some(state) if state.step == 1 => Ok(()),
        other => Err(format!("after forget: {other:?}")),
    }
}
