//! One step over the replicas, as the optimizer's thread runs it.

use super::error::{ReplicaError, ReplicaFault, ReplicaPass};
use super::exchange::{Layout, Reads, Role, Values, assign, bytes, into_gradients, tensor_on};
use super::job::{Answers, Job, PassSettings, Passed, Work};
use super::report::ReplicaReport;
use super::worker::Computed;
use super::{Replica, Replicas, Shard};
use crate::optim::copies::perturbed_copy;
use crate::optim::error::WsamError;
use crate::optim::optimizer::ReplicaAscent;
use crate::optim::params::{Flat, StepParams};
use crate::optim::pass::{Sum, shares};
use crate::optim::statistics::RunningStatistics;
use burn::module::Module;
use burn::tensor::Device;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Instant;

type Answer = (usize, Result<Passed, WsamError>);

/// Settings of a step over replicas.
#[derive(Debug)]
pub(crate) struct RoundSettings {
    /// The optimizer's device.
    pub(crate) device: Device,
    pub(crate) loss_scale: f64,
    pub(crate) mask_seed: Option<u64>,
    /// Number of the step, for the masks.
    pub(crate) step: u64,
    pub(crate) checks_finite: bool,
}

/// A step over the replicas.
pub(crate) struct Round<'a, M, B> {
    replicas: &'a mut Replicas<M, B>,
    batches: VecDeque<B>,
    /// For each shard the place of its replica.
    places: Vec<usize>,
    shares: Vec<f64>,
    settings: RoundSettings,
    sender: Sender<Answer>,
    answers: Receiver<Answer>,
    began: Instant,
    reports: Vec<ReplicaReport>,
    /// Running statistics after the first pass of the first replica.
    statistics: Option<Values>,
}

/// Results of one pass, which are added in the order of the shards so that sums do not depend on the order of
/// arrival.
struct Collected<M> {
    pass: ReplicaPass,
    arrived: Vec<Option<Passed>>,
    added: usize,
    sum: Sum<M>,
}

impl<'a, M: Module + 'static, B: Send + 'static> Round<'a, M, B> {
    /// A step over shards, each with the place of its replica.
    pub(crate) fn new(
        replicas: &'a mut Replicas<M, B>,
        shards: Vec<(usize, Shard<B>)>,
        settings: RoundSettings,
    ) -> Result<Self, WsamError> {
        let (places, shards): (Vec<_>, Vec<_>) = shards.into_iter().unzip();
        let weights: Vec<f64> = shards.iter().map(|shard| shard.weight).collect();
        if shards.is_empty() || places.iter().any(|place| *place >= replicas.len()) {
            return Err(WsamError::Shards { replicas: replicas.len(), shards: shards.len() });
        }
        let shares = shares(shards.len(), &weights)
            .map_err(|_| WsamError::ShardWeights { shards: shards.len(), weights })?;
        let mut reports = Vec::new();
        for place in &places {
            let replica = &mut replicas.replicas[*place];
            replica.check()?;
            reports.push(ReplicaReport { name: replica.name.to_string(), ..Default::default() });
        }
        let (sender, answers) = channel();
        let batches = shards.into_iter().map(|shard| shard.batch).collect();
        let (began, statistics) = (Instant::now(), None);
        Ok(Self {
            replicas,
            batches,
            places,
            shares,
            settings,
            sender,
            answers,
            began,
            reports,
            statistics,
        })
    }

    /// The first pass of all replicas.
    pub(crate) fn first(&mut self, model: &M) -> Result<Computed, WsamError> {
        self.send_first(model, None)?;
        let [first] = self.collect(model, [ReplicaPass::First])?;
        Ok(first)
    }

    /// The second pass of all replicas at the weights of `perturbed`.
    pub(crate) fn second(&mut self, perturbed: &M) -> Result<Computed, WsamError> {
        let layout = self.replicas.layout.clone();
        let values = Arc::new(read(Reads::weights(perturbed, &layout, false))?);
        for part in 0..self.shares.len() {
            self.send(part, values.bytes(), Work::Second { values: values.clone() })?;
        }
        drop(values);
        let [second] = self.collect(perturbed, [ReplicaPass::Second])?;
        Ok(second)
    }

    /// Both passes of all replicas, each perturbed along its own gradient.
    pub(crate) fn both(
        &mut self,
        model: &M,
        ascent: ReplicaAscent,
    ) -> Result<[Computed; 2], WsamError> {
        self.send_first(model, Some(Arc::new(ascent)))?;
        self.collect(model, [ReplicaPass::First, ReplicaPass::Second])
    }

    /// Gives `model` the running statistics of the first replica.
    pub(crate) fn with_statistics(&self, model: M) -> M {
        let Some(statistics) = &self.statistics else { return model };
        // Values with another shape are skipped, so there is no error.
        let copy = model.clone();
        assign(model, &self.replicas.layout, statistics, &self.settings.device).unwrap_or(copy)
    }

    pub(crate) fn into_reports(self) -> Vec<ReplicaReport> {
        self.reports
    }

