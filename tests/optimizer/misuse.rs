//! Invalid calls: each returns a typed error and the unchanged model.

use super::Target;
use super::nets::{Mlp, config, data, grads, parameters, same};
use burn::config::Config;
use burn::module::{Module, Param, ParamGroup};
use burn::optim::GradientsParams;
use burn::optim::momentum::MomentumConfig;
use burn::tensor::{DType, Device, Tensor};
use burn_wsam::{
    AdamBaseConfig, AdamWBaseConfig, BaseConfig, GroupConfig, Rejected, Route, RoutePolicy,
    SgdBaseConfig, TensorOpsReason, WsamConfig, WsamError,
};

/// Checks that the step was refused with an error that `right` accepts, and that the returned model is unchanged.
pub(crate) fn refused<T, M: Module>(
    what: &str,
    got: Result<T, Rejected<M>>,
    before: &[(String, Vec<f32>)],
    right: impl Fn(&WsamError) -> bool,
) -> Result<M, String> {
    match got {
        Ok(_) => Err(format!("{what} was accepted")),
        Err(Rejected { model, error }) if right(&error) => {
            same(what, &*model, before)?;
            Ok(*model)
        }
        Err(rejected) => Err(format!("{what}: {rejected:?}")),
    }
}

pub(crate) fn gradients(target: &Target) -> Result<(), String> {
    let mut optim = target.init(&config())?;
    let other = Mlp::new(&target.device);
    let mut model = Mlp::new(&target.device);
    let before = parameters(&model);

    let foreign = grads(&other.loss(0), &other);
    model = refused("foreign gradients", optim.ascend(model, foreign), &before, |error| {
        matches!(error, WsamError::NoGradients { gradients: 4 })
    })?;
    let mut misshapen = GradientsParams::new();
    let inner = target.device.clone().inner();
    misshapen.register(model.b.weight.id, data([3, 19], 0, &inner));
    model = refused(
        "a misshapen gradient",
        optim.ascend(model, misshapen),
        &before,
        |error| matches!(error, WsamError::Shape { param, .. } if param == "b.weight"),
    )?;
    let first = grads(&model.loss(0), &model);
    let ascended = optim.ascend(model, first).map_err(|error| error.to_string())?;
    let missing = GradientsParams::from_params(
        &mut ascended.model().loss(0).backward(),
        ascended.model(),
        &[ascended.model().a.weight.id],
    );
    model = refused(
        "a missing gradient",
        optim.descend(0.1, ascended, missing),
        &before,
        |e| matches!(e, WsamError::MissingGradient { param } if param == "a.bias"),
    )?;
    // The refused calls did not count as steps.
    optim.step(0.1, model, |model| model.loss(0)).map(|_| ()).map_err(|error| error.to_string())
}

pub(crate) fn learning_rates(target: &Target) -> Result<(), String> {
    let mut optim = target.init(&config())?;
    let mut model = Mlp::new(&target.device);
    let before = parameters(&model);
    for lr in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300] {
        let invalid = |error: &WsamError| {
            matches!(error, WsamError::Hyperparameter(h) if h.name == "lr"
                && h.value.to_bits() == lr.to_bits())
        };
        let mut passes = 0;
        let step = optim.step(lr, model, |model| {
            passes += 1;
            model.loss(0)
        });
        model = refused("an invalid lr", step, &before, invalid)?;
        if passes != 0 {
            return Err("the loss was computed although the lr is invalid".to_owned());
        }
        let first = grads(&model.loss(0), &model);
        let ascended = optim.ascend(model, first).map_err(|error| error.to_string())?;
        let second = grads(&ascended.model().loss(0), ascended.model());
        model = refused("an invalid lr", optim.descend(lr, ascended, second), &before, invalid)?;
        let first = grads(&model.loss(0), &model);
        model = refused("an invalid lr", optim.lean_ascend(lr, model, first), &before, invalid)?;
        let first = grads(&model.loss(0), &model);
        model = refused("an invalid lr", optim.base_step(lr, model, first), &before, invalid)?;
    }
    Ok(())
}

pub(crate) fn no_autodiff(target: &Target) -> Result<(), String> {
    let mut optim = target.init(&config())?;
    let mut model = Mlp::new(&target.device);
    let before = parameters(&model);
    let plain = |error: &WsamError| matches!(error, WsamError::NoAutodiff);
    let step = optim.step(0.1, model, |model| model.loss(0).inner());
    model = refused("a loss without autodiff", step, &before, plain)?;
    // Autodiff is missing only in the second pass.
    let mut passes = 0;
    let step = optim.step(0.1, model, |model| {
        passes += 1;
        if passes == 1 { model.loss(0) } else { model.loss(0).inner() }
    });
    model = refused("a second loss without autodiff", step, &before, plain)?;
    // The model itself has no autodiff.
    let step = optim.step(0.1, model.valid(), |model| model.loss(0));
    refused("a model without autodiff", step, &before, plain).map(drop)
}

pub(crate) fn foreign_ascent(target: &Target) -> Result<(), String> {
    let (mut one, mut other) = (target.init(&config())?, target.init(&config())?);
    let model = Mlp::new(&target.device);
    let before = parameters(&model);
    let first = grads(&model.loss(0), &model);
    let ascended = one.ascend(model, first).map_err(|error| error.to_string())?;
    let second = grads(&ascended.model().loss(0), ascended.model());
    let got = other.descend(0.1, ascended, second);
    refused("another optimizer's ascent", got, &before, |e| matches!(e, WsamError::ForeignAscent))
        .map(drop)
}

