//! Records of the optimizer's state.

use super::Target;
use super::nets::{Mlp, close, grads, parameters, same, text};
use burn::module::{Module, Param};
use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdamConfig, AdamWConfig, ModuleOptimizer, OptimizerRecord, SgdConfig};
use burn::tensor::{Bytes, Device, Tensor};
use burn_wsam::{
    AdamBaseConfig, AdamWBaseConfig, BaseConfig, OptimizerState, RoutePolicy, SgdBaseConfig, Wsam,
    WsamConfig, WsamError,
};

fn momentum() -> SgdBaseConfig {
    SgdBaseConfig::new().with_momentum(Some(MomentumConfig::new()))
}

/// Base optimizers of every kind, with every number of state tensors.
fn bases() -> Vec<BaseConfig> {
    vec![
        SgdBaseConfig::new().into(),
        momentum().into(),
        AdamBaseConfig::new().into(),
        AdamWBaseConfig::new().into(),
        AdamWBaseConfig::new().with_amsgrad(true).into(),
    ]
}

fn train(optim: &mut Wsam, mut model: Mlp, batches: std::ops::Range<u64>) -> Result<Mlp, String> {
    for batch in batches {
        (model, _) = optim.step(0.01, model, |model| model.exact(batch)).map_err(text)?;
    }
    Ok(model)
}

fn states(optim: &Wsam, model: &Mlp) -> Result<Vec<OptimizerState>, String> {
    let ids = [
        Some(model.a.weight.id),
        model.a.bias.as_ref().map(|bias| bias.id),
        Some(model.b.weight.id),
        model.b.bias.as_ref().map(|bias| bias.id),
    ];
    let state = |id| optim.state(id).map_err(text)?.ok_or_else(|| "no state".to_owned());
    ids.into_iter().flatten().map(state).collect()
}

/// A run resumed from records of model and optimizer equals the run without a stop, bit for bit.
pub(crate) fn resume(target: &Target) -> Result<(), String> {
    for base in bases() {
        for lean in [false, true] {
            let config = WsamConfig::new(base.clone()).with_lean(lean).with_max_norm(Some(0.5));
            let mut optim = target.init(&config)?;
            let model = train(&mut optim, Mlp::new(&target.device), 0..3)?;
            let (weights, state) =
                (model.clone().into_record().into_bytes().map_err(text)?, optim.to_bytes(&model));
            let whole = train(&mut optim, model, 3..6)?;
            #[cfg(feature = "fused-wsam")]
            let of_whole = optim.last_step_stats().map(|stats| stats.dispatches);

            let fresh = Mlp::new(&target.device);
            let weights = burn::store::ModuleRecord::from_bytes(weights).map_err(text)?;
            let model = fresh.load_record(weights);
            let mut optim = target.init(&config)?;
            optim.load_bytes(&model, state.map_err(text)?).map_err(text)?;
            let resumed = train(&mut optim, model, 3..6)?;
            same(&format!("{base:?}"), &resumed, &parameters(&whole))?;
            // The loaded states are in one arena.
            #[cfg(feature = "fused-wsam")]
            if let Some(stats) = optim.last_step_stats()
                // Each of the two norms takes one dispatch on Vulkan, and two elsewhere.
                && (of_whole != Some(stats.dispatches) || ![4, 6].contains(&stats.dispatches))
            {
                return Err(format!("{} dispatches in a clipped step", stats.dispatches));
            }
        }
    }
    Ok(())
}

