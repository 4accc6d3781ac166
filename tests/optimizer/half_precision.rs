//! A model in two precisions, with given gradients.

use super::Target;
use super::nets::{fork, text};
use burn::module::{Module, Param, ParamId};
use burn::optim::{GradientsParams, LionConfig};
use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData};
use burn_wsam::method::Hyperparameters;
use burn_wsam::{
    AdamWBaseConfig, BaseConfig, MASTER_WEIGHTS, RoutePolicy, SgdBaseConfig, Wsam, WsamConfig,
    WsamError,
};
use burn_wsam_support::replay::{OracleRoute, Route, Tolerance, Worst, compare};
use half::f16;

#[derive(Module, Debug)]
pub(crate) struct Mixed {
    single: Param<Tensor<1>>,
    half: Param<Tensor<2>>,
}

const SINGLE: usize = 301;
const HALF: [usize; 2] = [7, 9];

/// Repeatable values, exact in the precision of their tensor.
pub(crate) fn values(seed: u64) -> [Vec<f64>; 2] {
    let wave =
        |i: usize, len: usize| ((i * 7919 + 31 * seed as usize) % len) as f64 / len as f64 - 0.45;
    [
        (0..SINGLE).map(|i| f64::from(wave(i, 977) as f32)).collect(),
        (0..HALF[0] * HALF[1]).map(|i| f16::from_f64(wave(i, 509)).to_f64()).collect(),
    ]
}

fn single(values: &[f64], device: &Device) -> Tensor<1> {
    let values: Vec<f32> = values.iter().map(|x| *x as f32).collect();
    Tensor::from_data(TensorData::new(values, [SINGLE]), device)
}

fn half(values: &[f64], device: &Device) -> Tensor<2> {
    let values: Vec<f16> = values.iter().map(|x| f16::from_f64(*x)).collect();
    Tensor::from_data(TensorData::new(values, HALF), (device, DType::F16))
}

impl Mixed {
    pub(crate) fn new(values: &[Vec<f64>; 2], device: &Device) -> Self {
        Self {
            single: Param::from_tensor(single(&values[0], device)),
            half: Param::from_tensor(half(&values[1], device)),
        }
    }

    pub(crate) fn grads(&self, seed: u64) -> GradientsParams {
        let device = self.single.val().device().inner();
        let [single_grad, half_grad] = values(seed);
        let mut grads = GradientsParams::new();
        grads.register(self.single.id, single(&single_grad, &device));
        grads.register(self.half.id, half(&half_grad, &device));
        grads
    }

    pub(crate) fn ids(&self) -> [ParamId; 2] {
        [self.single.id, self.half.id]
    }

    pub(crate) fn read(&self) -> Result<Vec<Vec<f64>>, String> {
        let (single, half) = (self.single.val().into_data(), self.half.val().into_data());
        if half.dtype() != DType::F16 {
            return Err(format!("half precision became {:?}", half.dtype()));
        }
        Ok(vec![single.iter::<f64>().collect(), half.iter::<f64>().collect()])
    }
}

/// Half an ulp of f16, plus the rounding of f32.
const HALF_ULP: Tolerance = Tolerance { rtol: 1.001 / 2048.0, atol: 2e-6, share: 4e-6 };

fn near(
    what: &'static str,
    got: &[Vec<f64>],
    want: &[Vec<f64>],
    half: Tolerance,
) -> Result<(), String> {
    let mut worst = Worst::default();
    compare(0, what, &got[..1], &want[..1], Tolerance::SINGLE, &mut worst)?;
    compare(0, what, &got[1..], &want[1..], half, &mut worst)
}

fn bases() -> [BaseConfig; 2] {
    [SgdBaseConfig::new().into(), AdamWBaseConfig::new().into()]
}

fn config(base: BaseConfig) -> WsamConfig {
    WsamConfig::new(base).with_rho(1.0).with_max_norm(Some(2.0))
}

fn state(optim: &Wsam, model: &Mixed) -> Result<Vec<Vec<Vec<f64>>>, String> {
    let mut planes = Vec::new();
    for id in model.ids() {
        let state = optim.state(id).map_err(text)?.ok_or("no state")?;
        for (place, (_, data)) in state.tensors.into_iter().enumerate() {
            if data.dtype() != DType::F32 {
                return Err(format!("a state in {:?}", data.dtype()));
            }
            planes.resize(planes.len().max(place + 1), Vec::new());
            planes[place].push(data.iter::<f64>().collect());
        }
    }
    Ok(planes)
}

