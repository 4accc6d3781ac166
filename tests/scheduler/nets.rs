//! A model of many small tensors.

use burn::module::{Module, ModuleVisitor, Param};
use burn::nn::{Linear, LinearConfig};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use burn_wsam::{AdamWBaseConfig, Ascended, RoutePolicy, Wsam, WsamConfig};
use burn_wsam_support::burn_route::{data, exact_loss};

#[derive(Module, Debug)]
pub(crate) struct Deep {
    pub(crate) layers: Vec<Linear>,
}

impl Deep {
    pub(crate) fn new(layers: usize, width: usize, device: &Device) -> Self {
        device.seed(7);
        let layer = || LinearConfig::new(width, width).init(device);
        let model = Self { layers: (0..layers).map(|_| layer()).collect() };
        // Initialises the parameters here, not at their first use.
        parameters(&model);
        model
    }

    pub(crate) fn width(&self) -> usize {
        self.layers[0].weight.dims()[0]
    }

    pub(crate) fn loss(&self, batch: u64) -> Tensor<1> {
        let device = self.layers[0].weight.device();
        let x = data([5, self.width()], batch, &device);
        self.layers.iter().fold(x, |x, layer| layer.forward(x)).powi_scalar(2).mean()
    }

    /// [`exact_loss`], for runs that are compared bit for bit.
    fn exact(&self, batch: u64) -> Tensor<1> {
        exact_loss(self, batch, self.loss(batch))
    }

    /// The largest element of each weight, which does not depend on Burn's order of evaluation.
    pub(crate) fn largest(&self) -> Tensor<1> {
        Tensor::cat(self.layers.iter().map(|layer| layer.weight.val().max()).collect(), 0)
    }
}

pub(crate) fn grads(model: &Deep, batch: u64) -> GradientsParams {
    GradientsParams::from_grads(model.loss(batch).backward(), model)
}

pub(crate) fn adamw() -> WsamConfig {
    WsamConfig::new(AdamWBaseConfig::new().into())
}

pub(crate) fn init(config: &WsamConfig, device: &Device) -> Result<Wsam, String> {
    let config = config.clone().with_route(RoutePolicy::Fused);
    config.init(device).map_err(|error| error.to_string())
}

pub(crate) fn ascend(optim: &mut Wsam, model: Deep, batch: u64) -> Result<Ascended<Deep>, String> {
    let first = grads(&model, batch);
    optim.ascend(model, first).map_err(|error| error.to_string())
}

pub(crate) fn descend(
    optim: &mut Wsam,
    ascended: Ascended<Deep>,
    batch: u64,
) -> Result<Deep, String> {
    let second = grads(ascended.model(), batch);
    optim.descend(0.01, ascended, second).map_err(|error| error.to_string())
}

pub(crate) fn step(optim: &mut Wsam, model: Deep, batch: u64) -> Result<Deep, String> {
    let step = optim.step(0.01, model, |model| model.loss(batch));
    step.map(|(model, _)| model).map_err(|error| error.to_string())
}

/// Passes and steps with exact gradients, for runs that are compared bit for bit.
pub(crate) mod exact {
    use super::*;

    pub(crate) fn grads(model: &Deep, batch: u64) -> GradientsParams {
        GradientsParams::from_grads(model.exact(batch).backward(), model)
    }

    pub(crate) fn ascend(
        optim: &mut Wsam,
        model: Deep,
        batch: u64,
    ) -> Result<Ascended<Deep>, String> {
        let first = grads(&model, batch);
        optim.ascend(model, first).map_err(|error| error.to_string())
    }

    pub(crate) fn descend(
        optim: &mut Wsam,
        ascended: Ascended<Deep>,
        batch: u64,
    ) -> Result<Deep, String> {
        let second = grads(ascended.model(), batch);
        optim.descend(0.01, ascended, second).map_err(|error| error.to_string())
    }

    pub(crate) fn step(optim: &mut Wsam, model: Deep, batch: u64) -> Result<Deep, String> {
        let step = optim.step(0.01, model, |model| model.exact(batch));
        step.map(|(model, _)| model).map_err(|error| error.to_string())
    }
}

/// Bits of every parameter.
pub(crate) fn parameters<M: Module>(module: &M) -> Vec<Vec<u32>> {
    struct Read(Vec<Vec<u32>>);
    impl ModuleVisitor for Read {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let data = param.val().into_data();
            let values = data.try_to_vec::<f32>().expect("models here are f32");
            self.0.push(values.iter().map(|x| x.to_bits()).collect());
        }
    }
    let mut read = Read(Vec::new());
    module.visit(&mut read);
    read.0
}

pub(crate) fn same(what: &str, got: &Deep, want: &[Vec<u32>]) -> Result<(), String> {
    let got = parameters(got);
    if got.len() != want.len() {
        return Err(format!("{what}: {} tensors, expected {}", got.len(), want.len()));
    }
    match got.iter().zip(want).position(|(got, want)| got != want) {
        Some(tensor) => Err(format!("{what}: tensor {tensor} differs")),
        None => Ok(()),
    }
}