/// Records keep all state bits through a file and from one route to the other. They contain no other tensors.
pub(crate) fn files_and_routes(target: &Target) -> Result<(), String> {
    // The thread id makes the folder unique, because a thread runs one test at a time.
    let own = (std::process::id(), std::thread::current().id());
    let folder = std::env::temp_dir().join(format!("burn-wsam-{own:?}"));
    std::fs::create_dir_all(&folder).map_err(text)?;
    for (number, base) in bases().into_iter().enumerate() {
        let config = WsamConfig::new(base);
        let mut optim = target.init(&config)?;
        let model = train(&mut optim, Mlp::new(&target.device), 0..2)?;
        let want = states(&optim, &model)?;
        let tensors: usize = want.iter().map(|state| state.tensors.len()).sum();
        let record = optim.to_record(&model).map_err(text)?;
        if record.len() != tensors {
            return Err(format!("{} tensors in a record of {tensors} states", record.len()));
        }
        let file = folder.join(format!("{number}.bpk"));
        optim.save(&model, &file).map_err(text)?;
        for policy in [target.policy, RoutePolicy::TensorOps] {
            let there = Target { policy, ..target.clone() };
            let mut other = there.init(&config)?;
            other.load(&model, &file).map_err(text)?;
            // The record of the other route loads in this one.
            let mut back = target.init(&config)?;
            back.load_record(&model, other.to_record(&model).map_err(text)?).map_err(text)?;
            if states(&other, &model)? != want || states(&back, &model)? != want {
                return Err(format!("the states changed between the routes, {policy:?}"));
            }
        }
    }
    std::fs::remove_dir_all(&folder).map_err(text)
}

/// A run continues from Burn's own optimizer to WSAM and back. At `gamma = 0` the two are the same optimizer, so
/// the result equals a run with Burn's optimizer alone.
pub(crate) fn takeover(target: &Target) -> Result<(), String> {
    let kinds: [(BaseConfig, fn() -> ModuleOptimizer); 3] = [
        (momentum().into(), || SgdConfig::new().with_momentum(Some(MomentumConfig::new())).init()),
        (AdamBaseConfig::new().into(), || AdamConfig::new().init()),
        (AdamWBaseConfig::new().into(), || AdamWConfig::new().init()),
    ];
    for (base, burn) in kinds {
        let config = WsamConfig::new(base.clone()).with_gamma(0.0);
        let by_burn =
            |optim: &mut ModuleOptimizer, mut model: Mlp, batches: std::ops::Range<u64>| {
                for batch in batches {
                    let grads = grads(&model.exact(batch), &model);
                    model = optim.step(0.01, model, grads);
                }
                model
            };
        let mut theirs = burn();
        let model = by_burn(&mut theirs, Mlp::new(&target.device), 0..3);
        let mut ours = target.init(&config)?;
        ours.load_record(&model, theirs.to_record()).map_err(text)?;
        let model = train(&mut ours, model, 3..6)?;
        let mut theirs = burn().load_record(ours.to_record(&model).map_err(text)?);
        let model = by_burn(&mut theirs, model, 6..9);

        let alone = by_burn(&mut burn(), Mlp::new(&target.device), 0..9);
        close(&format!("{base:?}"), &model, &alone)?;
    }
    Ok(())
}

