//! Replicas that fail at some point of a step.

use super::Target;
use super::local::{SCOPES, replicas, shards};
use super::nets::{Mlp, config, parameters, same, text};
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use burn_wsam::{
    AdamWBaseConfig, LossScaleConfig, Perturbation, Rejected, ReplicaFault, ReplicaPass, Replicas,
    Shard, Wsam, WsamConfig, WsamError,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A batch of the second replica that fails in the first or second pass.
const FAILS: u64 = 1000;

/// Checks that the step was refused with the right error, and that the model is unchanged.
fn refused<T, M: Module>(
    what: &str,
    got: Result<T, Rejected<M>>,
    before: &[(String, Vec<f32>)],
    right: impl Fn(&WsamError) -> bool,
) -> Result<M, String> {
    match got {
        Ok(_) => Err(format!("{what} was accepted")),
        Err(Rejected { model, error }) if right(&error) => {
            same(what, &*model, before)?;
            Ok(*model)
        }
        Err(rejected) => Err(format!("{what}: {rejected:?}")),
    }
}

pub(crate) fn misuse(target: &Target) -> Result<(), String> {
    let mut optim = target.init(&config())?;
    let mut replicas = replicas(&vec![target.device.clone(); 2], |model: &Mlp, b| model.loss(b))?;
    match replicas.add("replica 1", &target.device) {
        Err(WsamError::ReplicaName { name }) if name == "replica 1" => (),
        other => return Err(format!("a second replica of one name: {other:?}")),
    }
    if replicas.remove("replica 7") || replicas.len() != 2 || replicas.is_empty() {
        return Err("an unknown replica was removed".to_owned());
    }
    let mut model = Mlp::new(&target.device);
    let before = parameters(&model);
    for scope in SCOPES {
        for batches in [&[][..], &[1, 2, 3]] {
            let stepped =
                optim.step_data_parallel(0.1, model, scope, &mut replicas, shards(batches));
            model = refused(
                "a number of shards",
                stepped,
                &before,
                |error| matches!(error, WsamError::Shards { replicas: 2, shards } if *shards == batches.len()),
            )?;
        }
        for weight in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let shards = vec![Shard::new(1, 1.0), Shard::new(2, weight)];
            let stepped = optim.step_data_parallel(0.1, model, scope, &mut replicas, shards);
            model = refused("a weight", stepped, &before, |error| {
                matches!(error, WsamError::ShardWeights { shards: 2, .. })
            })?;
        }
        let stepped = optim.step_data_parallel(f64::NAN, model, scope, &mut replicas, shards(&[1]));
        model = refused("a rate", stepped, &before, |error| {
            matches!(error, WsamError::Hyperparameter(_))
        })?;
    }
    let mut unreduced = Replicas::new(
        |batch: u64, _: &Device| batch,
        |model: &Mlp, _| model.a.weight.val().reshape([95]),
    );
    unreduced.add("one", &target.device).map_err(text)?;
    let stepped =
        optim.step_data_parallel(0.1, model, Perturbation::Whole, &mut unreduced, shards(&[1]));
    refused(
        "an unreduced loss",
        stepped,
        &before,
        |error| matches!(error, WsamError::LossShape { shape } if shape == &[95]),
    )?;
    Ok(())
}

