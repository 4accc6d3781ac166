//! Settings under which WSAM equals a known optimizer.

use super::Target;
#[cfg(feature = "fused-wsam")]
use super::nets::{ConvNet, config};
use super::nets::{Mlp, close, fork, grads};
use burn::module::{Module, ModuleMapper, Param};
use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdamConfig, AdamWConfig, ModuleOptimizer, SgdConfig};
use burn::tensor::Tensor;
use burn_wsam::{AdamBaseConfig, AdamWBaseConfig, BaseConfig, SgdBaseConfig, WsamConfig};

/// Takes twenty steps and compares with Burn's own optimizer.
fn match_burn(
    target: &Target,
    what: &str,
    config: &WsamConfig,
    mut burn: ModuleOptimizer,
) -> Result<(), String> {
    let mut optim = target.init(config)?;
    let mut ours = Mlp::new(&target.device);
    let mut theirs = ours.clone();
    for batch in 0..20 {
        let step = optim.step(0.01, ours, |model| model.loss(batch));
        (ours, _) = step.map_err(|error| error.to_string())?;
        let grads = grads(&theirs.loss(batch), &theirs);
        theirs = burn.step(0.01, theirs, grads);
    }
    close(what, &ours, &theirs)
}

/// Compares with Burn's own optimizer at gamma 0, coupled and decoupled.
fn gamma_zero(
    target: &Target,
    base: BaseConfig,
    burn: impl Fn() -> ModuleOptimizer,
) -> Result<(), String> {
    for decouple in [false, true] {
        let config = WsamConfig::new(base.clone()).with_gamma(0.0).with_decouple(decouple);
        match_burn(target, &format!("decouple {decouple}"), &config, burn())?;
    }
    Ok(())
}

pub(crate) fn sgd(target: &Target) -> Result<(), String> {
    gamma_zero(target, SgdBaseConfig::new().into(), || SgdConfig::new().init())?;
    for nesterov in [false, true] {
        let momentum = || Some(MomentumConfig::new().with_nesterov(nesterov));
        let decay = || Some(WeightDecayConfig::new(1e-2));
        let base = SgdBaseConfig::new().with_momentum(momentum()).with_weight_decay(decay());
        gamma_zero(target, base.into(), || {
            SgdConfig::new().with_momentum(momentum()).with_weight_decay(decay()).init()
        })?;
    }
    Ok(())
}

pub(crate) fn adam(target: &Target) -> Result<(), String> {
    for amsgrad in [false, true] {
        let decay = || Some(WeightDecayConfig::new(1e-2));
        let base = AdamBaseConfig::new().with_amsgrad(amsgrad).with_weight_decay(decay());
        gamma_zero(target, base.into(), || {
            AdamConfig::new().with_amsgrad(amsgrad).with_weight_decay(decay()).init()
        })?;
    }
    Ok(())
}

pub(crate) fn adamw(target: &Target) -> Result<(), String> {
    for amsgrad in [false, true] {
        let base = AdamWBaseConfig::new().with_amsgrad(amsgrad).with_weight_decay(0.1);
        gamma_zero(target, base.into(), || {
            AdamWConfig::new().with_amsgrad(amsgrad).with_weight_decay(0.1).init()
        })?;
    }
    Ok(())
}

pub(crate) fn rho_zero(target: &Target) -> Result<(), String> {
    for decouple in [false, true] {
        let base = AdamWBaseConfig::new();
        let config = WsamConfig::new(base.into()).with_rho(0.0).with_decouple(decouple);
        match_burn(target, "rho 0", &config, AdamWConfig::new().init())?;
    }
    Ok(())
}

/// `base_step` between WSAM steps equals a WSAM step at gamma 0, and shares its state.
pub(crate) fn base_alone(target: &Target) -> Result<(), String> {
    let momentum = SgdBaseConfig::new().with_momentum(Some(MomentumConfig::new()));
    let configs = [
        WsamConfig::new(SgdBaseConfig::new().into()),
        WsamConfig::new(momentum.into()),
        WsamConfig::new(AdamBaseConfig::new().with_amsgrad(true).into()),
        WsamConfig::new(AdamWBaseConfig::new().into()).with_max_norm(Some(0.1)),
        WsamConfig::new(AdamWBaseConfig::new().into()).with_lean(true),
    ];
    for config in configs {
        let (mut optim, mut gamma_0) = (target.init(&config)?, target.init(&config)?);
        let mut ours = Mlp::new(&target.device);
        let mut theirs = ours.clone();
        for batch in 0..8 {
            let alone = batch % 3 != 1;
            let gamma = if alone { 0.0 } else { 0.9 };
            gamma_0.set_gamma(gamma).map_err(|error| error.to_string())?;
            let step = gamma_0.step(0.01, theirs, |model| model.loss(batch));
            (theirs, _) = step.map_err(|error| error.to_string())?;
            ours = if alone {
                let first = grads(&ours.loss(batch), &ours);
                optim.base_step(0.01, ours, first).map_err(|error| error.to_string())?
            } else {
                let step = optim.step(0.01, ours, |model| model.loss(batch));
                step.map_err(|error| error.to_string())?.0
            };
            close(&format!("{config}, step {batch}"), &ours, &theirs)?;
        }
    }
    Ok(())
}

