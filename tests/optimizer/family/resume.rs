//! Runs resumed from records: the methods' states, LookSAM's place and AE-SAM's averages.

use super::{bases, methods};
use crate::Target;
use crate::nets::{Mlp, parameters, same, text};
use crate::resume::{Case, Steps, Storage};
use burn_pack::{Reader, Scalar, Writer};
use burn_wsam::{
    AeSamConfig, BaseConfig, IntervalConfig, LookSamConfig, LossScaleConfig, MethodConfig,
    NonFinitePolicy, Perturbation, WsamConfig, WsamError,
};

fn config(base: BaseConfig) -> WsamConfig {
    let scale = LossScaleConfig::new().with_initial(4.0).with_growth(3.0).with_backoff(0.3);
    let config = WsamConfig::new(base).with_rho(0.1).with_mask_seed(Some(7));
    config.with_loss_scale(Some(scale.with_interval(2)))
}

/// Resumes after whole and skipped steps, with every method and rule, bit for bit.
pub(crate) fn whole(target: &Target) -> Result<(), String> {
    use NonFinitePolicy::{BaseStep, Refuse, Skip};
    let mut cases = Vec::new();
    for (place, method) in methods().into_iter().enumerate() {
        let policy = [Skip, BaseStep, Refuse][place % 3];
        let with_base = |base| config(base).with_method(method.clone());
        cases.push((with_base(bases()[place].clone()).with_non_finite(policy), Steps::Closure));
        let clipped = with_base(bases()[3 - place].clone()).with_max_norm(Some(0.5));
        cases.push((clipped.with_track_norms(true), Steps::Closure));
        if !matches!(method, MethodConfig::MomentumSam) {
            let each = Steps::Accumulated(Perturbation::EachMicroBatch);
            cases.push((with_base(bases()[0].clone()), each));
            let burn = with_base(BaseConfig::Burn).with_non_finite(policy);
            cases.push((burn, Steps::Closure));
        }
    }
    let looksam = LookSamConfig::new().with_k(4);
    let started = config(bases()[0].clone()).with_start_step(2);
    cases.push((started.clone().with_method(looksam.into()), Steps::Closure));
    let interval = started.with_pass_rule(IntervalConfig::new(2).into());
    cases.push((interval.with_non_finite(Refuse), Steps::Closure));
    let ae_sam = AeSamConfig::new(8).with_decay(0.6).with_first_threshold(0.1);
    for policy in [Skip, BaseStep] {
        let ruled = config(bases()[1].clone()).with_pass_rule(ae_sam.clone().into());
        cases.push((ruled.with_non_finite(policy), Steps::Closure));
    }
    for (place, (config, steps)) in cases.into_iter().enumerate() {
        let storage = [Storage::File, Storage::Bytes, Storage::Record][place % 3];
        Case { target, config, steps }.check(storage)?;
    }
    Ok(())
}

/// The record of a run of `steps` steps, and its model.
fn record(target: &Target, config: &WsamConfig, steps: u64) -> Result<(Mlp, Vec<u8>), String> {
    let mut optim = target.init(config)?;
    let mut model = Mlp::new(&target.device);
    for batch in 0..steps {
        (model, _) = optim.step(0.01, model, |model| model.exact(batch)).map_err(text)?;
    }
    let bytes = optim.to_bytes(&model).map_err(text)?.to_vec();
    Ok((model, bytes))
}

/// Records of another method, or of none.
pub(crate) fn other_methods(target: &Target) -> Result<(), String> {
    let plain = config(bases()[0].clone());
    let load = |config: &WsamConfig, model: &Mlp, bytes: &[u8]| {
        let mut optim = target.init(config)?;
        let bytes = burn::tensor::Bytes::from_bytes_vec(bytes.to_vec());
        Ok::<_, String>((optim.load_bytes(model, bytes), optim))
    };
    let (model, of_wsam) = record(target, &plain, 3)?;
    for method in methods() {
        let config = plain.clone().with_method(method);
        // The method starts without a state.
        let (loaded, mut optim) = load(&config, &model, &of_wsam)?;
        loaded.map_err(text)?;
        optim.step(0.01, model.clone(), |model| model.exact(3)).map_err(text)?;
        let (model, own) = record(target, &config, 2)?;
        let has_state = !optim.hyperparameters().method.state_names().is_empty();
        let (loaded, _) = load(&plain, &model, &own)?;
        match loaded {
            Err(WsamError::RecordState { .. }) if has_state => {}
            Ok(()) if !has_state => {}
            other => return Err(format!("{config} in WSAM: {other:?}")),
        }
    }
    Ok(())
}

/// Damaged values of the schedule are refused, and nothing is loaded.
pub(crate) fn damaged(target: &Target) -> Result<(), String> {
    let rule = AeSamConfig::new(8).into();
    let config = config(bases()[0].clone()).with_pass_rule(rule);
    let (model, bytes) = record(target, &config, 3)?;
    let cases: [(&str, Option<Scalar>); 6] = [
        ("wsam.run.ae_sam_mean", Some(Scalar::from(f64::NAN))),
        ("wsam.run.ae_sam_mean", None),
        ("wsam.run.ae_sam_variance", Some(Scalar::from(-1.0))),
        ("wsam.run.ae_sam_variance", None),
        ("wsam.run.ae_sam_last_norm", Some(Scalar::from(f64::INFINITY))),
        ("wsam.run.cycle_place", Some(Scalar::from(1_u64 << 32))),
    ];
    for (name, value) in cases {
        let bytes = burn::tensor::Bytes::from_bytes_vec(bytes.clone());
        let reader = Reader::from_bytes(bytes).map_err(text)?;
        let scalars = reader.scalars().clone();
        let mut writer = Writer::new(reader.into_tensors().map_err(text)?);
        for (found, scalar) in scalars.into_iter().filter(|(found, _)| found != name) {
            writer = writer.with_scalar(&found, scalar);
        }
        if let Some(value) = value {
            writer = writer.with_scalar(name, value);
        }
        let mut optim = target.init(&config)?;
        let loaded = optim.load_bytes(&model, writer.into_bytes().map_err(text)?);
        match loaded {
            Err(WsamError::Record { reason }) if reason.contains(name) => {}
            other => return Err(format!("{name} = {value:?}: {other:?}")),
        }
        // The optimizer still steps as a new one.
        let (stepped, _) = optim.step(0.01, model.clone(), |m| m.exact(9)).map_err(text)?;
        let mut fresh = target.init(&config)?;
        let (want, _) = fresh.step(0.01, model.clone(), |m| m.exact(9)).map_err(text)?;
        same(name, &stepped, &parameters(&want))?;
    }
    Ok(())
}
