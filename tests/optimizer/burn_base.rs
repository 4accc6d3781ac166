//! A Burn optimizer as the base.

use super::Target;
use super::misuse::refused;
use super::nets::{Mlp, close, grads, parameters, same, text};
use burn::module::ParamGroup;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdamWConfig, LambConfig, LionConfig, ModuleOptimizer, MuonConfig, SgdConfig};
use burn_wsam::{
    AdamWBaseConfig, BaseConfig, GroupConfig, RoutePolicy, SgdBaseConfig, Wsam, WsamConfig,
    WsamError,
};

fn with_base(config: &WsamConfig, base: BaseConfig) -> WsamConfig {
    config.clone().with_base(base)
}

/// Settings of the method that change the gradient which a base optimizer receives.
fn variants() -> Vec<WsamConfig> {
    let config = || WsamConfig::new(BaseConfig::Burn).with_rho(0.1).with_gamma(0.7);
    vec![
        config(),
        config().with_max_norm(Some(0.2)),
        config().with_max_norm(Some(0.2)).with_clip_perturbed_only(true).with_track_norms(true),
        config().with_decouple(false),
        config().with_decouple(false).with_max_norm(Some(0.2)).with_adaptive(true),
    ]
}

/// A Burn optimizer as the base steps like the built-in base optimizer of the same kind.
pub(crate) fn as_built_in(target: &Target) -> Result<(), String> {
    let momentum = || Some(MomentumConfig::new());
    let pairs: [(BaseConfig, ModuleOptimizer); 2] = [
        (AdamWBaseConfig::new().into(), AdamWConfig::new().init()),
        (
            SgdBaseConfig::new().with_momentum(momentum()).into(),
            SgdConfig::new().with_momentum(momentum()).init(),
        ),
    ];
    for (built_in, burn) in pairs {
        for config in variants() {
            let mut optim = target.with_burn_base(&config, burn.clone())?;
            let mut want_optim = target.init(&with_base(&config, built_in.clone()))?;
            let mut model = Mlp::new(&target.device);
            let mut want = model.clone();
            for batch in 0..4 {
                let what = format!("{config}, step {batch}");
                if batch == 2 {
                    let alone = grads(&model.loss(batch), &model);
                    model = optim.base_step(0.01, model, alone).map_err(text)?;
                    let alone = grads(&want.loss(batch), &want);
                    want = want_optim.base_step(0.01, want, alone).map_err(text)?;
                } else {
                    let report;
                    (model, report) =
                        optim.step(0.01, model, |model| model.loss(batch)).map_err(text)?;
                    let want_report;
                    (want, want_report) =
                        want_optim.step(0.01, want, |model| model.loss(batch)).map_err(text)?;
                    for (got, want) in [
                        (report.gradient_norm(), want_report.gradient_norm()),
                        (report.perturbed_gradient_norm(), want_report.perturbed_gradient_norm()),
                    ] {
                        let (got, want) = (got.map_err(text)?, want.map_err(text)?);
                        let right = match (got, want) {
                            (Some(got), Some(want)) => (got - want).abs() <= 1e-5 * want,
                            (got, want) => got.is_none() && want.is_none(),
                        };
                        if !right {
                            return Err(format!("{what}: a norm is {got:?}, expected {want:?}"));
                        }
                    }
                }
                close(&what, &model, &want)?;
            }
        }
    }
    Ok(())
}