/// A mismatched record is refused with the found and the expected values named, and nothing changes.
pub(crate) fn mismatched(target: &Target) -> Result<(), String> {
    let adamw = WsamConfig::new(AdamWBaseConfig::new().into());
    let mut optim = target.init(&adamw)?;
    let model = train(&mut optim, Mlp::new(&target.device), 0..2)?;
    let before = states(&optim, &model)?;
    let mut refused = |what: &str, record: OptimizerRecord, right: fn(&WsamError) -> bool| {
        match optim.load_record(&model, record) {
            Err(error) if right(&error) => {}
            other => return Err(format!("{what}: {other:?}")),
        }
        let kept = states(&optim, &model)? == before;
        if kept { Ok(()) } else { Err(format!("{what} changed the states")) }
    };

    let mut foreign = target.init(&adamw)?;
    let other_model = train(&mut foreign, Mlp::new(&target.device), 0..1)?;
    let record = foreign.to_record(&other_model).map_err(text)?;
    refused(
        "another model's record",
        record,
        |error| matches!(error, WsamError::ForeignRecord { param } if param.contains("weight") || param.contains("bias")),
    )?;

    let mut sgd = target.init(&WsamConfig::new(momentum().into()))?;
    let stepped = train(&mut sgd, model.clone(), 0..1)?;
    let record = sgd.to_record(&stepped).map_err(text)?;
    refused("another optimizer's record", record, |error| {
        matches!(
            error,
            WsamError::RecordState { param, found, expected, base: "AdamW" }
                if param == "a.weight" && found.len() == 1 && expected.len() == 2
        )
    })?;

    let mut wide = target.init(&adamw)?;
    let mut wider = Mlp::new(&target.device);
    wider.a.weight = wider.a.weight.map(|_| zeros([5, 19 * 2], &target.device));
    wider.a.bias = wider.a.bias.map(|bias| bias.map(|_| zeros([19 * 2], &target.device)));
    wider.b.weight = wider.b.weight.map(|_| zeros([19 * 2, 3], &target.device));
    let mut wider = with_ids_of(wider, &model);
    wider = train(&mut wide, wider, 0..1)?;
    let record = wide.to_record(&wider).map_err(text)?;
    refused("a record of other shapes", record, |error| {
        matches!(
            error,
            WsamError::RecordShape { param, weight, record }
                if param == "a.weight" && *weight == [5, 19] && *record == [5, 38]
        )
    })?;

    let whole = optim.to_bytes(&model).map_err(text)?;
    for (what, bytes) in [
        ("no bytes", Vec::new()),
        ("odd bytes", b"wsam".repeat(99)),
        ("half a record", whole[..whole.len() / 2].to_vec()),
    ] {
        let refused = optim.load_bytes(&model, Bytes::from_bytes_vec(bytes));
        if !matches!(refused, Err(WsamError::Record { .. })) || states(&optim, &model)? != before {
            return Err(format!("{what}: {refused:?}"));
        }
    }
    // A record with one damaged byte is refused without a change, or it is still a valid record.
    for at in (0..whole.len()).step_by(23) {
        let mut damaged = whole.to_vec();
        damaged[at] ^= 0x55;
        if optim.load_bytes(&model, Bytes::from_bytes_vec(damaged)).is_ok() {
            optim.load_bytes(&model, whole.clone()).map_err(text)?;
        }
        if states(&optim, &model)? != before {
            return Err(format!("a damaged byte {at} changed the states"));
        }
    }
    match optim.load(&model, "/nonexistent/record.bpk") {
        Err(WsamError::Record { .. }) => Ok(()),
        other => Err(format!("a missing file: {other:?}")),
    }
}

/// Parameters without a state in the record start with a new state.
pub(crate) fn partial(target: &Target) -> Result<(), String> {
    let config = WsamConfig::new(AdamWBaseConfig::new().into());
    let mut half = target.init(&config)?;
    // Only the first layer is stepped.
    let start = Mlp::new(&target.device);
    let mut stepped = start.clone();
    for batch in 0..2 {
        let mut grads = grads(&stepped.exact(batch), &stepped);
        grads.remove::<2>(stepped.b.weight.id);
        stepped.b.bias.iter().for_each(|bias| drop(grads.remove::<1>(bias.id)));
        stepped = half.base_step(0.01, stepped, grads).map_err(text)?;
    }
    let record = half.to_record(&stepped).map_err(text)?;

    let mut optim = target.init(&config)?;
    let _ = train(&mut optim, start.clone(), 0..1)?;
    optim.load_record(&start, record).map_err(text)?;
    if optim.state(start.b.weight.id).map_err(text)?.is_some() {
        return Err("a state remains that the record does not have".to_owned());
    }
    let _ = train(&mut optim, start.clone(), 0..1)?;
    let steps: Vec<_> = states(&optim, &start)?.iter().map(|state| state.step).collect();
    if steps == [3, 3, 1, 1] { Ok(()) } else { Err(format!("{steps:?} steps for [3, 3, 1, 1]")) }
}

fn zeros<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::<D>::zeros(shape, device).require_grad()
}

/// `model` with the parameter ids of `other`.
fn with_ids_of(mut model: Mlp, other: &Mlp) -> Mlp {
    fn with_id<const D: usize>(
        param: Param<Tensor<D>>,
        other: &Param<Tensor<D>>,
    ) -> Param<Tensor<D>> {
        let (_, tensor, mapper) = param.consume();
        Param::from_mapped_value(other.id, tensor, mapper)
    }
    model.a.weight = with_id(model.a.weight, &other.a.weight);
    model.a.bias =
        model.a.bias.zip(other.a.bias.as_ref()).map(|(mine, other)| with_id(mine, other));
    model.b.weight = with_id(model.b.weight, &other.b.weight);
    model.b.bias =
        model.b.bias.zip(other.b.bias.as_ref()).map(|(mine, other)| with_id(mine, other));
    model
}
