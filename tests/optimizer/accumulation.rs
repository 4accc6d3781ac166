//! Steps over micro-batches.

use super::Target;
use super::misuse::refused as is_refused;
use super::nets::{Mlp, close, config, data, grads, parameters, same, text};
use burn::module::{ModuleVisitor, Param};
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::{Tensor, activation::relu};
use burn_wsam::{AdamWBaseConfig, Perturbation, Rejected, StepReport, WsamConfig, WsamError};

const MICRO_BATCHES: [u64; 3] = [4, 5, 6];

fn mean_loss(model: &Mlp) -> Tensor<1> {
    (model.loss(4) + model.loss(5) + model.loss(6)) / 3.0
}

fn second(report: &StepReport) -> Result<Tensor<1>, String> {
    report.perturbed_loss().ok_or_else(|| "a step of one pass".to_owned())
}

/// With one perturbation, a step over micro-batches equals a step on their average loss.
pub(crate) fn one_perturbation(target: &Target) -> Result<(), String> {
    for lean in [false, true] {
        let config = WsamConfig::new(AdamWBaseConfig::new().into()).with_lean(lean);
        let (mut optim, mut plain) = (target.init(&config)?, target.init(&config)?);
        let mut model = Mlp::new(&target.device);
        let mut want = model.clone();
        for _ in 0..4 {
            let (stepped, report) = optim
                .step_accumulated(
                    0.01,
                    model,
                    Perturbation::Whole,
                    &MICRO_BATCHES,
                    |model, batch| model.loss(*batch),
                )
                .map_err(text)?;
            let (stepped_want, report_want) = plain.step(0.01, want, mean_loss).map_err(text)?;
            (model, want) = (stepped, stepped_want);
            for (got, want) in
                [(report.loss(), report_want.loss()), (second(&report)?, second(&report_want)?)]
            {
                let (got, want) = (got.into_scalar::<f32>(), want.into_scalar::<f32>());
                let right = (got - want).abs() <= 1e-5 * want.abs();
                if !right {
                    return Err(format!("loss {got}, expected {want}"));
                }
            }
        }
        close(&format!("lean {lean}"), &model, &want)?;
    }
    Ok(())
}

/// Mean loss over the rows `from..to` of one batch.
fn rows(model: &Mlp, from: usize, to: usize) -> Tensor<1> {
    let device = model.a.weight.device();
    let x: Tensor<2> = data([7, 5], 1, &device);
    let y: Tensor<2> = data([7, 3], 1001, &device);
    let (x, y) = (x.narrow(0, from, to - from), y.narrow(0, from, to - from));
    (model.b.forward(relu(model.a.forward(x))) - y).powi_scalar(2).mean()
}

/// Micro-batches of 5 and 2 rows, weighted by their sizes, equal one batch of 7 rows.
pub(crate) fn weighted(target: &Target) -> Result<(), String> {
    let parts = [(0, 5), (5, 7)];
    for lean in [false, true] {
        let config = WsamConfig::new(AdamWBaseConfig::new().into()).with_lean(lean);
        let (mut optim, mut plain) = (target.init(&config)?, target.init(&config)?);
        let mut model = Mlp::new(&target.device);
        let mut want = model.clone();
        for _ in 0..4 {
            let loss = |model: &Mlp, part: &(usize, usize)| rows(model, part.0, part.1);
            let (report, want_report);
            (model, report) = optim
                .step_accumulated_weighted(
                    0.01,
                    model,
                    Perturbation::Whole,
                    &parts,
                    &[5.0, 2.0],
                    loss,
                )
                .map_err(text)?;
            let stepped = plain.step(0.01, want, |model| rows(model, 0, 7));
            (want, want_report) = stepped.map_err(text)?;
            let [got, want] =
                [report.loss(), want_report.loss()].map(|loss| loss.into_scalar::<f32>());
            let right = (got - want).abs() <= 1e-5 * want.abs();
            if !right {
                return Err(format!("loss {got}, expected {want}"));
            }
        }
        close(&format!("lean {lean}"), &model, &want)?;
    }
    // Equal weights have no effect, whatever their value.
    let mut models = Vec::new();
    for weights in [None, Some([3.0, 3.0])] {
        let mut optim = target.init(&config())?;
        let model = Mlp::new(&target.device);
        let (perturbation, loss) =
            (Perturbation::EachMicroBatch, |model: &Mlp, batch: &u64| model.loss(*batch));
        let stepped = match weights {
            None => optim.step_accumulated(0.1, model, perturbation, &[1, 2], loss),
            Some(weights) => {
                optim.step_accumulated_weighted(0.1, model, perturbation, &[1, 2], &weights, loss)
            }
        };
        models.push(stepped.map_err(text)?.0);
    }
    same("equal weights", &models[0], &parameters(&models[1]))?;
    let mut optim = target.init(&config())?;
    let mut model = Mlp::new(&target.device);
    let before = parameters(&model);
    let wrong: [&[f64]; 5] = [&[1.0], &[1.0, 0.0], &[1.0, -1.0], &[1.0, f64::NAN], &[f64::MAX; 2]];
    for weights in wrong {
        let loss = |model: &Mlp, batch: &u64| model.loss(*batch);
        let perturbation = Perturbation::Whole;
        let stepped =
            optim.step_accumulated_weighted(0.1, model, perturbation, &[1, 2], weights, loss);
        model = is_refused("weights", stepped, &before, |error| {
            matches!(error, WsamError::MicroBatchWeights { micro_batches: 2, .. })
        })?;
    }
    Ok(())
}

