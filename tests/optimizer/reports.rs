//! Reports of steps.

use super::Target;
use super::nets::{ConvNet, Mlp, config, fork, grads};
use burn::tensor::Tensor;
use burn_wsam::{AdamWBaseConfig, WsamConfig};

fn number(tensor: Tensor<1>) -> f64 {
    tensor.into_scalar::<f64>()
}

fn near(what: &str, got: f64, want: f64) -> Result<(), String> {
    let right = (got - want).abs() <= 1e-6 + 1e-5 * want.abs();
    if right { Ok(()) } else { Err(format!("{what} is {got}, expected {want}")) }
}

pub(crate) fn report(target: &Target) -> Result<(), String> {
    let mut optim = target.init(&config().with_rho(0.5))?;
    let model = Mlp::new(&target.device);
    let first = grads(&model.loss(0), &model);
    let ascended = optim.ascend(model.clone(), first).map_err(|error| error.to_string())?;
    let (at_anchor, at_perturbed) = (number(model.loss(0)), number(ascended.model().loss(0)));
    let model = ascended.restore();
    let (_, report) =
        optim.step(0.1, model, |model| model.loss(0)).map_err(|error| error.to_string())?;
    near("the loss", number(report.loss()), at_anchor)?;
    near("the perturbed loss", number(report.perturbed_loss().ok_or("one pass")?), at_perturbed)?;
    near("the sharpness", number(report.sharpness().ok_or("one pass")?), at_perturbed - at_anchor)?;
    let [loss, sharpness] = [report.loss_value().map(Some), report.sharpness_value()]
        .map(|value| value.map_err(|error| error.to_string()));
    near("the loss's value", loss?.ok_or("one pass")?, at_anchor)?;
    near("the sharpness's value", sharpness?.ok_or("one pass")?, at_perturbed - at_anchor)?;
    let printed = report.to_string();
    let begins = format!("loss {at_anchor:.4}");
    if printed.lines().count() != 1 || !printed.starts_with(&begins) {
        return Err(format!("{printed}, expected {begins}"));
    }
    if !printed.contains(", sharpness ") || !printed.contains(", ||g|| ") {
        return Err(format!("{printed} lacks the sharpness or the norm"));
    }
    let (_, skipped) = optim
        .step(0.1, Mlp::new(&target.device), |model| model.loss(0) * f32::NAN)
        .map_err(|error| error.to_string())?;
    if !skipped.to_string().ends_with(", skipped") {
        return Err(format!("{skipped} of a skipped step"));
    }
    if number(report.sharpness().ok_or("one pass")?) > 0.0 {
        Ok(())
    } else {
        Err("the perturbation reduced the loss".to_owned())
    }
}

pub(crate) fn norms(target: &Target) -> Result<(), String> {
    let text = |error: burn_wsam::WsamError| error.to_string();
    let step = |config: &WsamConfig| -> Result<(Option<f64>, Option<f64>), String> {
        let mut optim = target.init(config)?;
        let model = ConvNet::new(&target.device);
        let (_, report) =
            optim.step(0.1, model, |model| model.loss(0)).map_err(|error| error.to_string())?;
        let norms = (report.gradient_norm().map_err(text)?, report.perturbed_gradient_norm());
        Ok((norms.0, norms.1.map_err(text)?))
    };
    match step(&config())? {
        (Some(g), None) if g > 0.0 => {}
        other => return Err(format!("{other:?}, expected only ||g||")),
    }
    match step(&config().with_adaptive(true))? {
        (None, None) => {}
        other => return Err(format!("{other:?}, expected no norm")),
    }
    match step(&config().with_adaptive(true).with_track_norms(true))? {
        (Some(g), Some(g_perturbed)) if g > 0.0 && g_perturbed > 0.0 => {}
        other => return Err(format!("{other:?}, expected both norms")),
    }

    // The norm equals that of the gradients.
    let mut optim = target.init(&config().with_track_norms(true))?;
    let model = Mlp::new(&target.device);
    let square = |t: Option<Tensor<1>>| t.map_or(0.0, |t| number(t.powi_scalar(2).sum()));
    let first = grads(&model.loss(0), &model);
    let want: f64 = [&model.a, &model.b]
        .into_iter()
        .map(|layer| {
            let weight = first.get::<2>(layer.weight.id).map(|g| g.flatten::<1>(0, 1));
            let bias = layer.bias.as_ref().and_then(|bias| first.get::<1>(bias.id));
            square(weight) + square(bias)
        })
        .sum();
    let (_, report) =
        optim.step(0.1, model, |model| model.loss(0)).map_err(|error| error.to_string())?;
    near("||g||", report.gradient_norm().map_err(text)?.ok_or("no norm")?, want.sqrt())
}

pub(crate) fn loss_falls(target: &Target) -> Result<(), String> {
    for base in [config(), WsamConfig::new(AdamWBaseConfig::new().into())] {
        let mut optim = target.init(&base)?;
        let mut model = fork(&ConvNet::new(&target.device));
        let before = number(model.loss(0));
        for _ in 0..30 {
            let step = optim.step(0.01, model, |model| model.loss(0));
            (model, _) = step.map_err(|error| error.to_string())?;
        }
        let after = number(model.loss(0));
        let fell = after < 0.7 * before;
        if !fell {
            return Err(format!("{base}: the loss went from {before} to {after}"));
        }
    }
    Ok(())
}