/// Runs steps of which some fail, next to the same steps without failures. `fail` acts in a pass of the second
/// replica, and `right` checks the error.
fn failing(
    target: &Target,
    timeout: Duration,
    fail: impl Fn(Tensor<1>) -> Tensor<1> + Send + Sync + 'static,
    right: impl Fn(&WsamError, ReplicaPass) -> bool,
    hangs: bool,
) -> Result<(), String> {
    let fail = Arc::new(fail);
    for (scope, pass) in
        SCOPES.into_iter().flat_map(|s| [(s, ReplicaPass::First), (s, ReplicaPass::Second)])
    {
        let what = format!("{scope:?}, {pass:?}");
        let config = WsamConfig::new(AdamWBaseConfig::new().into());
        let (mut optim, mut twin) = (target.init(&config)?, target.init(&config)?);
        let passes = Arc::new(AtomicU64::new(0));
        let failing_pass = if pass == ReplicaPass::First { 0 } else { 1 };
        let loss = {
            let (fail, passes) = (fail.clone(), passes.clone());
            move |model: &Mlp, batch: u64| {
                let loss = model.exact(batch % FAILS);
                if batch >= FAILS && passes.fetch_add(1, Ordering::SeqCst) == failing_pass {
                    return fail(loss);
                }
                loss
            }
        };
        let mut replicas = replicas(&vec![target.device.clone(); 3], loss)?;
        let mut model = Mlp::new(&target.device);
        let mut want = model.clone();
        let both =
            |model: Mlp, want: Mlp, optim: &mut Wsam, twin: &mut Wsam, replicas: &mut _, at| {
                let batches = [at, at + 1];
                let stepped =
                    optim.step_data_parallel(0.01, model, scope, replicas, shards(&batches));
                let model: Mlp = stepped.map_err(text)?.0;
                let stepped =
                    twin.step_accumulated(0.01, want, scope, &batches, |model, b| model.exact(*b));
                let want: Mlp = stepped.map_err(text)?.0;
                same(&format!("{what}, batches {batches:?}"), &model, &parameters(&want))?;
                Ok::<_, String>((model, want))
            };
        (model, want) = both(model, want, &mut optim, &mut twin, &mut replicas, 0)?;
        replicas = replicas.with_timeout(timeout);
        let before = parameters(&model);
        let began = Instant::now();
        let stepped =
            optim.step_data_parallel(0.01, model, scope, &mut replicas, shards(&[3, FAILS]));
        model = refused(&what, stepped, &before, |error| right(error, pass))?;
        if began.elapsed() > timeout + Duration::from_secs(20) {
            return Err(format!("{what}: it took {:?}", began.elapsed()));
        }
        if hangs {
            let stepped =
                optim.step_data_parallel(0.01, model, scope, &mut replicas, shards(&[3, 4]));
            model = refused(&what, stepped, &before, |error| {
                matches!(error, WsamError::Replica(error)
                    if error.fault == ReplicaFault::Hung && error.replica == "replica 1")
            })?;
            if !replicas.remove("replica 1") {
                return Err("replica 1 was not removed".to_owned());
            }
        }
        replicas = replicas.with_timeout(Duration::from_secs(60));
        // The next step runs as if nothing had happened, in the same replicas or in those left.
        (model, want) = both(model, want, &mut optim, &mut twin, &mut replicas, 5)?;
        // A replica may join again.
        replicas.remove("replica 1");
        replicas.remove("replica 2");
        replicas.add("replica 1", &target.device).map_err(text)?;
        both(model, want, &mut optim, &mut twin, &mut replicas, 7)?;
    }
    Ok(())
}

/// Whether the error names the replica and the pass.
fn is_fault(error: &WsamError, pass: ReplicaPass, fault: impl Fn(&ReplicaFault) -> bool) -> bool {
    let text = error.to_string();
    matches!(error, WsamError::Replica(error)
        if error.replica == "replica 1" && error.pass == pass && fault(&error.fault))
        && text.contains("replica 1")
        && text.contains(&pass.to_string())
}

pub(crate) fn panics(target: &Target) -> Result<(), String> {
    let fail = |_| panic!("a panic of the test");
    failing(
        target,
        Duration::from_secs(60),
        fail,
        |error, pass| {
            is_fault(
                error,
                pass,
                |fault| matches!(fault, ReplicaFault::Panicked { message } if message == "a panic of the test"),
            )
        },
        false,
    )
}

pub(crate) fn hangs(target: &Target) -> Result<(), String> {
    let hang = |loss| {
        std::thread::sleep(Duration::from_secs(6));
        loss
    };
    let timeout = Duration::from_secs(2);
    failing(
        target,
        timeout,
        hang,
        |error, pass| is_fault(error, pass, |fault| *fault == ReplicaFault::TimedOut { timeout }),
        true,
    )
}

pub(crate) fn not_finite(target: &Target) -> Result<(), String> {
    failing(
        target,
        Duration::from_secs(60),
        |loss| {
            // Shader compilers may assume that constants are finite.
            let infinity = Tensor::from_data([f32::INFINITY], &loss.device());
            loss * infinity
        },
        |error, pass| {
            is_fault(
                error,
                pass,
                |fault| matches!(fault, ReplicaFault::NotFinite { tensor } if tensor == "the loss"),
            )
        },
        false,
    )?;
    // A finite loss, and gradients that are not.
    failing(
        target,
        Duration::from_secs(60),
        |loss| {
            let zero = loss.clone() - loss.clone().detach();
            loss + zero * 1e30 * 1e30
        },
        |error, pass| {
            is_fault(error, pass, |fault| {
                matches!(fault, ReplicaFault::NotFinite { tensor }
                    if tensor == "the gradient of a.weight")
            })
        },
        false,
    )
}

/// With scaled losses an overflow skips the step and lowers the scale, as without replicas.
pub(crate) fn overflow(target: &Target) -> Result<(), String> {
    for scope in SCOPES {
        let scale = LossScaleConfig::new().with_initial(1e36);
        let mut optim = target.init(&config().with_loss_scale(Some(scale)))?;
        let loss = |model: &Mlp, batch| model.loss(batch) * 1e4;
        let mut replicas = replicas(&vec![target.device.clone(); 2], loss)?;
        let model = Mlp::new(&target.device);
        let before = parameters(&model);
        let stepped = optim.step_data_parallel(0.1, model, scope, &mut replicas, shards(&[1, 2]));
        let (model, _) = stepped.map_err(text)?;
        same("a skipped step", &model, &before)?;
        let skipped = optim.skipped_steps().map_err(text)?;
        if skipped != 1 {
            return Err(format!("{skipped} skipped steps"));
        }
    }
    Ok(())
}
