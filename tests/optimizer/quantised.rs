//! Quantised, integer and boolean parameters stay unchanged in all calls.

use super::Target;
use super::nets::{data, grads, text};
use burn::module::{Module, Param, Quantizer};
use burn::nn::{Linear, LinearConfig};
use burn::optim::LionConfig;
use burn::tensor::quantization::{Calibration, QuantValue};
use burn::tensor::{Bool, DType, Device, Int, Tensor, TensorData, activation::relu};
use burn_wsam::sharpness::{self, Plane, PowerIteration};
use burn_wsam::{AdamWBaseConfig, BaseConfig, Perturbation, Wsam, WsamConfig};

/// A trained layer, a quantised layer, integers and booleans.
#[derive(Module, Debug)]
struct Quantised {
    quantised: Linear,
    plain: Linear,
    integers: Param<Tensor<1, Int>>,
    flags: Param<Tensor<1, Bool>>,
}

impl Quantised {
    /// `frozen` freezes the layer before it is quantised.
    fn new(device: &Device, frozen: bool) -> Self {
        device.seed(1);
        let layer = LinearConfig::new(32, 32).init(device);
        let layer = if frozen { layer.no_grad() } else { layer };
        let scheme = device.settings().quantization.scheme.with_value(QuantValue::Q8S);
        let mut quantizer = Quantizer::new(Calibration::MinMax, scheme);
        let flags = TensorData::new(vec![true, false, true], [3]);
        Self {
            quantised: layer.quantize_weights(&mut quantizer),
            plain: LinearConfig::new(32, 4).init(device),
            integers: Param::initialized(Default::default(), Tensor::from_ints([1, 2, 3], device)),
            flags: Param::initialized(Default::default(), Tensor::from_data(flags, device)),
        }
    }

    fn loss(&self, batch: u64) -> Tensor<1> {
        let device = self.plain.weight.device();
        let x = data([7, 32], batch, &device);
        let layer = self.quantised.weight.val().without_autodiff().dequantize();
        let hidden = relu(x.matmul(Tensor::from_inner(layer)));
        self.plain.forward(hidden).powi_scalar(2).mean()
    }

    /// Bytes of the untrained parameters.
    fn untrained(&self) -> Result<Vec<Vec<u8>>, String> {
        let weight = self.quantised.weight.val();
        if !matches!(weight.dtype(), DType::QFloat(_)) {
            return Err(format!("the quantised weight became {:?}", weight.dtype()));
        }
        let data = [
            weight.without_autodiff().into_data(),
            self.integers.val().into_data(),
            self.flags.val().into_data(),
        ];
        Ok(data.iter().map(|data| data.as_bytes().to_vec()).collect())
    }
}

fn same(what: &str, model: &Quantised, want: &[Vec<u8>]) -> Result<(), String> {
    if model.untrained()? == want {
        Ok(())
    } else {
        Err(format!("{what} changed an untrained parameter"))
    }
}

/// Untrained parameters are unchanged by every kind of step, by `detach` and by records.
pub(crate) fn steps(target: &Target) -> Result<(), String> {
    for frozen in [true, false] {
        for config in [
            WsamConfig::new(AdamWBaseConfig::new().into()),
            WsamConfig::new(AdamWBaseConfig::new().into()).with_lean(true),
            WsamConfig::new(BaseConfig::Burn),
        ] {
            let init = || match config.base {
                BaseConfig::Burn => {
                    let config = config.clone().with_route(target.policy);
                    config.init_with(LionConfig::new().init(), &target.device).map_err(text)
                }
                _ => target.init(&config),
            };
            run_steps(&mut init()?, &mut init()?, Quantised::new(&target.device, frozen))?;
        }
    }
    Ok(())
}

