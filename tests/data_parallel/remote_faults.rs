//! Workers that are killed or stopped at some point of a step.
//!
//! `WSAM_FAULTS` sets how often a worker is lost at a random time, in each of the two ways: 2 by default, and 30 for
//! the long form.

use super::local::{SCOPES, replicas, shards};
use super::nets::{Mlp, parameters, same, text};
use super::target;
use super::workers::{Process, signal};
use burn::tensor::Device;
use burn_wsam::{AdamWBaseConfig, Perturbation, Rejected, Replicas, WsamConfig, WsamError};
use burn_wsam_support::digits::data::Shuffle;
use libtest_mimic::Trial;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// When a worker gets its signal.
#[derive(Clone, Copy, Debug)]
enum Point {
    /// Before the operations of the first pass.
    FirstPass,
    /// After those of the first pass, with a delay.
    Exchange,
    /// Before the operations of the second pass.
    SecondPass,
    /// Some time after the beginning of the step.
    After(Duration),
}

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for point in [Point::FirstPass, Point::Exchange, Point::SecondPass] {
        for name in ["KILL", "STOP"] {
            let test = move || {
                let mut workers = Workers::start()?;
                for scope in SCOPES {
                    lose(&mut workers, scope, point, name, true)?;
                }
                Ok(())
            };
            trials.push(Trial::test(format!("a worker gets {name} [{point:?}]"), test));
        }
    }
    trials.push(Trial::test("workers are lost at random times", || Ok(random()?)));
    trials
}

/// How often a worker is lost at a random time.
fn faults() -> u64 {
    let Some(asked) = std::env::var_os("WSAM_FAULTS") else { return 2 };
    let number = asked.to_str().and_then(|text| text.parse().ok());
    number.unwrap_or_else(|| panic!("WSAM_FAULTS is {asked:?}, not a number"))
}

fn random() -> Result<(), String> {
    let mut shuffle = Shuffle::new(1);
    let mut workers = Workers::start()?;
    for at in 0..faults() {
        for name in ["KILL", "STOP"] {
            let scope = SCOPES[(at % 2) as usize];
            let after = Duration::from_micros(shuffle.below(60_000));
            lose(&mut workers, scope, Point::After(after), name, false)
                .map_err(|error| format!("{name} after {after:?}: {error}"))?;
        }
    }
    Ok(())
}

/// Two workers, which are used for several faults: Burn keeps two threads for each session that a process has
/// opened.
struct Workers {
    _stays: Process,
    lost: Process,
    devices: [Device; 2],
}

impl Workers {
    fn start() -> Result<Self, String> {
        let (_stays, lost) = (Process::start()?, Process::start()?);
        let devices = [_stays.device()?, lost.device()?];
        Ok(Self { _stays, lost, devices })
    }

