//! [`BurnRoute`], the Burn optimizer as a route of the replay, and helpers for Burn's devices and tensors.

#[cfg(feature = "fused-wsam")]
use super::adapters::Gpu;
use super::golden::{Golden, Tensors, narrow, widen};
use super::replay::Route;
use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::tensor::{Device, Tensor, TensorData};
use burn_wsam::method::{Base, ClipScope, Coupling, Hyperparameters, Moments, NonFinite};
use burn_wsam::{
    AdamBaseConfig, AdamWBaseConfig, Ascended, BaseConfig, LeanAscended, NonFinitePolicy,
    RoutePolicy, SgdBaseConfig, Wsam, WsamConfig,
};

/// The devices that [`device`] has made, for [`wait_for_devices`].
#[cfg(feature = "fused-wsam")]
static DEVICES: std::sync::Mutex<Vec<Device>> = std::sync::Mutex::new(Vec::new());

/// Waits until every device made by [`device`] has finished its work.
///
/// A test may drop tensors whose operations have not run yet. Burn's threads run them later, and if
/// the process exits meanwhile, the driver's threads use what its static destructors have freed:
/// SwiftShader then crashes.
#[cfg(feature = "fused-wsam")]
pub fn wait_for_devices() {
    let devices = DEVICES.lock().map(|devices| devices.clone()).unwrap_or_default();
    for device in devices {
        if let Err(error) = device.sync() {
            eprintln!("at exit: {error:?}");
        }
    }
}

/// A Burn device on the test's adapter, shared with the kernels.
#[cfg(feature = "fused-wsam")]
pub fn device(gpu: &Gpu) -> Result<Device, String> {
    use burn::backend::wgpu::WgpuSetup;
    let (adapter, fail) = (gpu.adapter.clone(), |error: &dyn std::fmt::Display| error.to_string());
    let request = adapter.request_device(&wgpu::DeviceDescriptor {
        // Burn uses what the adapter has, less what wgpu calls experimental.
        required_features: adapter
            .features()
            .difference(wgpu::Features::MAPPABLE_PRIMARY_BUFFERS)
            .difference(wgpu::Features::all_experimental_mask()),
        required_limits: adapter.limits(),
        ..Default::default()
    });
    let (device, queue) = pollster::block_on(request).map_err(|error| fail(&error))?;
    let backend = adapter.get_info().backend;
    let setup = WgpuSetup { instance: gpu.instance.clone(), adapter, device, queue, backend };
    let device =
        Device::wgpu_options().setup(setup.clone()).init().map_err(|error| fail(&error))?;
    burn_wsam::share(&device, &setup).map_err(|error| fail(&error))?;
    DEVICES.lock().map_err(|error| fail(&error))?.push(device.clone());
    Ok(device)
}

/// Bytes of Burn's memory in use, once the device has done all it has to do; 0 off wgpu.
pub fn memory_in_use(device: &Device) -> Result<u64, String> {
    device.sync().map_err(|error| format!("{error:?}"))?;
    #[cfg(feature = "fused-wsam")]
    if let burn::backend::DispatchDevice::Cube(cube) =
        device.clone().without_autodiff().as_dispatch()
    {
        let report = cube.client().memory_report(burn::cubecl::MemoryScope::Device);
        return Ok(report.usage().bytes_in_use);
    }
    Ok(0)
}

/// The configuration that means these hyperparameters.
pub fn config(hyper: &Hyperparameters) -> WsamConfig {
    let penalty =
        |decay: f64| (decay != 0.0).then_some(WeightDecayConfig { penalty: decay as f32 });
    let base: BaseConfig = match hyper.base {
        Base::Sgd { momentum, weight_decay } => SgdBaseConfig::new()
            .with_weight_decay(penalty(weight_decay))
            .with_momentum(momentum.map(|m| MomentumConfig {
                momentum: m.momentum,
                dampening: m.dampening,
                nesterov: m.nesterov,
            }))
            .into(),
        Base::Adam(Moments { beta_1, beta_2, epsilon, weight_decay, amsgrad }) => {
            AdamBaseConfig::new()
                .with_beta_1(beta_1)
                .with_beta_2(beta_2)
                .with_epsilon(epsilon)
                .with_amsgrad(amsgrad)
                .with_weight_decay(penalty(weight_decay))
                .into()
        }
        Base::AdamW(Moments { beta_1, beta_2, epsilon, weight_decay, amsgrad }) => {
            AdamWBaseConfig::new()
                .with_beta_1(beta_1)
                .with_beta_2(beta_2)
                .with_epsilon(epsilon)
                .with_amsgrad(amsgrad)
                .with_weight_decay(weight_decay)
                .into()
        }
        other => unreachable!("no configuration for {other:?}"),
    };
    WsamConfig::new(base)
        .with_rho(hyper.rho)
        .with_gamma(hyper.gamma)
        .with_epsilon(hyper.epsilon)
        .with_adaptive(hyper.adaptive)
        .with_decouple(hyper.coupling == Coupling::Decoupled)
        .with_non_finite(match hyper.non_finite {
            NonFinite::Skip => NonFinitePolicy::Skip,
            NonFinite::BaseStep => NonFinitePolicy::BaseStep,
            NonFinite::Propagate => NonFinitePolicy::Propagate,
            other => unreachable!("no policy for {other:?}"),
        })
        .with_max_norm(hyper.clip.map(|clip| clip.max_norm))
        .with_clip_perturbed_only(
            hyper.clip.is_some_and(|clip| clip.scope == ClipScope::PerturbedOnly),
        )
}