/// At gamma 0 a Burn optimizer as the base steps as it does without WSAM. At gamma 0.8 the loss falls.
pub(crate) fn others(target: &Target) -> Result<(), String> {
    // Muon supports only matrices, so AdamW takes the biases.
    let muon: ModuleOptimizer = AdamWConfig::new().init();
    let muon =
        muon.with_group(ParamGroup::from_predicate("weight"), MuonConfig::new().build(), None);
    let optimizers: [(&str, ModuleOptimizer, f64); 3] = [
        ("Lion", LionConfig::new().init(), 1e-3),
        ("LAMB", LambConfig::new().init(), 1e-2),
        ("Muon", muon, 1e-2),
    ];
    for (name, burn, lr) in optimizers {
        for decouple in [false, true] {
            let config = WsamConfig::new(BaseConfig::Burn).with_gamma(0.0).with_decouple(decouple);
            let (mut optim, mut without_wsam) =
                (target.with_burn_base(&config, burn.clone())?, burn.clone());
            let mut ours = Mlp::new(&target.device);
            let mut theirs = ours.clone();
            for batch in 0..3 {
                let first = grads(&theirs.loss(batch), &theirs);
                theirs = without_wsam.step(lr, theirs, first);
                (ours, _) = optim.step(lr, ours, |model| model.loss(batch)).map_err(text)?;
                close(&format!("{name}, {config}, step {batch}"), &ours, &theirs)?;
            }
            let config = config.with_gamma(0.8);
            let mut optim = target.with_burn_base(&config, burn.clone())?;
            let mut model = Mlp::new(&target.device);
            let loss = |model: &Mlp| model.loss(0).into_scalar::<f32>();
            let before = loss(&model);
            for _ in 0..10 {
                (model, _) = optim.step(lr, model, |model| model.loss(0)).map_err(text)?;
            }
            let falls = loss(&model) < before;
            if !falls {
                return Err(format!("{name}, {config}: loss {} after {before}", loss(&model)));
            }
        }
    }
    Ok(())
}

/// A run resumes from its record bit for bit, and Burn's optimizer loads the same record.
pub(crate) fn records(target: &Target) -> Result<(), String> {
    let config = WsamConfig::new(BaseConfig::Burn);
    let lion = || LionConfig::new().init();
    let mut optim = target.with_burn_base(&config, lion())?;
    let mut model = Mlp::new(&target.device);
    let train = |optim: &mut Wsam, mut model: Mlp| {
        for batch in 0..3 {
            (model, _) = optim.step(1e-3, model, |model| model.exact(batch)).map_err(text)?;
        }
        Ok::<_, String>(model)
    };
    model = train(&mut optim, model)?;
    let bytes = optim.to_bytes(&model).map_err(text)?;
    let record = optim.to_record(&model).map_err(text)?;
    let halfway = model.clone();
    let want = parameters(&train(&mut optim, model)?);

    let mut resumed = target.with_burn_base(&config, lion())?;
    resumed.load_bytes(&halfway, bytes.clone()).map_err(text)?;
    same("resumed", &train(&mut resumed, halfway.clone())?, &want)?;
    let burn = lion().load_record(record);
    let mut loaded_by_burn = target.with_burn_base(&config, burn)?;
    same("loaded by Burn", &train(&mut loaded_by_burn, halfway)?, &want)?;

    let other = Mlp::new(&target.device);
    match resumed.load_bytes(&other, bytes) {
        Err(WsamError::ForeignRecord { .. }) => Ok(()),
        other => Err(format!("another model's record: {other:?}")),
    }
}

pub(crate) fn misuse(target: &Target) -> Result<(), String> {
    let adamw = || AdamWConfig::new().init();
    let built_in = WsamConfig::new(AdamWBaseConfig::new().into()).with_route(RoutePolicy::Auto);
    match built_in.init_with(adamw(), &target.device) {
        Err(WsamError::BurnOptimizer { base: "AdamW", handed_in: true }) => {}
        other => return Err(format!("two base optimizers: {other:?}")),
    }
    let config = WsamConfig::new(BaseConfig::Burn);
    match config.init(&target.device) {
        Err(WsamError::BurnOptimizer { handed_in: false, .. }) => {}
        other => return Err(format!("no base optimizer: {other:?}")),
    }
    let bias = || GroupConfig::new(ParamGroup::from_predicate("bias"));
    for config in [
        config.clone().with_lean(true),
        config.clone().with_groups(vec![bias().with_lr_factor(2.0)]),
        config.clone().with_groups(vec![bias().with_weight_decay(Some(0.0))]),
    ] {
        match config.init_with(adamw(), &target.device) {
            Err(WsamError::NotWithBurnOptimizer { .. }) => {}
            other => return Err(format!("an option of the Burn optimizer itself: {other:?}")),
        }
    }
    let mut optim = target.with_burn_base(&config, adamw())?;
    let mut model = Mlp::new(&target.device);
    let before = parameters(&model);
    let first = grads(&model.loss(0), &model);
    model = refused("lean", optim.lean_ascend(0.1, model, first), &before, |error| {
        matches!(error, WsamError::NotWithBurnOptimizer { .. })
    })?;
    let step = optim.step(f64::NAN, model, |model| model.loss(0));
    refused("a rate of NaN", step, &before, |e| matches!(e, WsamError::Hyperparameter(_)))?;
    Ok(())
}