/// One step matches the oracle; further steps match the other route.
pub(crate) fn oracle(target: &Target) -> Result<(), String> {
    for base in bases() {
        let config = config(base);
        let hyper = config.hyperparameters().map_err(text)?;
        let mut optim = target.init(&config)?;
        let model = Mixed::new(&values(1), &target.device);
        let mut reference = OracleRoute::new(hyper, values(1).to_vec());

        let grads = model.grads(2);
        let ascended = optim.ascend(model, grads).map_err(text)?;
        let want = reference.ascend(&values(2))?;
        near("perturbed", &ascended.model().read()?, &want, HALF_ULP)?;
        let grads = ascended.model().grads(3);
        let mut model = optim.descend(0.1, ascended, grads).map_err(text)?;
        near("weight", &model.read()?, &reference.descend(0.1, &values(3))?, HALF_ULP)?;
        for (got, want) in state(&optim, &model)?.iter().zip(&reference.state()?) {
            near("state", got, want, Tolerance::SINGLE)?;
        }

        let ops = Target { policy: RoutePolicy::TensorOps, ..target.clone() };
        let (mut other, mut twin) = (ops.init(&config)?, Mixed::new(&values(1), &target.device));
        twin = step(&mut other, twin, 2)?;
        for seed in [4, 6, 8] {
            model = step(&mut optim, model, seed)?;
            twin = step(&mut other, twin, seed)?;
        }
        // In each of four steps a sum next to a tie may be rounded to either side.
        let four_ulps = Tolerance { rtol: 4.0 / 1024.0, atol: 1e-5, share: 1e-4 };
        near("the other route", &model.read()?, &twin.read()?, four_ulps)?;
    }
    Ok(())
}

fn step(optim: &mut Wsam, model: Mixed, seed: u64) -> Result<Mixed, String> {
    let grads = model.grads(seed);
    let ascended = optim.ascend(model, grads).map_err(text)?;
    let grads = ascended.model().grads(seed + 1);
    optim.descend(0.1, ascended, grads).map_err(text)
}

/// A lean step matches the oracle within one more rounding than an ordinary step.
pub(crate) fn lean(target: &Target) -> Result<(), String> {
    for base in bases() {
        let config = config(base);
        let hyper: Hyperparameters = config.hyperparameters().map_err(text)?;
        let mut optim = target.init(&config)?;
        let model = Mixed::new(&values(1), &target.device);
        let mut reference = OracleRoute::new(hyper, values(1).to_vec());
        let grads = model.grads(2);
        let ascended = optim.lean_ascend(0.1, model, grads).map_err(text)?;
        near("perturbed", &ascended.model().read()?, &reference.ascend(&values(2))?, HALF_ULP)?;
        let grads = ascended.model().grads(3);
        let model = optim.lean_descend(ascended, grads).map_err(text)?;
        // The weights that the two phases write are of order 1.
        let twice = Tolerance { rtol: 2.5 / 2048.0, atol: 1e-3, share: f64::MAX };
        near("weight", &model.read()?, &reference.descend(0.1, &values(3))?, twice)?;
    }
    Ok(())
}

/// A Burn optimizer as the base receives gradients of the parameters' own element type.
pub(crate) fn burn_base(target: &Target) -> Result<(), String> {
    for decouple in [true, false] {
        let config = WsamConfig::new(BaseConfig::Burn).with_rho(1.0).with_decouple(decouple);
        let lion = LionConfig::new().init();
        let optim = config.with_route(target.policy).init_with(lion, &target.device);
        let mut optim = optim.map_err(text)?;
        let model = Mixed::new(&values(1), &target.device);
        let before = model.read()?;
        let model = step(&mut optim, model, 2)?;
        // Lion moves each weight by the learning rate; the sharpness term moves it by far less.
        let moved = model.read()?.concat().iter().zip(before.concat()).all(|(new, old)| {
            let by = (new - old).abs();
            (0.01..1.0).contains(&by)
        });
        if !moved {
            return Err("not every weight moved by Lion's step".to_owned());
        }
    }
    Ok(())
}

pub(crate) fn resume(target: &Target) -> Result<(), String> {
    for base in bases() {
        let stochastic = (target.policy == RoutePolicy::Fused).then_some(5);
        let config = config(base).with_stochastic_rounding(stochastic).with_master_weights(true);
        let mut optim = target.init(&config)?;
        let mut model = step(&mut optim, Mixed::new(&values(1), &target.device), 2)?;
        let bytes = optim.to_bytes(&model).map_err(text)?;
        let mut resumed = target.init(&config)?;
        resumed.load_bytes(&model, bytes).map_err(text)?;
        let mut twin = fork(&model);
        for seed in [4, 6] {
            model = step(&mut optim, model, seed)?;
            twin = step(&mut resumed, twin, seed)?;
        }
        if model.read()? != twin.read()? {
            return Err("the resumed run differs".to_owned());
        }
    }
    Ok(())
}