/// A parameter of the rank a golden file names.
#[derive(Module, Debug)]
pub enum Weight {
    R1(Param<Tensor<1>>),
    R2(Param<Tensor<2>>),
    R3(Param<Tensor<3>>),
    R4(Param<Tensor<4>>),
}

/// The same code for each rank.
macro_rules! each_rank {
    ($weight:expr, $param:ident => $body:expr) => {
        match $weight {
            Weight::R1($param) => $body,
            Weight::R2($param) => $body,
            Weight::R3($param) => $body,
            Weight::R4($param) => $body,
        }
    };
}

impl Weight {
    pub(crate) fn new(values: &[f64], shape: &[usize], device: &Device) -> Self {
        // Ranks beyond four are flattened: the step does not look at shapes.
        let shape =
            if (1..=4).contains(&shape.len()) { shape.to_vec() } else { vec![values.len()] };
        let data = TensorData::new(narrow(values), shape.clone());
        match shape.len() {
            1 => Self::R1(Param::from_data(data, device)),
            2 => Self::R2(Param::from_data(data, device)),
            3 => Self::R3(Param::from_data(data, device)),
            _ => Self::R4(Param::from_data(data, device)),
        }
    }

    pub(crate) fn id(&self) -> ParamId {
        each_rank!(self, param => param.id)
    }

    fn values(&self) -> Vec<f64> {
        each_rank!(self, param => values(param.val().into_data()))
    }

    fn register(&self, grads: &mut GradientsParams, values: &[f64], device: &Device) {
        each_rank!(self, param => {
            let shape = param.val().shape();
            let data = TensorData::new(narrow(values), shape);
            grads.register(param.id, like(param, data, device));
        });
    }
}

/// A tensor of the parameter's rank.
fn like<const D: usize>(_: &Param<Tensor<D>>, data: TensorData, device: &Device) -> Tensor<D> {
    Tensor::from_data(data, device)
}

fn values(data: TensorData) -> Vec<f64> {
    widen(&data.try_to_vec::<f32>().expect("models here are f32"))
}

#[derive(Module, Debug)]
pub struct Model {
    pub weights: Vec<Weight>,
}

enum Pending {
    Ordinary(Ascended<Model>),
    Lean(LeanAscended<Model>),
}

/// The Burn optimizer holding a model.
pub struct BurnRoute {
    optim: Wsam,
    device: Device,
    model: Option<Model>,
    /// The learning rate, if the steps are lean.
    lean: Option<f64>,
    pending: Option<Pending>,
    /// With their lengths.
    ids: Vec<(ParamId, usize)>,
}

impl BurnRoute {
    pub fn new(golden: &Golden, device: &Device, policy: RoutePolicy) -> Result<Self, String> {
        let autodiff = device.clone().autodiff();
        let optim = config(&golden.hyper)
            .with_route(policy)
            .init(&autodiff)
            .map_err(|error| error.to_string())?;
        let weights: Vec<_> = golden
            .weight
            .iter()
            .zip(&golden.shapes)
            .map(|(values, shape)| Weight::new(values, shape, &autodiff))
            .collect();
        let lens = golden.weight.iter().map(Vec::len);
        let ids = weights.iter().map(Weight::id).zip(lens).collect();
        let model = Some(Model { weights });
        Ok(Self { optim, device: device.clone(), model, lean: None, pending: None, ids })
    }

    /// The same in lean mode.
    pub fn lean(golden: &Golden, device: &Device, policy: RoutePolicy) -> Result<Self, String> {
        Ok(Self { lean: Some(golden.lr), ..Self::new(golden, device, policy)? })
    }

    /// `w + e_w`, NaNs and all: the way back is not taken.
    pub fn ascend_once(mut self, grad: &[Vec<f64>]) -> Result<Tensors, String> {
        let model = self.model.take().ok_or("no model")?;
        let grads = self.grads(&model, grad);
        let ascended = self.optim.ascend(model, grads).map_err(|error| error.to_string())?;
        Ok(weights(ascended.model()))
    }

    fn grads(&self, model: &Model, grad: &[Vec<f64>]) -> GradientsParams {
        gradients(model, grad, &self.device)
    }
}