/// A loss with one value a sample is refused, for micro-batches of 5 and 2 samples and for a plain step.
pub(crate) fn unreduced(target: &Target) -> Result<(), String> {
    let mut optim = target.init(&config())?;
    let mut model = Mlp::new(&target.device);
    let before = parameters(&model);
    let each = |model: &Mlp, rows: &usize| -> Tensor<1> {
        let x: Tensor<2> = data([*rows, 5], 1, &model.a.weight.device());
        model.a.forward(x).powi_scalar(2).mean_dim(1).squeeze_dim(1)
    };
    let right = |error: &WsamError| {
        matches!(error, WsamError::LossShape { shape } if shape == &[5])
            && error.to_string().contains("[5]")
    };
    for perturbation in [Perturbation::Whole, Perturbation::EachMicroBatch] {
        let stepped = optim.step_accumulated(0.1, model, perturbation, &[5, 2], each);
        model = is_refused("unreduced micro-batches", stepped, &before, right)?;
    }
    let stepped = optim.step(0.1, model, |model| each(model, &5));
    is_refused("an unreduced loss", stepped, &before, right)?;
    Ok(())
}

/// With a perturbation for each micro-batch, a step equals one written out: the perturbed gradients are
/// computed one by one, and Burn's SGD steps along their blend.
pub(crate) fn each_perturbed(target: &Target) -> Result<(), String> {
    const RHO: f64 = 0.5;
    let (lr, alpha) = (0.1, 4.0);
    for lean in [false, true] {
        let config = config().with_rho(RHO).with_gamma(0.8).with_lean(lean);
        let mut optim = target.init(&config)?;
        let model = Mlp::new(&target.device);
        let mut blend = GradientsParams::new();
        for batch in MICRO_BATCHES {
            let mut one = target.init(&config)?;
            let first = grads(&(model.loss(batch) / 3.0), &model);
            let ascended = one.ascend(model.clone(), grads(&model.loss(batch), &model));
            let ascended = ascended.map_err(text)?;
            let second = grads(&(ascended.model().loss(batch) / 3.0), ascended.model());
            add(&mut blend, &model, first, 1.0 - alpha);
            add(&mut blend, &model, second, alpha);
        }
        let want = SgdConfig::new().init().step(lr, model.clone(), blend);
        let before = parameters(&model);
        let (got, _) = optim
            .step_accumulated(
                lr,
                model.clone(),
                Perturbation::EachMicroBatch,
                &MICRO_BATCHES,
                |model, batch| model.loss(*batch),
            )
            .map_err(text)?;
        close(&format!("lean {lean}"), &got, &want)?;
        same("the model that was stepped", &model, &before)?;
        // The result differs from a step with one perturbation.
        let mut once = target.init(&config)?;
        let (whole, _) = once.step(lr, model, mean_loss).map_err(text)?;
        if close("", &got, &whole).is_ok() {
            return Err("both kinds of perturbation gave the same step".to_owned());
        }
    }
    Ok(())
}

/// A step that fails at any micro-batch returns the model, and so does a step without micro-batches.
pub(crate) fn refused(target: &Target) -> Result<(), String> {
    let model = Mlp::new(&target.device);
    let before = parameters(&model);
    for perturbation in [Perturbation::Whole, Perturbation::EachMicroBatch] {
        let mut optim = target.init(&config())?;
        for calls_before in 0..6 {
            let mut calls = 0;
            let loss = |model: &Mlp, batch: &u64| {
                calls += 1;
                let loss = model.loss(*batch);
                if calls > calls_before { loss.without_autodiff() } else { loss }
            };
            let step =
                optim.step_accumulated(0.1, model.clone(), perturbation, &MICRO_BATCHES, loss);
            match step {
                Err(Rejected { model, error: WsamError::NoAutodiff }) => {
                    same("the returned model", &*model, &before)?;
                }
                Err(error) => return Err(format!("{perturbation:?}: {error}")),
                Ok(_) => {
                    return Err(format!("{perturbation:?}: a loss without autodiff was accepted"));
                }
            }
        }
        let none: [u64; 0] = [];
        let step =
            optim.step_accumulated(0.1, model.clone(), perturbation, &none, |model, batch| {
                model.loss(*batch)
            });
        match step {
            Err(Rejected { error: WsamError::NoMicroBatches, .. }) => {}
            _ => {
                return Err(format!("{perturbation:?}: a step without micro-batches was accepted"));
            }
        }
    }
    Ok(())
}

/// Adds `factor * grads` to `sum`.
fn add(sum: &mut GradientsParams, model: &Mlp, grads: GradientsParams, factor: f64) {
    struct Add<'a> {
        sum: &'a mut GradientsParams,
        grads: GradientsParams,
        factor: f64,
    }
    impl ModuleVisitor for Add<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let Some(grad) = self.grads.remove::<D>(param.id) else { return };
            let grad = grad * self.factor;
            let sum = match self.sum.remove::<D>(param.id) {
                Some(sum) => sum + grad,
                None => grad,
            };
            self.sum.register(param.id, sum);
        }
    }
    burn::module::Module::visit(model, &mut Add { sum, grads, factor });
}
