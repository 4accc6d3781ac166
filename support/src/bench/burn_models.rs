//! Burn models of the benchmarks.

use burn::module::{Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer, SgdConfig};
use burn::tensor::{Device, Distribution, Tensor};
use burn_wsam::{
    AdamWBaseConfig, BaseConfig, NonFinitePolicy, RoutePolicy, SgdBaseConfig, Wsam, WsamConfig,
};

/// A module with parameters and no layers.
#[derive(Module, Debug)]
pub struct Flat {
    params: Vec<Param<Tensor<1>>>,
}

impl Flat {
    pub fn new(lens: &[u64], device: &Device) -> Self {
        let tensor = |len: &u64| Tensor::zeros([*len as usize], device).require_grad();
        let params = lens.iter().map(tensor);
        Self { params: params.map(Param::from_tensor).collect() }
    }

    /// Random gradients, which are reused in each step.
    pub fn random_grads(&self, device: &Device) -> Vec<Tensor<1>> {
        let like = |param: &Param<Tensor<1>>| {
            Tensor::random(param.dims(), Distribution::Uniform(-1.0, 1.0), device)
        };
        self.params.iter().map(like).collect()
    }

    pub fn grads(&self, random: &[Tensor<1>]) -> GradientsParams {
        let mut grads = GradientsParams::new();
        for (param, grad) in self.params.iter().zip(random) {
            grads.register(param.id, grad.clone());
        }
        grads
    }
}

/// 80 layers: 160 tensors.
#[derive(Module, Debug)]
pub struct Deep {
    layers: Vec<Linear>,
}

impl Deep {
    pub fn new(width: usize, device: &Device) -> Self {
        Self { layers: (0..80).map(|_| LinearConfig::new(width, width).init(device)).collect() }
    }

    pub fn loss(&self, x: &Tensor<2>) -> Tensor<1> {
        self.layers.iter().fold(x.clone(), |x, layer| layer.forward(x)).powi_scalar(2).mean()
    }
}

/// A base optimizer: its name, WSAM's base, Burn's own.
type Base = (&'static str, BaseConfig, fn() -> ModuleOptimizer);

pub fn bases() -> [Base; 2] {
    let momentum = || Some(MomentumConfig { momentum: 0.9, dampening: 0.0, nesterov: false });
    let decay = || Some(WeightDecayConfig { penalty: 1e-4 });
    let sgd = SgdBaseConfig::new().with_momentum(momentum()).with_weight_decay(decay());
    [
        ("SGD + momentum", sgd.into(), || {
            let momentum = MomentumConfig { momentum: 0.9, dampening: 0.0, nesterov: false };
            SgdConfig::new()
                .with_momentum(Some(momentum))
                .with_weight_decay(Some(WeightDecayConfig { penalty: 1e-4 }))
                .init()
        }),
        ("AdamW", AdamWBaseConfig::new().into(), || AdamWConfig::new().init()),
    ]
}

pub fn wsam(base: &BaseConfig, route: RoutePolicy, lean: bool, device: &Device) -> Wsam {
    let config = WsamConfig::new(base.clone())
        .with_route(route)
        .with_lean(lean)
        .with_non_finite(NonFinitePolicy::Propagate);
    config.init(device).expect("a valid configuration on a shared device")
}