/// Training a linear model with both passes in f16 reduces the loss.
pub(crate) fn trains(target: &Target) -> Result<(), String> {
    let mut optim = target.init(&config(SgdBaseConfig::new().into()).with_rho(0.05))?;
    let [_, inputs] = values(2);
    let inputs = half(&inputs, &target.device);
    let loss = |model: &Mixed| {
        let out = inputs.clone().matmul(model.half.val().transpose());
        let single = model.single.val().powi_scalar(2).mean();
        single + (out - 1.0).powi_scalar(2).mean().cast(FloatDType::F32)
    };
    let mut model = Mixed::new(&values(1), &target.device);
    let mut losses = Vec::new();
    for _ in 0..20 {
        let (stepped, report) = optim.step(0.2, model, loss).map_err(text)?;
        model = stepped;
        losses.push(report.loss().into_scalar::<f32>());
    }
    model.read()?;
    // The first loss is about 1.4. The comparison is false for a NaN.
    match losses.last() {
        Some(last) if *last < 0.5 * losses[0] => Ok(()),
        _ => Err(format!("losses {losses:?}")),
    }
}

/// Master weights of the half-precision parameter.
fn masters(optim: &Wsam, model: &Mixed) -> Result<Vec<f64>, String> {
    let state = optim.state(model.half.id).map_err(text)?.ok_or("no state")?;
    match state.tensors.last() {
        Some((MASTER_WEIGHTS, data)) => Ok(data.iter::<f64>().collect()),
        other => Err(format!("no master weights, but {other:?}")),
    }
}

/// Takes steps that are too small to change most f16 weights, and compares with the oracle.
fn follow(
    optim: &mut Wsam,
    mut model: Mixed,
    reference: &mut OracleRoute,
    seeds: &[u64],
) -> Result<Mixed, String> {
    for seed in seeds {
        let grads = model.grads(*seed);
        let ascended = optim.ascend(model, grads).map_err(text)?;
        near("perturbed", &ascended.model().read()?, &reference.ascend(&values(*seed))?, HALF_ULP)?;
        let grads = ascended.model().grads(seed + 1);
        model = optim.descend(1e-4, ascended, grads).map_err(text)?;
        let want = reference.descend(1e-4, &values(seed + 1))?;
        near("weight", &model.read()?, &want, HALF_ULP)?;
        let masters = vec![model.read()?.remove(0), masters(optim, &model)?];
        near("master", &masters, &want, Tolerance::SINGLE)?;
    }
    Ok(model)
}

/// Master weights match the oracle within f32 rounding, although the weights are rounded to f16.
pub(crate) fn master_weights(target: &Target) -> Result<(), String> {
    for base in bases() {
        let config = config(base).with_master_weights(true);
        let hyper = config.hyperparameters().map_err(text)?;
        let mut optim = target.init(&config)?;
        let mut model = Mixed::new(&values(1), &target.device);
        let mut reference = OracleRoute::new(hyper.clone(), values(1).to_vec());
        model = follow(&mut optim, model, &mut reference, &[2, 4, 6, 8])?;
        if hyper.base.state_names().is_empty() {
            // Weights replaced by the user take precedence over the master weights.
            let other = Mixed::new(&values(9), &target.device);
            let [single, half] = model.ids();
            model = Mixed {
                single: Param::initialized(single, other.single.val()),
                half: Param::initialized(half, other.half.val()),
            };
            let mut reference = OracleRoute::new(hyper, values(9).to_vec());
            follow(&mut optim, model, &mut reference, &[2, 4])?;
        }
    }
    Ok(())
}

/// A skipped step leaves the master weights unchanged. Lean mode refuses master weights.
pub(crate) fn master_weights_after_skip(target: &Target) -> Result<(), String> {
    let config = config(SgdBaseConfig::new().into()).with_master_weights(true);
    let mut optim = target.init(&config)?;
    let mut model = step(&mut optim, Mixed::new(&values(1), &target.device), 2)?;
    let before = (model.read()?, masters(&optim, &model)?);
    let device = target.device.clone().inner();
    let mut grads = model.grads(4);
    grads.remove::<2>(model.half.id);
    let mut bad = values(4)[1].clone();
    bad[62] = f64::INFINITY;
    grads.register(model.half.id, half(&bad, &device));
    let ascended = optim.ascend(model, grads).map_err(text)?;
    let grads = ascended.model().grads(5);
    model = optim.descend(0.1, ascended, grads).map_err(text)?;
    if (model.read()?, masters(&optim, &model)?) != before {
        return Err("a skipped step changed weights or master weights".to_owned());
    }
    let grads = model.grads(6);
    match optim.lean_ascend(0.1, model, grads) {
        Err(rejected) if matches!(rejected.error, WsamError::LeanMasters) => {}
        other => return Err(format!("a lean step: {other:?}")),
    }
    match target.init(&config.with_lean(true)) {
        Err(error) if error.contains("master weights") => Ok(()),
        other => Err(format!("lean mode: {other:?}")),
    }
}