/// The gradients of a model's parameters.
pub(crate) fn gradients(model: &Model, grad: &[Vec<f64>], device: &Device) -> GradientsParams {
    let mut grads = GradientsParams::new();
    for (weight, values) in model.weights.iter().zip(grad) {
        weight.register(&mut grads, values, device);
    }
    grads
}

pub(crate) fn weights(model: &Model) -> Tensors {
    model.weights.iter().map(Weight::values).collect()
}

impl Route for BurnRoute {
    fn ascend(&mut self, grad: &[Vec<f64>]) -> Result<Tensors, String> {
        let model = self.model.take().ok_or("no model")?;
        let grads = self.grads(&model, grad);
        if let Some(lr) = self.lean {
            let ascended =
                self.optim.lean_ascend(lr, model, grads).map_err(|error| error.to_string())?;
            let perturbed = weights(ascended.model());
            self.pending = Some(Pending::Lean(ascended));
            return Ok(perturbed);
        }
        let before = weights(&model);
        let ascended = self.optim.ascend(model, grads).map_err(|error| error.to_string())?;
        let perturbed = weights(ascended.model());
        // Restoring is exact: restore the weights, and ascend again.
        let model = ascended.restore();
        if weights(&model) != before {
            return Err("restore changed the weights".to_owned());
        }
        let grads = self.grads(&model, grad);
        let ascended = self.optim.ascend(model, grads).map_err(|error| error.to_string())?;
        if weights(ascended.model()) != perturbed {
            return Err("the second ascent gave other weights".to_owned());
        }
        self.pending = Some(Pending::Ordinary(ascended));
        Ok(perturbed)
    }

    fn descend(&mut self, lr: f64, grad_perturbed: &[Vec<f64>]) -> Result<Tensors, String> {
        let descended = match self.pending.take().ok_or("no ascent")? {
            Pending::Ordinary(ascended) => {
                let grads = self.grads(ascended.model(), grad_perturbed);
                self.optim.descend(lr, ascended, grads)
            }
            Pending::Lean(ascended) => {
                let grads = self.grads(ascended.model(), grad_perturbed);
                self.optim.lean_descend(ascended, grads)
            }
        };
        let model = descended.map_err(|error| error.to_string())?;
        let values = weights(&model);
        self.model = Some(model);
        Ok(values)
    }

    fn state(&mut self) -> Result<Vec<Tensors>, String> {
        let names = self.optim.hyperparameters().base.state_names();
        let mut planes = vec![Vec::new(); names.len()];
        for (id, len) in &self.ids {
            if *len == 0 {
                // A parameter without elements has no state.
                planes.iter_mut().for_each(|plane| plane.push(Vec::new()));
                continue;
            }
            let state = self.optim.state(*id).map_err(|error| error.to_string())?;
            let state = state.ok_or("a parameter without state")?;
            for ((plane, name), (found, data)) in planes.iter_mut().zip(names).zip(state.tensors) {
                if found != *name {
                    return Err(format!("state {found} where {name} should be"));
                }
                plane.push(values(data));
            }
        }
        Ok(planes)
    }
}

/// Repeatable data in [-1, 1).
pub fn data<const D: usize>(shape: [usize; D], seed: u64, device: &Device) -> Tensor<D> {
    let len = shape.iter().product();
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let values: Vec<f32> = (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// A loss whose gradients are exact: `c * w` for each element, with `c` a power of two that depends on
/// `batch` and the element's place. The passes of a real loss are made too, and count zero times.
///
/// Burn may choose other kernels for the same pass a second time, and fuse them in another way, and a
/// driver may contract products and sums. So two evaluations of a real loss differ in the last place on
/// some GPUs, and what follows from them cannot be compared bit for bit. Here nothing is rounded, so
/// that equal weights have equal gradients.
pub fn exact_loss<M: Module>(model: &M, batch: u64, real: Tensor<1>) -> Tensor<1> {
    struct Sum {
        seed: u64,
        sum: Option<Tensor<1>>,
    }
    impl ModuleVisitor for Sum {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.seed += 1;
            let weight = param.val();
            if !weight.is_require_grad() {
                return;
            }
            let drawn: Vec<f32> = data(weight.dims(), self.seed, &weight.device())
                .into_data()
                .iter::<f32>()
                .map(|x| if x.abs() < 0.5 { 0.25_f32 } else { 0.5 }.copysign(x))
                .collect();
            let factors = TensorData::new(drawn, weight.dims());
            let factors = Tensor::<D>::from_data(factors, &weight.device());
            let part = (weight.clone() * (weight.detach() * factors)).sum();
            self.sum = Some(match self.sum.take() {
                Some(sum) => sum + part,
                None => part,
            });
        }
    }
    let mut sum = Sum { seed: 1000 * batch, sum: None };
    model.visit(&mut sum);
    sum.sum.expect("the model has a parameter with a gradient") + real * 0.0
}
