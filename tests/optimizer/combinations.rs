//! Combinations of options: settings that a step reads once must hold for both of its phases.

use super::Target;
use super::nets::{Mlp, config, grads, parameters, same, text};
use burn::module::{Module, Param, ParamId};
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_wsam::{
    AdamWBaseConfig, BaseConfig, LossScaleConfig, MissingGradientPolicy, NonFinitePolicy,
    Perturbation, RoutePolicy, Wsam, WsamConfig, WsamError,
};
use half::f16;

/// How a step is called.
#[derive(Clone, Copy, Debug)]
enum Calls {
    Step,
    Two,
    Accumulated(Perturbation),
}

fn step(
    optim: &mut Wsam,
    model: Mlp,
    (calls, lean): (Calls, bool),
    batch: u64,
) -> Result<Mlp, String> {
    match calls {
        Calls::Step => {
            let stepped = optim.step(0.1, model, |model| model.loss(batch));
            stepped.map(|(model, _)| model).map_err(text)
        }
        Calls::Two => {
            let scale = optim.loss_scale();
            let first = grads(&(model.loss(batch) * scale), &model);
            if lean {
                let ascended = optim.lean_ascend(0.1, model, first).map_err(text)?;
                let second = grads(
                    &(ascended.model().loss(batch) * ascended.loss_scale()),
                    ascended.model(),
                );
                return optim.lean_descend(ascended, second).map_err(text);
            }
            let ascended = optim.ascend(model, first).map_err(text)?;
            let second =
                grads(&(ascended.model().loss(batch) * ascended.loss_scale()), ascended.model());
            optim.descend(0.1, ascended, second).map_err(text)
        }
        Calls::Accumulated(perturbation) => {
            let batches = [batch, batch + 50];
            let loss = |model: &Mlp, batch: &u64| model.loss(*batch);
            let stepped = optim.step_accumulated(0.1, model, perturbation, &batches, loss);
            stepped.map(|(model, _)| model).map_err(text)
        }
    }
}

/// A loss scale that changes by powers of two leaves every bit of the weights as it is, under every other option.
pub(crate) fn loss_scale_is_bit_exact(target: &Target) -> Result<(), String> {
    let scale = LossScaleConfig::new().with_initial(4.0).with_interval(2);
    let calls = [
        Calls::Step,
        Calls::Two,
        Calls::Accumulated(Perturbation::Whole),
        Calls::Accumulated(Perturbation::EachMicroBatch),
    ];
    let adamw = WsamConfig::new(AdamWBaseConfig::new().into());
    let lean = adamw.clone().with_lean(true);
    for config in [config(), adamw, lean] {
        for seed in [None, Some(1)] {
            if seed.is_some() && target.policy != RoutePolicy::Fused {
                continue;
            }
            for calls in calls {
                let plain = config.clone().with_stochastic_rounding(seed);
                let scaled = plain.clone().with_loss_scale(Some(scale.clone()));
                let (mut optim, mut reference) = (target.init(&scaled)?, target.init(&plain)?);
                let mut model = Mlp::new(&target.device);
                let mut want = model.clone();
                for batch in 0..5 {
                    model = step(&mut optim, model, (calls, config.lean), batch)?;
                    want = step(&mut reference, want, (calls, config.lean), batch)?;
                    let what = format!("{calls:?}, step {batch}, {scaled}");
                    same(&what, &model, &parameters(&want))?;
                }
                if optim.loss_scale() != 16.0 {
                    return Err(format!("{calls:?}: the scale is {}", optim.loss_scale()));
                }
            }
        }
    }
    Ok(())
}

#[derive(Module, Debug)]
struct HalfModel {
    weight: Param<Tensor<1>>,
}

const LEN: usize = 4096;

impl HalfModel {
    fn new(device: &Device) -> Self {
        let values = TensorData::new(vec![f16::from_f32(0.5); LEN], [LEN]);
        Self { weight: Param::from_tensor(Tensor::from_data(values, (device, DType::F16))) }
    }

    fn id(&self) -> ParamId {
        self.weight.id
    }

    fn grads(&self) -> GradientsParams {
        let device = self.weight.val().device().inner();
        let values = TensorData::new(vec![f16::from_f32(1.0); LEN], [LEN]);
        let mut grads = GradientsParams::new();
        grads.register(self.id(), Tensor::<1>::from_data(values, (&device, DType::F16)));
        grads
    }

