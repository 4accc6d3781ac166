//! Running statistics, and frozen, tied, unused and empty parameters.

use super::Target;
use super::nets::{ConvNet, Mlp, close, config, data, fork, grads, parameters, same, text};
use burn::module::{Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::{Device, Tensor};
use burn_wsam::{AdamWBaseConfig, BaseConfig, NonFinitePolicy, WsamConfig, WsamError};

/// After a step the running statistics are those of one pass over the unperturbed model, within [`bounds`], which
/// allows for two evaluations of Burn's reductions. The statistics after no pass, after two passes and after a pass
/// over the perturbed model differ by more than four times the bound.
pub(crate) fn batch_norm(target: &Target) -> Result<(), String> {
    let mut optim = target.init(&config().with_rho(3.0))?;
    let mut climber = target.init(&config().with_rho(3.0))?;
    let mut model = ConvNet::new(&target.device);
    for batch in 0..3 {
        let before = statistics(&model);
        // Passes over the same weights, on copies with their own statistics.
        let twin = fork(&model);
        let first = grads(&twin.loss(batch), &twin);
        let once = statistics(&twin);
        let again = fork(&twin);
        let _ = again.loss(batch);
        let twice = statistics(&again);
        // A pass of the perturbed model, which starts with the same statistics.
        let ascended = climber.ascend(fork(&model), first).map_err(|error| error.to_string())?;
        let perturbed = fork(ascended.model());
        let _ = perturbed.loss(batch);
        let climbed = statistics(&perturbed);
        let bounds = bounds(&model, &once);
        let step = optim.step(0.05, model, |model| model.loss(batch));
        (model, _) = step.map_err(|error| error.to_string())?;

        let found = statistics(&model);
        if !farthest(&found, &once, &bounds).is_some_and(|far| far <= 1.0) {
            return Err(format!("step {batch}: statistics {found:?}, expected {once:?}"));
        }
        for (what, other) in
            [("no pass", before), ("two passes", twice), ("the perturbed model", climbed)]
        {
            if !farthest(&found, &other, &bounds).is_some_and(|far| far > 4.0) {
                return Err(format!("step {batch}: statistics {found:?} are those of {what}"));
            }
        }
    }
    Ok(())
}

/// Bound on the difference of two evaluations of one pass, for each statistic.
///
/// A statistic is `0.9 old + 0.1 of the batch`. The batch's is a mean over `n = 6 * 16` values, each a
/// sum of `k = 9` products of weights and inputs, which lie in [-1, 1]; so no value exceeds the sum `s`
/// of the weights' magnitudes. In any order, a mean of values is off by at most `(n + k) u s`, with
/// `u = 2^-24`. A variance is a mean of squares, each with twice its value's error, with the mean's error
/// added twice: `4 (n + k) u s^2`. Each of two evaluations may be off by that, and by two roundings
/// of the result.
fn bounds(model: &ConvNet, once: &[Vec<f32>; 2]) -> [Vec<f64>; 2] {
    let unit = 1.0 / f64::from(1 << 24);
    let weights: Vec<f64> = model.conv.weight.val().into_data().iter().collect();
    let sums: Vec<f64> = weights.chunks(9).map(|w| w.iter().map(|w| w.abs()).sum()).collect();
    let bound = |of_batch: f64, result: f32| {
        2.0 * unit * (0.1 * 105.0 * of_batch + 2.0 * f64::from(result.abs()))
    };
    let [means, variances] = once;
    [
        means.iter().zip(&sums).map(|(mean, s)| bound(*s, *mean)).collect(),
        variances.iter().zip(&sums).map(|(variance, s)| bound(4.0 * s * s, *variance)).collect(),
    ]
}

/// The largest difference of a statistic, divided by its bound. `None` if one is NaN.
fn farthest(a: &[Vec<f32>; 2], b: &[Vec<f32>; 2], bounds: &[Vec<f64>; 2]) -> Option<f64> {
    let pairs = a.iter().flatten().zip(b.iter().flatten()).zip(bounds.iter().flatten());
    let mut shares = pairs.map(|((a, b), bound)| (f64::from(*a) - f64::from(*b)).abs() / bound);
    shares.try_fold(0.0_f64, |far, share| (!share.is_nan()).then(|| far.max(share)))
}

fn statistics(model: &ConvNet) -> [Vec<f32>; 2] {
    [&model.norm.running_mean, &model.norm.running_var].map(|state| {
        state.value_sync().into_data().try_to_vec::<f32>().expect("statistics are f32")
    })
}

pub(crate) fn frozen(target: &Target) -> Result<(), String> {
    let mut optim = target.init(&config())?;
    let mut model = Mlp::new(&target.device);
    model.a = model.a.no_grad();
    let before = parameters(&model.a);
    let moving = parameters(&model.b);
    for batch in 0..2 {
        let step = optim.step(0.1, model, |model| model.loss(batch));
        (model, _) = step.map_err(|error| error.to_string())?;
    }
    same("the frozen layer", &model.a, &before)?;
    if model.a.weight.val().is_require_grad() {
        return Err("the frozen layer became trainable".to_owned());
    }
    if parameters(&model.b) == moving {
        Err("the other layer was not updated".to_owned())
    } else {
        Ok(())
    }
}

#[derive(Module, Debug)]
struct Spare {
    used: Linear,
    unused: Linear,
}

pub(crate) fn without_gradient(target: &Target) -> Result<(), String> {
    let mut optim = target.init(&config())?;
    let model = Spare {
        used: LinearConfig::new(5, 3).init(&target.device),
        unused: LinearConfig::new(5, 3).init(&target.device),
    };
    let before = parameters(&model.unused);
    let loss = |model: &Spare| {
        model.used.forward(data([4, 5], 1, &model.used.weight.device())).powi_scalar(2).mean()
    };
    let (model, _) = optim.step(0.1, model, loss).map_err(|error| error.to_string())?;
    same("the unused layer", &model.unused, &before)
}

/// A module with one parameter in two fields.
#[derive(Module, Debug)]
struct Tied {
    one: Param<Tensor<2>>,
    two: Param<Tensor<2>>,
}

impl Tied {
    fn loss(&self, batch: u64) -> Tensor<1> {
        let x = data([4, 6], batch, &self.one.device());
        x.matmul(self.one.val()).matmul(self.two.val()).powi_scalar(2).mean()
    }
}

pub(crate) fn tied(target: &Target) -> Result<(), String> {
    let weight = Param::from_tensor(data([6, 6], 3, &target.device));
    let mut ours = Tied { one: weight.clone(), two: weight };
    let mut theirs = ours.clone();
    let mut optim = target.init(&config().with_gamma(0.0))?;
    let mut burn = SgdConfig::new().init();
    for batch in 0..3 {
        let step = optim.step(0.1, ours, |model| model.loss(batch));
        (ours, _) = step.map_err(|error| error.to_string())?;
        let first = grads(&theirs.loss(batch), &theirs);
        theirs = burn.step(0.1, theirs, first);
    }
    close("tied", &ours, &theirs)?;

    // A parameter that the forward pass uses twice, the usual way to tie weights, is one parameter.
    let shared = Mlp::new(&target.device);
    let twice = |model: &Mlp| model.loss(1) + model.loss(2);
    let mut optim = target.init(&config())?;
    let first = grads(&twice(&shared), &shared);
    let ascended = optim.ascend(shared, first).map_err(|error| error.to_string())?;
    let second = grads(&twice(ascended.model()), ascended.model());
    optim.descend(0.1, ascended, second).map(|_| ()).map_err(|error| error.to_string())
}

#[derive(Module, Debug)]
struct WithEmpty {
    empty: Param<Tensor<1>>,
    linear: Linear,
}

/// An empty parameter does not affect the other parameters.
pub(crate) fn empty_parameters(target: &Target) -> Result<(), String> {
    let inner = target.device.clone().inner();
    let linear = LinearConfig::new(6, 4).init(&target.device);
    let made = |linear: &Linear, seed| {
        let mut grads = GradientsParams::new();
        grads.register(linear.weight.id, data([6, 4], seed, &inner));
        grads
    };
    for adaptive in [false, true] {
        let config = config().with_adaptive(adaptive).with_max_norm(Some(0.5));
        let mut without_empty = target.init(&config)?;
        let mut optim = target.init(&config)?;
        let mut want = linear.clone();
        let empty = Param::from_tensor(data([0], 1, &target.device));
        let mut model = WithEmpty { empty, linear: linear.clone() };
        for seed in 0..3 {
            let ascended =
                without_empty.ascend(want.clone(), made(&want, seed)).map_err(|e| e.to_string())?;
            want = without_empty
                .descend(0.1, ascended, made(&want, seed + 10))
                .map_err(|error| error.to_string())?;
            let with_empty = |seed| {
                let mut grads = made(&model.linear, seed);
                grads.register(model.empty.id, data([0], 1, &inner));
                grads
            };
            let (first, second) = (with_empty(seed), with_empty(seed + 10));
            let ascended = optim.ascend(model, first).map_err(|error| error.to_string())?;
            model = optim.descend(0.1, ascended, second).map_err(|error| error.to_string())?;
            same("the linear layer next to an empty parameter", &model.linear, &parameters(&want))?;
        }
    }
    Ok(())
}

/// Transposed and broadcast gradients give the same result as contiguous copies of them.
pub(crate) fn strided_gradients(target: &Target) -> Result<(), String> {
    let device: Device = target.device.clone().inner();
    let model = LinearConfig::new(6, 4).with_bias(true).init(&target.device);
    let bias = model.bias.as_ref().map(|bias| bias.id).ok_or("no bias")?;
    let run = |strided: bool| -> Result<Linear, String> {
        let mut optim = target.init(&config())?;
        let made = |seed| {
            let transposed = data([4, 6], seed, &device).transpose();
            let broadcast = data([1], seed + 1, &device).expand([4]);
            let mut grads = GradientsParams::new();
            if strided {
                grads.register(model.weight.id, transposed);
                grads.register(bias, broadcast);
            } else {
                let plain = Tensor::<2>::from_data(transposed.into_data(), &device);
                grads.register(model.weight.id, plain);
                grads.register(bias, Tensor::<1>::from_data(broadcast.into_data(), &device));
            }
            grads
        };
        let ascended = optim.ascend(model.clone(), made(1)).map_err(|error| error.to_string())?;
        optim.descend(0.1, ascended, made(2)).map_err(|error| error.to_string())
    };
    same("strided gradients", &run(true)?, &parameters(&run(false)?))
}

pub(crate) fn checkpointing(target: &Target) -> Result<(), String> {
    let device = target.device.clone().gradient_checkpointing();
    let mut optim = target.init(&config())?;
    let mut model = ConvNet::new(&device);
    for batch in 0..2 {
        let step = optim.step(0.05, model, |model| {
            let x = data([6, 1, 6, 6], batch, &device);
            model.norm.forward(model.conv.forward(x)).powi_scalar(2).mean()
        });
        (model, _) = step.map_err(|error| error.to_string())?;
    }
    let kept = model.conv.weight.val().gradient_checkpointing_strategy();
    if kept == device.gradient_checkpointing_strategy() {
        Ok(())
    } else {
        Err(format!("the checkpointing strategy became {kept:?}"))
    }
}

#[derive(Module, Debug)]
struct OnlyEmpty {
    empty: Param<Tensor<1>>,
}

/// A model whose only parameter is empty: every call succeeds and changes nothing. A missing gradient is still an
/// error.
pub(crate) fn only_empty_parameters(target: &Target) -> Result<(), String> {
    let inner = target.device.clone().inner();
    let model = || OnlyEmpty { empty: Param::from_tensor(data([0], 1, &target.device)) };
    let made = |model: &OnlyEmpty| {
        let mut grads = GradientsParams::new();
        grads.register(model.empty.id, data([0], 1, &inner));
        grads
    };
    let clipped = config().with_max_norm(Some(0.5));
    for config in [
        config(),
        clipped.clone(),
        clipped.clone().with_adaptive(true).with_decouple(false),
        WsamConfig::new(AdamWBaseConfig::new().into()).with_non_finite(NonFinitePolicy::Refuse),
    ] {
        let mut optim = target.init(&config)?;
        let (mut model, fail) = (model(), |what: &str| format!("{config}: {what}"));
        for _ in 0..2 {
            let grads = made(&model);
            let ascended = optim.ascend(model, grads).map_err(text)?;
            let grads = made(ascended.model());
            model = optim.descend(0.1, ascended, grads).map_err(text)?;
            let grads = made(&model);
            model = optim.base_step(0.1, model, grads).map_err(text)?;
            if config.decouple {
                let grads = made(&model);
                let ascended = optim.lean_ascend(0.1, model, grads).map_err(text)?;
                let grads = made(ascended.model());
                model = optim.lean_descend(ascended, grads).map_err(text)?;
            }
        }
        if optim.skipped_steps().map_err(text)? != 0 || model.empty.val().dims() != [0] {
            return Err(fail("a step over an empty parameter was skipped, or changed its shape"));
        }
        let bytes = optim.to_bytes(&model).map_err(text)?;
        let mut resumed = target.init(&config)?;
        resumed.load_bytes(&model, bytes).map_err(text)?;
        let grads = made(&model);
        model = resumed.base_step(0.1, model, grads).map_err(text)?;
        match optim.ascend(model, GradientsParams::new()) {
            Err(error) if matches!(error.error, WsamError::NoGradients { gradients: 0 }) => {}
            _ => return Err(fail("an ascent without gradients was accepted")),
        }
    }
    // With a Burn optimizer as the base.
    for config in [clipped.clone(), clipped.with_decouple(false)] {
        let config = config.with_base(BaseConfig::Burn).with_route(target.policy);
        let sgd = SgdConfig::new().init();
        let mut optim = config.init_with(sgd, &target.device).map_err(text)?;
        let model = model();
        let grads = made(&model);
        let ascended = optim.ascend(model, grads).map_err(text)?;
        let grads = made(ascended.model());
        let model = optim.descend(0.1, ascended, grads).map_err(text)?;
        let grads = made(&model);
        optim.base_step(0.1, model, grads).map_err(text)?;
    }
    Ok(())
}
