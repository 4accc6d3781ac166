//! Models and helpers.

pub use crate::burn_route::data;

use crate::burn_route::exact_loss;
use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, activation::relu};
use burn_wsam::{BaseConfig, SgdBaseConfig, WsamConfig};

/// Two layers.
#[derive(Module, Debug)]
pub struct Mlp {
    pub a: Linear,
    pub b: Linear,
}

impl Mlp {
    pub fn new(device: &Device) -> Self {
        device.seed(1);
        Self { a: LinearConfig::new(5, 19).init(device), b: LinearConfig::new(19, 3).init(device) }
    }

    pub fn loss(&self, batch: u64) -> Tensor<1> {
        let device = self.a.weight.device();
        let x = data([7, 5], batch, &device);
        let y = data([7, 3], batch + 1000, &device);
        (self.b.forward(relu(self.a.forward(x))) - y).powi_scalar(2).mean()
    }

    /// [`exact_loss`], for runs that are compared bit for bit.
    pub fn exact(&self, batch: u64) -> Tensor<1> {
        exact_loss(self, batch, self.loss(batch))
    }
}

/// Convolution and batch normalisation.
#[derive(Module, Debug)]
pub struct ConvNet {
    pub conv: Conv2d,
    pub norm: BatchNorm,
    pub linear: Linear,
}

impl ConvNet {
    pub fn new(device: &Device) -> Self {
        device.seed(1);
        Self {
            // No bias: normalisation cancels it, so its gradient would be rounding error, which Adam would
            // magnify to full steps.
            conv: Conv2dConfig::new([1, 4], [3, 3]).with_bias(false).init(device),
            norm: BatchNormConfig::new(4).init(device),
            linear: LinearConfig::new(4 * 4 * 4, 3).init(device),
        }
    }

    pub fn loss(&self, batch: u64) -> Tensor<1> {
        let device = self.linear.weight.device();
        let x = data([6, 1, 6, 6], batch, &device);
        let y = data([6, 3], batch + 1000, &device);
        let hidden: Tensor<2> = relu(self.norm.forward(self.conv.forward(x))).flatten(1, 3);
        (self.linear.forward(hidden) - y).powi_scalar(2).mean()
    }
}

pub fn grads<M: Module>(loss: &Tensor<1>, model: &M) -> GradientsParams {
    GradientsParams::from_grads(loss.backward(), model)
}

pub fn config() -> WsamConfig {
    WsamConfig::new(BaseConfig::Sgd(SgdBaseConfig::new()))
}

/// A copy with the same parameter ids and values, and its own running statistics.
pub fn fork<M: Module>(model: &M) -> M {
    model.clone().valid().train()
}

pub fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Path, id and values of every float parameter and running statistic. With `grads`, the values are those of the
/// gradients, of parameters that have one.
pub fn read<M: Module>(
    model: &M,
    grads: Option<&GradientsParams>,
) -> Vec<(String, ParamId, Vec<f32>)> {
    struct Read<'a> {
        grads: Option<&'a GradientsParams>,
        path: Vec<String>,
        found: Vec<(String, ParamId, Vec<f32>)>,
    }
    impl ModuleVisitor for Read<'_> {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let tensor = match self.grads {
                Some(grads) => grads.get::<D>(param.id),
                None => Some(param.val()),
            };
            let Some(tensor) = tensor else { return };
            let values = tensor.into_data().convert::<f32>().try_to_vec::<f32>();
            let values = values.expect("converted to f32");
            self.found.push((self.path.join("."), param.id, values));
        }
    }
    let mut read = Read { grads, path: Vec::new(), found: Vec::new() };
    model.visit(&mut read);
    read.found
}

/// Path and values of every float parameter and running statistic.
pub fn parameters<M: Module>(model: &M) -> Vec<(String, Vec<f32>)> {
    read(model, None).into_iter().map(|(path, _, values)| (path, values)).collect()
}

/// Checks equality bit for bit. Two models whose passes were evaluated separately need exact gradients for that:
/// [`Mlp::exact`].
pub fn same<M: Module>(what: &str, got: &M, want: &[(String, Vec<f32>)]) -> Result<(), String> {
    let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    for ((path, got), (_, want)) in parameters(got).iter().zip(want) {
        if bits(got) != bits(want) {
            return Err(format!("{what}: {path} is {got:?}, expected {want:?}"));
        }
    }
    Ok(())
}

/// Checks equality within the f32 rounding of some steps. A NaN fails.
pub fn close<M: Module, N: Module>(what: &str, got: &M, want: &N) -> Result<(), String> {
    let (got, want) = (parameters(got), parameters(want));
    if got.len() != want.len() {
        return Err(format!("{what}: {} parameters, expected {}", got.len(), want.len()));
    }
    for ((path, got), (_, want)) in got.iter().zip(&want) {
        let want: Vec<_> = want.iter().copied().map(f64::from).collect();
        near(&format!("{what}: {path}"), got, &want)?;
    }
    Ok(())
}

/// Checks each element with the tolerance of [`close`].
pub fn near(what: &str, got: &[f32], want: &[f64]) -> Result<(), String> {
    if got.len() != want.len() {
        return Err(format!("{what}: {} elements, expected {}", got.len(), want.len()));
    }
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let right = (f64::from(*got) - want).abs() <= 2e-6 + 2e-5 * want.abs();
        if !right {
            return Err(format!("{what}[{i}] is {got}, expected {want}"));
        }
    }
    Ok(())
}