pub(crate) fn another_device(target: &Target) -> Result<(), String> {
    let flex = Device::flex().autodiff();
    if target.device == flex {
        return Ok(());
    }
    let mut optim = target.init(&config())?;
    let model = Mlp::new(&flex);
    let before = parameters(&model);
    let first = grads(&model.loss(0), &model);
    refused(
        "a model on the CPU",
        optim.ascend(model, first),
        &before,
        |error| matches!(error, WsamError::Device { param, .. } if param == "a.weight"),
    )
    .map(drop)
}

#[derive(Module, Debug)]
struct One {
    weight: Param<Tensor<1>>,
}

/// A half-precision gradient for a single-precision weight is refused.
pub(crate) fn element_types(target: &Target) -> Result<(), String> {
    let inner = target.device.clone().inner();
    let mut optim = target.init(&config())?;
    let model = One { weight: Param::from_tensor(data([8], 1, &target.device).detach()) };
    let mut first = GradientsParams::new();
    first.register(model.weight.id, data([8], 2, &inner).cast(DType::F16));
    match optim.ascend(model, first) {
        Err(Rejected { error: WsamError::DType { param, found: DType::F16, .. }, .. })
            if param == "weight" =>
        {
            Ok(())
        }
        other => Err(format!("a gradient in f16: {other:?}")),
    }
}

pub(crate) fn serialisation() -> Result<(), String> {
    let momentum = MomentumConfig::new().with_dampening(0.0).with_nesterov(true);
    let bases: [BaseConfig; 3] = [
        SgdBaseConfig::new().with_momentum(Some(momentum)).into(),
        AdamBaseConfig::new().with_amsgrad(true).into(),
        AdamWBaseConfig::new().with_beta_2(0.99).into(),
    ];
    for base in bases {
        let config = WsamConfig::new(base)
            .with_rho(0.1)
            .with_gamma(0.7)
            .with_decouple(false)
            .with_max_norm(Some(2.0))
            .with_groups(vec![
                GroupConfig::new(ParamGroup::from_predicate("bias")).with_rho(Some(1.0)),
            ])
            .with_route(RoutePolicy::TensorOps);
        let loaded = WsamConfig::load_binary(config.to_string().as_bytes())
            .map_err(|error| error.to_string())?;
        if loaded.hyperparameters() != config.hyperparameters()
            || loaded.to_string() != config.to_string()
        {
            return Err(format!("{config} came back as {loaded}"));
        }
    }
    Ok(())
}

pub(crate) fn configurations() -> Result<(), String> {
    let adam = |beta_1, beta_2, epsilon| {
        let base = AdamBaseConfig::new().with_beta_1(beta_1).with_beta_2(beta_2);
        WsamConfig::new(base.with_epsilon(epsilon).into())
    };
    let sgd = |momentum, dampening| {
        let momentum = MomentumConfig::new().with_momentum(momentum).with_dampening(dampening);
        WsamConfig::new(SgdBaseConfig::new().with_momentum(Some(momentum)).into())
    };
    let decay = |decay| WsamConfig::new(AdamWBaseConfig::new().with_weight_decay(decay).into());
    let nan = f64::NAN;
    let cases = [
        ("gamma", 1.0, config().with_gamma(1.0)),
        ("gamma", -0.1, config().with_gamma(-0.1)),
        ("gamma", nan, config().with_gamma(nan)),
        ("rho", -1.0, config().with_rho(-1.0)),
        ("rho", f64::INFINITY, config().with_rho(f64::INFINITY)),
        ("epsilon", 0.0, config().with_epsilon(0.0)),
        ("epsilon", 1e-60, config().with_epsilon(1e-60)),
        ("max_norm", 0.0, config().with_max_norm(Some(0.0))),
        ("beta_1", 1.0, adam(1.0, 0.9, 1e-8)),
        ("beta_2", -0.5, adam(0.9, -0.5, 1e-8)),
        ("base epsilon", 0.0, adam(0.9, 0.9, 0.0)),
        ("momentum", 1.5, sgd(1.5, 0.0)),
        ("dampening", 2.0, sgd(0.9, 2.0)),
        ("weight_decay", -0.1, decay(-0.1)),
    ];
    for (name, value, config) in cases {
        match config.init(&Device::flex()) {
            Err(WsamError::Hyperparameter(error))
                if error.name == name && error.value.to_bits() == value.to_bits() =>
            {
                let text = error.to_string();
                if !text.contains(name) || !text.contains(&value.to_string()) {
                    return Err(format!("{text:?} does not name {name} and {value}"));
                }
            }
            other => return Err(format!("{name} = {value}: {other:?}")),
        }
    }
    Ok(())
}

pub(crate) fn routes() -> Result<(), String> {
    let flex = Device::flex();
    let text = |error: WsamError| error.to_string();
    let optim = config().init(&flex).map_err(text)?;
    let expected = if cfg!(feature = "fused-wsam") {
        TensorOpsReason::NotWgpu
    } else {
        TensorOpsReason::FeatureOff
    };
    if *optim.route() != Route::TensorOps(expected) {
        return Err(format!("{:?} on the CPU", optim.route()));
    }
    match config().with_route(RoutePolicy::Fused).init(&flex) {
        Err(WsamError::NotFused { reason }) if reason == expected.to_string() => {}
        other => return Err(format!("fused on the CPU: {other:?}")),
    }
    let optim = config().with_route(RoutePolicy::TensorOps).init(&flex).map_err(text)?;
    match optim.route() {
        Route::TensorOps(TensorOpsReason::Requested) => Ok(()),
        other => Err(format!("{other:?} where tensor operations were asked for")),
    }
}