    fn read(&self) -> Vec<u64> {
        self.weight.val().into_data().iter::<f64>().map(f64::to_bits).collect()
    }
}

/// Each step draws new random numbers for its rounding, with a built-in base optimizer and with one of Burn's. A
/// skipped step draws no numbers.
pub(crate) fn rounding_differs_by_step(target: &Target) -> Result<(), String> {
    if target.policy != RoutePolicy::Fused {
        return Ok(());
    }
    for burn_base in [false, true] {
        let base = if burn_base { BaseConfig::Burn } else { AdamWBaseConfig::new().into() };
        let config = WsamConfig::new(base)
            .with_rho(0.01)
            .with_stochastic_rounding(Some(1))
            .with_route(target.policy);
        let init = || match burn_base {
            true => config.init_with(SgdConfig::new().init(), &target.device),
            false => config.init(&target.device),
        };
        let (mut optim, mut repeated) = (init().map_err(text)?, init().map_err(text)?);
        let mut model = HalfModel::new(&target.device);
        let mut seen: Vec<Vec<u64>> = Vec::new();
        for step in 0..3 {
            // At a learning rate of 0 the weights do not change, so the steps differ only by their rounding.
            let first = model.grads();
            let ascended = optim.ascend(model, first).map_err(text)?;
            let perturbed = ascended.model().read();
            if seen.contains(&perturbed) {
                return Err(format!(
                    "burn_base {burn_base}: step {step} rounds in the same way as an earlier step"
                ));
            }
            seen.push(perturbed);
            let second = ascended.model().grads();
            model = optim.descend(0.0, ascended, second).map_err(text)?;
        }
        let mut model = HalfModel::new(&target.device);
        for (step, want) in seen.iter().enumerate() {
            let mut bad = model.grads();
            let id = model.id();
            let poisoned = bad.remove::<1>(id).map(|grad| grad.mul_scalar(f32::NAN));
            bad.register(id, poisoned.ok_or("no gradient")?);
            model = repeated.base_step(0.0, model, bad).map_err(text)?;
            let first = model.grads();
            let ascended = repeated.ascend(model, first).map_err(text)?;
            if ascended.model().read() != *want {
                return Err(format!(
                    "burn_base {burn_base}: step {step} differs after a skipped step"
                ));
            }
            let second = ascended.model().grads();
            model = repeated.descend(0.0, ascended, second).map_err(text)?;
        }
    }
    Ok(())
}

/// An option that has no effect because of another option is refused, with the names of both.
pub(crate) fn conflicts() -> Result<(), String> {
    let device = Device::flex();
    let propagate = config().with_non_finite(NonFinitePolicy::Propagate);
    let scaled = |scale| propagate.clone().with_loss_scale(Some(scale));
    let lean = config().with_lean(true);
    let refused = [
        (scaled(LossScaleConfig::new()), "loss_scale", "Propagate"),
        (scaled(LossScaleConfig::new().with_growth(1.0)), "loss_scale", "Propagate"),
        (lean.clone().with_non_finite(NonFinitePolicy::BaseStep), "lean", "BaseStep"),
        (
            lean.clone().with_missing_gradient(MissingGradientPolicy::Hold),
            "lean",
            "missing_gradient",
        ),
        (lean.with_missing_gradient(MissingGradientPolicy::UseFirst), "lean", "missing_gradient"),
        (config().with_clip_perturbed_only(true), "clip_perturbed_only", "max_norm"),
    ];
    for (config, option, other) in refused {
        match config.init(&device) {
            Err(error @ WsamError::Conflict { .. }) => {
                let text = error.to_string();
                if !(text.contains(option) && text.contains(other)) {
                    return Err(format!("{text} does not name {option} and {other}"));
                }
            }
            other => return Err(format!("{config}: {:?}", other.map(|_| ()))),
        }
    }
    scaled(LossScaleConfig::fixed(8.0)).init(&device).map(|_| ()).map_err(text)?;
    // `lean_ascend` refuses the same conflict as the configuration's `lean`.
    let policy = config().with_non_finite(NonFinitePolicy::BaseStep);
    let mut optim = policy.init(&device).map_err(text)?;
    let model = Mlp::new(&device.autodiff());
    let first = grads(&model.loss(0), &model);
    match optim.lean_ascend(0.1, model, first) {
        Err(rejected) if matches!(rejected.error, WsamError::Conflict { .. }) => Ok(()),
        other => Err(format!("a lean step: {other:?}")),
    }
}