/// A perturbation below half an ulp is lost in rounding to nearest, and kept on average by stochastic rounding.
pub(crate) fn stochastic_rounding(target: &Target) -> Result<(), String> {
    let base = || SgdBaseConfig::new().into();
    let config = WsamConfig::new(base()).with_rho(5e-4).with_gamma(0.5);
    let stochastic = config.clone().with_stochastic_rounding(Some(1));
    if target.policy != RoutePolicy::Fused {
        return match target.init(&stochastic) {
            Err(error) if error.contains("stochastic rounding") => Ok(()),
            other => Err(format!("not refused: {other:?}")),
        };
    }
    let ascended = |config: &WsamConfig| {
        let mut optim = target.init(config)?;
        let model = Mixed::new(&values(1), &target.device);
        let grads = model.grads(2);
        optim.ascend(model, grads).map_err(text)?.model().read()
    };
    let moved =
        |values_f16: &[f64]| values_f16.iter().zip(&values(1)[1]).filter(|(a, b)| a != b).count();
    let (nearest, once, again) =
        (ascended(&config)?, ascended(&stochastic)?, ascended(&stochastic)?);
    // Some weights move under rounding to nearest too: small weights have small ulps.
    if once != again || moved(&nearest[1]) * 2 > moved(&once[1]) {
        return Err(format!(
            "{} moved under rounding to nearest, {} under stochastic rounding",
            moved(&nearest[1]),
            moved(&once[1])
        ));
    }
    if nearest[0] != once[0] {
        return Err("a single-precision parameter was rounded stochastically".to_owned());
    }
    Ok(())
}

/// A parameter whose weight fits the device's largest allocation and whose `f32` state does not. It is refused
/// with name, size and limit before anything is allocated, and it can be stepped where no state is needed.
#[cfg(feature = "fused-wsam")]
pub(crate) fn too_large(target: &Target) -> Result<(), String> {
    use burn::backend::DispatchDevice;
    use burn::optim::momentum::MomentumConfig;

    #[derive(Module, Debug)]
    struct One {
        weight: Param<Tensor<1>>,
    }
    let inner = target.device.clone().inner();
    let plain = inner.clone().without_autodiff();
    let DispatchDevice::Cube(cube) = plain.as_dispatch() else {
        return Ok(());
    };
    let limit = cube.client().properties().memory.max_page_size;
    let (len, enough) = ((limit / 4 + 1024) as usize, 1 << 28);
    // The limit is 128 MiB on lavapipe. Devices with larger limits are excluded, because the test would need that memory.
    println!("the largest allocation is {limit} bytes");
    if target.policy != RoutePolicy::Fused || limit > enough {
        return Ok(());
    }
    let zeros = || Tensor::<1>::zeros([len], (&target.device, DType::F16));
    let grads = |model: &One| {
        let mut grads = GradientsParams::new();
        grads.register(model.weight.id, Tensor::<1>::zeros([len], (&inner, DType::F16)));
        grads
    };
    let momentum = SgdBaseConfig::new().with_momentum(Some(MomentumConfig::new()));
    let masters = WsamConfig::new(SgdBaseConfig::new().into()).with_master_weights(true);
    let mut model = One { weight: Param::from_tensor(zeros()) };
    for config in [WsamConfig::new(momentum.into()), masters] {
        let mut optim = target.init(&config)?;
        let grads = grads(&model);
        let refused = match optim.ascend(model, grads) {
            Ok(_) => return Err(format!("{config}: the step was taken")),
            Err(refused) => refused,
        };
        match &refused.error {
            WsamError::TooLarge { param, bytes, limit: found, .. }
                if param == "weight" && *bytes >= 4 * len as u64 && *found == limit => {}
            other => return Err(format!("{config}: {other}")),
        }
        model = *refused.model;
    }
    let mut optim = target.init(&WsamConfig::new(SgdBaseConfig::new().into()))?;
    let first = grads(&model);
    let ascended = optim.ascend(model, first).map_err(text)?;
    let second = grads(ascended.model());
    optim.descend(0.1, ascended, second).map(|_| ()).map_err(text)
}