fn run_steps(optim: &mut Wsam, other: &mut Wsam, mut model: Quantised) -> Result<(), String> {
    let want = model.untrained()?;
    let trained = |model: &Quantised| model.plain.weight.val().into_data();
    let before = trained(&model);
    (model, _) = optim.step(0.01, model, |model| model.loss(0)).map_err(text)?;
    same("a step", &model, &want)?;
    let stepped = trained(&model);
    model = optim.copy_to_own_memory(model);
    same("detach", &model, &want)?;
    if stepped == before || trained(&model) != stepped {
        return Err(
            "detach changed a trained parameter, or the step before trained nothing".to_owned()
        );
    }
    for perturbation in [Perturbation::Whole, Perturbation::EachMicroBatch] {
        let step = optim.step_accumulated(0.01, model, perturbation, &[1, 2], |model, batch| {
            model.loss(*batch)
        });
        (model, _) = step.map_err(text)?;
        same("an accumulated step", &model, &want)?;
    }
    let first = grads(&model.loss(3), &model);
    let ascended = optim.ascend(model, first).map_err(text)?;
    same("an ascent", ascended.model(), &want)?;
    model = ascended.restore();
    same("a restored model", &model, &want)?;
    let first = grads(&model.loss(3), &model);
    model = optim.base_step(0.01, model, first).map_err(text)?;
    same("a base step", &model, &want)?;

    let bytes = optim.to_bytes(&model).map_err(text)?;
    other.load_bytes(&model, bytes).map_err(text)?;
    let (resumed, _) = other.step(0.01, model.clone(), |model| model.loss(4)).map_err(text)?;
    (model, _) = optim.step(0.01, model, |model| model.loss(4)).map_err(text)?;
    same("a resumed step", &resumed, &want)?;
    if trained(&resumed) == trained(&model) {
        Ok(())
    } else {
        Err("the resumed step differs".to_owned())
    }
}

/// A parameter that was quantised after its record was saved is no longer trained, so its state is dropped.
pub(crate) fn records(target: &Target) -> Result<(), String> {
    let config = WsamConfig::new(AdamWBaseConfig::new().into());
    let mut optim = target.init(&config)?;
    let mut layer: Linear = LinearConfig::new(32, 32).init(&target.device);
    for batch in 0..2 {
        let loss = |layer: &Linear| {
            let x = data([7, 32], batch, &layer.weight.device());
            layer.forward(x).powi_scalar(2).mean()
        };
        (layer, _) = optim.step(0.01, layer, loss).map_err(text)?;
    }
    let bytes = optim.to_bytes(&layer).map_err(text)?;
    let mut model = Quantised::new(&target.device, true);
    let (id, _, mapper) = layer.weight.clone().consume();
    let quantised = model.quantised.weight.val();
    model.quantised.weight = Param::from_mapped_value(id, quantised, mapper);
    model.quantised.bias = layer.bias;
    let mut fresh = target.init(&config)?;
    fresh.load_bytes(&model, bytes).map_err(text)?;
    match fresh.state(id).map_err(text)? {
        None => Ok(()),
        Some(state) => Err(format!("a quantised weight has the state {state:?}")),
    }
}

/// Sharpness measures ignore untrained parameters and leave them unchanged.
pub(crate) fn measures(target: &Target) -> Result<(), String> {
    for frozen in [true, false] {
        let model = Quantised::new(&target.device, frozen);
        let want = model.untrained()?;
        let loss = |model: &Quantised| model.loss(0);
        let rise = sharpness::loss_rise(&model, 0.05, false, loss).map_err(text)?;
        let options = PowerIteration::default().with_max_products(3);
        let top = sharpness::top_eigenvalue(&model, &options, loss).map_err(text)?;
        let plane = Plane::default().with_points(3);
        let surface = sharpness::surface(&model, &plane, loss).map_err(text)?;
        if !(rise > 0.0 && top.value > 0.0) {
            return Err(format!("a rise of {rise}, {top:?}, {surface:?}"));
        }
        same("measuring", &model, &want)?;
    }
    Ok(())
}