    fn send_first(
        &mut self,
        model: &M,
        ascent: Option<Arc<ReplicaAscent>>,
    ) -> Result<(), WsamError> {
        let statistics = RunningStatistics::of(model);
        let layout = Layout::of(model, &statistics);
        if layout != *self.replicas.layout {
            self.replicas.layout = Arc::new(layout);
            self.replicas.refresh();
        }
        let layout = self.replicas.layout.clone();
        let values = Arc::new(read(Reads::weights(model, &layout, true))?);
        let mut frozen = None;
        let mut replicas = self.places.iter().map(|place| &self.replicas.replicas[*place]);
        if replicas.any(|replica| !replica.has_copy) {
            frozen = Some(Arc::new(read(Reads::values(model, &layout, &[Role::Frozen]))?));
        }
        for part in 0..self.shares.len() {
            let Some(batch) = self.batches.pop_front() else { break };
            let frozen = frozen.clone().filter(|_| !self.replica(part).has_copy);
            let work = Work::First {
                // Burn shares running statistics between clones, also if one is moved to another device, so the
                // copy must have its own.
                model: frozen.map(|frozen| {
                    let none = StepParams::default().values(vec![]);
                    (perturbed_copy::<Flat, M>(model, none, false), frozen)
                }),
                layout: layout.clone(),
                values: values.clone(),
                batch,
                returns_statistics: part == 0 && !statistics.is_empty(),
                ascent: ascent.clone(),
            };
            self.send(part, values.bytes(), work)?;
        }
        Ok(())
    }

    fn send(&mut self, part: usize, bytes: u64, work: Work<M, B>) -> Result<(), WsamError> {
        let RoundSettings { loss_scale, mask_seed, step, checks_finite, .. } = self.settings;
        let share = self.shares[part];
        let settings = PassSettings { part, share, loss_scale, mask_seed, step, checks_finite };
        let answers = Answers { sender: self.sender.clone(), part, began: self.began };
        self.reports[part].bytes_sent += bytes;
        self.replica(part).send(Job { work, settings, answers })
    }

    /// Waits for the results of `passes`, and returns their weighted averages.
    fn collect<const N: usize>(
        &mut self,
        model: &M,
        passes: [ReplicaPass; N],
    ) -> Result<[Computed; N], WsamError> {
        let parts = self.shares.len();
        let mut collected = passes.map(|pass| Collected::<M>::new(pass, parts));
        let (mut missing, timeout) = (vec![N; parts], self.replicas.timeout);
        // A replica has the whole timeout for each of its answers.
        let mut since = vec![Instant::now(); parts];
        while missing.iter().any(|missing| *missing > 0) {
            let waiting = (0..parts).filter(|part| missing[*part] > 0);
            let Some(slowest) = waiting.min_by_key(|part| since[*part]) else { break };
            let left = timeout.saturating_sub(since[slowest].elapsed());
            let (part, answer) = match self.answers.recv_timeout(left) {
                Ok(answer) => answer,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    let pass = passes[N - missing[slowest]];
                    return Err(self.replica(slowest).time_out(pass, timeout));
                }
            };
            let passed = answer?;
            missing[part] -= 1;
            since[part] = Instant::now();
            self.report(part, &passed);
            for collected in &mut collected {
                if collected.pass == passed.pass {
                    let statistics = collected.add(part, passed, model, &self.settings.device);
                    self.statistics = statistics.or(self.statistics.take());
                    break;
                }
            }
        }
        (0..parts).for_each(|part| self.replica(part).has_copy = true);
        Ok(collected.map(|Collected { sum, .. }| sum.take()))
    }

    /// The replica of a shard.
    fn replica(&mut self, part: usize) -> &mut Replica<M, B> {
        &mut self.replicas.replicas[self.places[part]]
    }

    fn report(&mut self, part: usize, passed: &Passed) {
        let report = &mut self.reports[part];
        match passed.pass {
            ReplicaPass::First => {
                report.first_pass = passed.compute;
                report.first_exchange = passed.exchange;
            }
            ReplicaPass::Second => {
                report.second_pass = passed.compute;
                report.second_exchange = passed.exchange;
            }
        }
        report.bytes_received += passed.grads.bytes()
            + passed.loss.as_ref().map_or(0, bytes)
            + passed.statistics.as_ref().map_or(0, Values::bytes);
    }
}

fn read(reads: Reads) -> Result<Values, WsamError> {
    reads.wait().map_err(|reason| WsamError::Backend { reason })
}

impl<M: Module> Collected<M> {
    fn new(pass: ReplicaPass, parts: usize) -> Self {
        let arrived = (0..parts).map(|_| None).collect();
        Self { pass, arrived, added: 0, sum: Sum::default() }
    }

    /// Stores a result, and adds all results that are next in order. Returns the statistics of the result.
    fn add(
        &mut self,
        part: usize,
        mut passed: Passed,
        model: &M,
        device: &Device,
    ) -> Option<Values> {
        let statistics = passed.statistics.take();
        self.arrived[part] = Some(passed);
        while let Some(next) = self.arrived.get_mut(self.added).and_then(Option::take) {
            self.added += 1;
            let grads = into_gradients(model, &next.grads, device);
            let loss = next.loss.map(|loss| tensor_on::<1>(&loss, device));
            self.sum.add(model, grads, loss);
        }
        statistics
    }
}

impl<M, B> Replica<M, B> {
    /// Returns an error if the thread still hangs in an earlier step.
    fn check(&mut self) -> Result<(), WsamError> {
        self.timed_out &= self.unfinished.load(Ordering::Acquire) > 0;
        if !self.timed_out {
            return Ok(());
        }
        Err(ReplicaError::new(&self.name, ReplicaPass::First, ReplicaFault::Hung).into())
    }

    fn send(&mut self, job: Job<M, B>) -> Result<(), WsamError> {
        // Until all answers are there, the thread may have dropped its copy.
        self.has_copy = false;
        self.unfinished.fetch_add(1, Ordering::Release);
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        if sent {
            return Ok(());
        }
        let fault = ReplicaFault::Panicked { message: "its thread has ended".to_owned() };
        Err(ReplicaError::new(&self.name, ReplicaPass::First, fault).into())
    }

    fn time_out(&mut self, pass: ReplicaPass, timeout: std::time::Duration) -> WsamError {
        self.timed_out = true;
        ReplicaError::new(&self.name, pass, ReplicaFault::TimedOut { timeout }).into()
    }
}