/// Compares with SAM written out: it moves by `rho g / ||g||`, and its base optimizer receives only `g~`.
pub(crate) fn sam(target: &Target) -> Result<(), String> {
    let rho = 0.1;
    let momentum = || Some(MomentumConfig::new());
    let base = SgdBaseConfig::new().with_momentum(momentum());
    let config = WsamConfig::new(base.into()).with_rho(rho).with_gamma(0.5).with_decouple(false);
    let mut optim = target.init(&config)?;
    let mut burn = SgdConfig::new().with_momentum(momentum()).init();
    let mut ours = Mlp::new(&target.device);
    let mut theirs = ours.clone();
    for batch in 0..10 {
        let step = optim.step(0.05, ours, |model| model.loss(batch));
        (ours, _) = step.map_err(|error| error.to_string())?;

        let climbed = climb(fork(&theirs), batch, rho);
        let grads = grads(&climbed.loss(batch), &climbed);
        theirs = burn.step(0.05, theirs, grads);
    }
    close("SAM", &ours, &theirs)
}

fn climb(model: Mlp, batch: u64, rho: f64) -> Mlp {
    struct Climb {
        grads: burn::optim::GradientsParams,
        scale: f64,
    }
    impl ModuleMapper for Climb {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let grad = self.grads.remove::<D>(param.id).expect("every parameter has a gradient");
            let scale = self.scale;
            param.map(|w| Tensor::from_inner(w.inner() + grad * scale).require_grad())
        }
    }
    let grads = grads(&model.loss(batch), &model);
    let square = |sum: f64, g: Option<Tensor<1>>| {
        sum + g.map_or(0.0, |g| g.powi_scalar(2).sum().into_scalar::<f64>())
    };
    let flat = |g: Option<Tensor<2>>| g.map(|g| g.flatten::<1>(0, 1));
    let bias = |linear: &burn::nn::Linear| linear.bias.as_ref().and_then(|b| grads.get::<1>(b.id));
    let sum = [
        flat(grads.get::<2>(model.a.weight.id)),
        bias(&model.a),
        flat(grads.get::<2>(model.b.weight.id)),
        bias(&model.b),
    ]
    .into_iter()
    .fold(0.0, square);
    let scale = rho / sum.sqrt();
    model.map(&mut Climb { grads, scale })
}

/// Trains one network by both routes on one device, under several options.
#[cfg(feature = "fused-wsam")]
pub(crate) fn routes_agree(device: &burn::tensor::Device) -> Result<(), String> {
    let momentum = SgdBaseConfig::new().with_momentum(Some(MomentumConfig::new()));
    let adam = AdamWBaseConfig::new().with_epsilon(1e-3);
    let configs = [
        config(),
        WsamConfig::new(momentum.clone().into()).with_decouple(false).with_gamma(0.6),
        WsamConfig::new(momentum.into()).with_max_norm(Some(0.5)),
        WsamConfig::new(adam.clone().into()).with_adaptive(true).with_rho(0.5),
        WsamConfig::new(adam.with_amsgrad(true).into())
            .with_max_norm(Some(0.1))
            .with_clip_perturbed_only(true),
    ];
    for config in configs {
        let model = ConvNet::new(device);
        let run = |policy| -> Result<ConvNet, String> {
            let target = Target { device: device.clone(), policy };
            let mut optim = target.init(&config)?;
            let mut model = fork(&model);
            for batch in 0..5 {
                let step = optim.step(0.01, model, |model| model.loss(batch));
                (model, _) = step.map_err(|error| error.to_string())?;
            }
            Ok(model)
        };
        let fused = run(burn_wsam::RoutePolicy::Fused)?;
        close(&format!("{config}"), &fused, &run(burn_wsam::RoutePolicy::TensorOps)?)?;
    }
    Ok(())
}