    /// Kills the second worker and starts it again at the same address.
    fn start_again(&mut self) -> Result<(), String> {
        signal(self.lost.id(), "KILL");
        let mut tries = 0;
        self.lost = loop {
            match self.lost.again() {
                Ok(again) => break again,
                Err(error) if tries == 20 => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
            tries += 1;
        };
        self.devices[1] = self.lost.device()?;
        Ok(())
    }
}

/// Steps of a network of two layers on two workers, of which the second is lost in one step.
///
/// The step returns an error that names it (if `must_fail`, otherwise the signal may come too late), the model is as
/// before, and training goes on: first without the worker, then with it in a new process at the same address.
fn lose(
    workers: &mut Workers,
    scope: Perturbation,
    point: Point,
    name: &'static str,
    must_fail: bool,
) -> Result<(), String> {
    let target = target::flex();
    let config = WsamConfig::new(AdamWBaseConfig::new().into());
    let (mut optim, mut twin) = (target.init(&config)?, target.init(&config)?);
    let lost = workers.lost.id();
    let victim = Arc::new(AtomicU32::new(0));
    // Pass of the second replica; negative while nothing happens.
    let pass = Arc::new(AtomicI64::new(i64::MIN));
    let loss = {
        let (victim, pass) = (victim.clone(), pass.clone());
        move |model: &Mlp, batch: u64| {
            let is_second = batch % 2 == 1;
            let now = if is_second { pass.fetch_add(1, Ordering::SeqCst) } else { -1 };
            let worker = victim.load(Ordering::SeqCst);
            if matches!((point, now), (Point::FirstPass, 0) | (Point::SecondPass, 1)) {
                signal(worker, name);
            }
            let loss = model.loss(batch);
            if matches!((point, now), (Point::Exchange, 0)) {
                signal(worker, name);
            }
            loss
        }
    };
    let mut replicas = replicas(&workers.devices, loss)?.with_timeout(Duration::from_secs(20));
    let mut model = Mlp::new(&target.device);
    let mut want = model.clone();
    let mut step = |model: Mlp, want: Mlp, batches: &[u64], replicas: &mut Replicas<Mlp, u64>| {
        let stepped = optim.step_data_parallel(0.01, model, scope, replicas, shards(batches));
        let model = match stepped {
            Ok((model, _)) => model,
            Err(Rejected { model, error }) => return Ok((*model, want, Some(error))),
        };
        let stepped = twin.step_accumulated(0.01, want, scope, batches, |model, b| model.loss(*b));
        let want = stepped.map_err(text)?.0;
        same(&format!("{scope:?}, {point:?}, {batches:?}"), &model, &parameters(&want))?;
        Ok::<_, String>((model, want, None))
    };
    let went_on = |error: Option<WsamError>| error.map_or(Ok(()), |error| Err(text(error)));
    for at in 0..2 {
        let error;
        (model, want, error) = step(model, want, &[2 * at, 2 * at + 1], &mut replicas)?;
        went_on(error)?;
    }

    let before = parameters(&model);
    victim.store(lost, Ordering::SeqCst);
    pass.store(0, Ordering::SeqCst);
    let timeout = Duration::from_secs(if name == "STOP" { 2 } else { 20 });
    replicas = replicas.with_timeout(timeout);
    let timer = match point {
        Point::After(delay) => Some(std::thread::spawn(move || {
            std::thread::sleep(delay);
            signal(lost, name);
        })),
        _ => None,
    };
    let began = Instant::now();
    let mut fault = None;
    // A signal at a random time comes in one of these steps, and the last one fails at the latest.
    for at in 0..50 {
        let error;
        (model, want, error) = step(model, want, &[10 + 2 * at, 11 + 2 * at], &mut replicas)?;
        if error.is_some() {
            fault = error;
            break;
        }
        if must_fail {
            return Err("a step without a worker succeeded".to_owned());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    if let Some(timer) = timer {
        timer.join().map_err(|_| "the signal was not sent")?;
    }
    let took = began.elapsed();
    match &fault {
        Some(WsamError::Replica(error)) if error.replica == "replica 1" => {
            println!("{scope:?}, {point:?}, {name}: after {took:.2?}: {error}");
        }
        other => return Err(format!("{scope:?}, {point:?}, {name}: {other:?}")),
    }
    if must_fail {
        same("the model", &model, &before)?;
    }
    same("the model", &model, &parameters(&want))?;
    if took > timeout + Duration::from_secs(30) {
        return Err(format!("the fault was noticed after {took:?}"));
    }

    // Without the worker.
    pass.store(i64::MIN, Ordering::SeqCst);
    replicas = replicas.with_timeout(Duration::from_secs(20));
    if !replicas.remove("replica 1") {
        return Err("replica 1 was not removed".to_owned());
    }
    let error;
    (model, want, error) = step(model, want, &[200], &mut replicas)?;
    went_on(error)?;

    // The worker comes back at the same address.
    workers.start_again()?;
    replicas.add("replica 1", &workers.devices[1]).map_err(text)?;
    let (_, _, error) = step(model, want, &[202, 203], &mut replicas)?;
    went_on(error)
}
