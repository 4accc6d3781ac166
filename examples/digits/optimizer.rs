//! One interface for the three optimizers: Burn's own, and the same one as the base of SAM and WSAM.

use crate::Error;
use crate::options::{Base, Method, Options};
use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer, SgdConfig};
use burn::tensor::{Device, Tensor};
use burn_wsam::{AdamWBaseConfig, BaseConfig, Route, SgdBaseConfig, Wsam, WsamConfig};
use burn_wsam_support::digits::data::Batch;
use burn_wsam_support::digits::model::Network;

/// An optimizer for [`Network`].
pub(crate) enum Optimizer {
    /// Burn's own, with one gradient a step.
    Base(ModuleOptimizer),
    /// SAM or WSAM, with two gradients a step.
    Wsam(Box<Wsam>),
}

impl Optimizer {
    pub(crate) fn new(method: Method, options: &Options, device: &Device) -> Result<Self, Error> {
        let config = WsamConfig::new(wsam_base(options.base))
            .with_rho(options.rho)
            .with_route(options.route.into());
        let config = match method {
            Method::Base => return Ok(Self::Base(burn_base(options.base))),
            Method::Sam => config.with_gamma(0.5).with_decouple(false),
            Method::Wsam => config.with_gamma(options.gamma).with_decouple(!options.coupled),
        };
        Ok(Self::Wsam(Box::new(config.init(device)?)))
    }

    /// Takes one step. Returns the model and the loss before the step, which stays on the device.
    pub(crate) fn step(
        &mut self,
        lr: f64,
        model: Network,
        batch: &Batch,
    ) -> Result<(Network, Tensor<1>), Error> {
        match self {
            Self::Base(optimizer) => {
                let loss = model.loss(batch);
                let grads = GradientsParams::from_grads(loss.backward(), &model);
                Ok((optimizer.step(lr, model, grads), loss.without_autodiff()))
            }
            Self::Wsam(optimizer) => {
                let (model, report) = optimizer
                    .step(lr, model, |model| model.loss(batch))
                    .map_err(burn_wsam::WsamError::from)?;
                Ok((model, report.loss()))
            }
        }
    }

    /// Name of the route that the steps take.
    pub(crate) fn route(&self) -> &'static str {
        match self {
            Self::Base(_) => "Burn's optimizer",
            Self::Wsam(optimizer) => match optimizer.route() {
                Route::Fused { .. } => "fused",
                _ => "tensor operations",
            },
        }
    }
}

/// Momentum without dampening, as in the papers; Burn's default has dampening.
fn momentum() -> MomentumConfig {
    MomentumConfig { momentum: 0.9, dampening: 0.0, nesterov: false }
}

fn decay() -> WeightDecayConfig {
    WeightDecayConfig { penalty: 5e-4 }
}

/// Burn's own optimizer.
fn burn_base(base: Base) -> ModuleOptimizer {
    match base {
        Base::Sgd => {
            SgdConfig::new().with_momentum(Some(momentum())).with_weight_decay(Some(decay())).init()
        }
        Base::AdamW => AdamWConfig::new().init(),
    }
}

/// The same optimizer as the base of SAM and WSAM.
fn wsam_base(base: Base) -> BaseConfig {
    match base {
        Base::Sgd => SgdBaseConfig::new()
            .with_momentum(Some(momentum()))
            .with_weight_decay(Some(decay()))
            .into(),
        Base::AdamW => AdamWBaseConfig::new().into(),
    }
}
