//! A replica: its copy of the model, and its passes.

use super::error::{ReplicaError, ReplicaFault, ReplicaPass};
use super::exchange::{Layout, Reads, Role, Values, assign, is_finite};
use super::job::{Answers, Job, PassSettings, Passed, Work};
use super::read::Read;
use super::report::Span;
use crate::optim::error::WsamError;
use crate::optim::optimizer::{ReplicaAscent, Wsam};
use crate::optim::seeds::Masks;
use crate::optim::statistics::{RunningStatistics, bring_up_to_date};
use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// Gradient of a model over a batch, and the loss if it is known.
pub(crate) type Computed = (GradientsParams, Option<Tensor<1>>);

/// Runs a pass of a replica over a batch.
pub(super) type RunPass<M, T> =
    dyn Fn(&M, &T, &PassSettings, ReplicaPass) -> Result<Computed, WsamError> + Send + Sync;

/// Makes the tensors of a shard on the replica's device.
pub(super) type Load<B, T> = dyn Fn(B, &Device) -> T + Send + Sync;

/// A replica, owned by its thread.
pub(super) struct Worker<M, B, T> {
    name: Arc<str>,
    device: Device,
    load: Arc<Load<B, T>>,
    run_pass: Arc<RunPass<M, T>>,
    copy: Option<(M, Arc<Layout>)>,
    batch: Option<T>,
    /// The optimizer that perturbs the copy, with the identity of the optimizer that it belongs to.
    perturbing: Option<(u64, Wsam)>,
    /// The pass that runs.
    at: ReplicaPass,
}

/// A pass whose results were requested.
struct Requested {
    pass: ReplicaPass,
    layout: Arc<Layout>,
    grads: Reads,
    loss: Option<Read>,
    statistics: Option<Reads>,
    compute: Span,
    checks_finite: bool,
}

impl<M: Module + 'static, B, T> Worker<M, B, T> {
    pub(super) fn new(
        name: Arc<str>,
        device: Device,
        load: Arc<Load<B, T>>,
        run_pass: Arc<RunPass<M, T>>,
    ) -> Self {
        let (copy, batch, perturbing, at) = (None, None, None, ReplicaPass::First);
        Self { name, device, load, run_pass, copy, batch, perturbing, at }
    }

    /// Does the work and sends its results, or the error.
    pub(super) fn answer(&mut self, job: Job<M, B>) {
        let Job { work, settings, answers } = job;
        let done = catch_unwind(AssertUnwindSafe(|| self.work(work, settings, &answers)));
        let error = match done {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(panic) => self.error(panicked(&*panic)),
        };
        // The copy may be incomplete, so the next step makes it again. Tensors of a lost device may panic when they
        // are dropped.
        let state = (self.copy.take(), self.batch.take(), self.perturbing.take());
        let _ = catch_unwind(AssertUnwindSafe(|| drop(state)));
        answers.send(Err(error));
    }

    fn error(&self, fault: ReplicaFault) -> WsamError {
        ReplicaError::new(&self.name, self.at, fault).into()
    }

    fn work(
        &mut self,
        work: Work<M, B>,
        settings: PassSettings,
        answers: &Answers,
    ) -> Result<(), WsamError> {
        match work {
            Work::First { model, layout, values, batch, returns_statistics, ascent } => {
                self.at = ReplicaPass::First;
                let start = answers.now();
                if let Some((model, frozen)) = model {
                    self.copy = Some((model, layout.clone()));
                    // In Burn 0.22.1 with fusion, threads may confuse tensors that move between them, so values
                    // move on the host.
                    self.assign(&values)?;
                    self.assign(&frozen)?;
                    let (model, layout) = self.take_copy()?;
                    self.copy = Some((model.fork(&self.device), layout));
                }
                self.assign(&values)?;
                drop(values);
                self.batch = Some((self.load)(batch, &self.device));
                let (model, layout) = self.take_copy()?;
                let (grads, mut requested) =
                    self.pass(&model, &layout, settings, start, answers)?;
                if returns_statistics {
                    bring_up_to_date(&model);
                    let statistics = Reads::values(&model, &layout, &[Role::Statistic]);
                    requested.statistics = Some(statistics);
                }
                match ascent {
                    None => {
                        drop(grads);
                        self.copy = Some((model, layout));
                        answers.send(Ok(self.finish(requested, answers)?));
                        Ok(())
                    }
                    Some(ascent) => {
                        let first = self.finish_in_background(requested, answers)?;
                        let second =
                            self.own_second(&ascent, &model, &layout, grads, settings, answers);
                        self.copy = Some((model, layout));
                        // It sends its own errors.
                        let _ = first.join();
                        answers.send(Ok(second?));
                        Ok(())
                    }
                }
            }
            Work::Second { values } => {
                self.at = ReplicaPass::Second;
                let start = answers.now();
                let (model, layout) = self.take_copy()?;
                let statistics = RunningStatistics::of(&model);
                self.copy = Some((model, layout));
                self.assign(&values)?;
                drop(values);
                let (model, layout) = self.take_copy()?;
                let (grads, requested) = self.pass(&model, &layout, settings, start, answers)?;
                drop(grads);
                // Statistics advance once a step, in the first pass.
                self.copy = Some((statistics.restore(model), layout));
                answers.send(Ok(self.finish(requested, answers)?));
                Ok(())
            }
        }
    }

    fn take_copy(&mut self) -> Result<(M, Arc<Layout>), WsamError> {
        let reason = "the replica has no copy of the model".to_owned();
        self.copy.take().ok_or_else(|| self.error(ReplicaFault::Backend { reason }))
    }

    fn assign(&mut self, values: &Values) -> Result<(), WsamError> {
        let (model, layout) = self.take_copy()?;
        let assigned = assign(model, &layout, values, &self.device);
        let model = assigned.map_err(|reason| self.error(ReplicaFault::Backend { reason }))?;
        self.copy = Some((model, layout));
        Ok(())
    }

    /// Runs a pass, which began at `start`, and requests its results.
    fn pass(
        &self,
        model: &M,
        layout: &Arc<Layout>,
        settings: PassSettings,
        start: Duration,
        answers: &Answers,
    ) -> Result<(GradientsParams, Requested), WsamError> {
        let device = self.device.clone().without_autodiff();
        let PassSettings { mask_seed, step, part, checks_finite, .. } = settings;
        Masks::new(&device, mask_seed, step).before(model, part)?;
        let Some(batch) = &self.batch else {
            let reason = "the replica has no batch".to_owned();
            return Err(self.error(ReplicaFault::Backend { reason }));
        };
        let (grads, loss) = (self.run_pass)(model, batch, &settings, self.at)?;
        let requested = Requested {
            pass: self.at,
            layout: layout.clone(),
            grads: Reads::gradients(model, layout, &grads),
            loss: loss.map(Read::request),
            statistics: None,
            compute: Span { start, end: answers.now() },
            checks_finite,
        };
        Ok((grads, requested))
    }

    /// The second pass at a perturbation along the replica's own gradient.
    fn own_second(
        &mut self,
        ascent: &ReplicaAscent,
        model: &M,
        layout: &Arc<Layout>,
        grads: GradientsParams,
        settings: PassSettings,
        answers: &Answers,
    ) -> Result<Passed, WsamError> {
        self.at = ReplicaPass::Second;
        let start = answers.now();
        let device = self.device.clone().without_autodiff();
        let (_, wsam) = match self.perturbing.take() {
            Some((identity, wsam)) if identity == ascent.identity => {
                self.perturbing.insert((identity, wsam))
            }
            _ => self.perturbing.insert((ascent.identity, ascent.optimizer(&device)?)),
        };
        let perturbed = wsam.perturb(ascent, model, grads)?;
        let (grads, requested) = self.pass(&perturbed, layout, settings, start, answers)?;
        drop((grads, perturbed));
        self.finish(requested, answers)
    }

    fn finish(&self, requested: Requested, answers: &Answers) -> Result<Passed, WsamError> {
        finish(&self.name, requested, answers)
    }

    /// Waits for the first pass's results in another thread, while this one runs the second pass.
    fn finish_in_background(
        &self,
        requested: Requested,
        answers: &Answers,
    ) -> Result<std::thread::JoinHandle<()>, WsamError> {
        let (name, answers, pass) = (self.name.clone(), answers.clone(), requested.pass);
        let finish = move || {
            let finished = catch_unwind(AssertUnwindSafe(|| finish(&name, requested, &answers)));
            answers.send(finished.unwrap_or_else(|panic| {
                Err(ReplicaError::new(&name, pass, panicked(&*panic)).into())
            }));
        };
        let thread = std::thread::Builder::new().name(format!("{} exchange", self.name));
        thread.spawn(finish).map_err(|error| {
            self.error(ReplicaFault::Backend { reason: format!("no thread: {error}") })
        })
    }
}

/// Waits for the results of a pass and checks them.
fn finish(name: &str, requested: Requested, answers: &Answers) -> Result<Passed, WsamError> {
    let Requested { pass, layout, grads, loss, statistics, compute, checks_finite } = requested;
    let fail = |fault| WsamError::from(ReplicaError::new(name, pass, fault));
    let unread = |reason| fail(ReplicaFault::Backend { reason });
    let start = answers.now();
    let loss = loss.map(Read::wait).transpose().map_err(unread)?;
    let grads = grads.wait().map_err(unread)?;
    let statistics = statistics.map(Reads::wait).transpose().map_err(unread)?;
    let exchange = Span { start, end: answers.now() };
    if checks_finite {
        let tensor = match &loss {
            Some(loss) if !is_finite(loss) => Some("the loss".to_owned()),
            _ => {
                let place = grads.not_finite();
                place.map(|place| format!("the gradient of {}", layout.path(place)))
            }
        };
        if let Some(tensor) = tensor {
            return Err(fail(ReplicaFault::NotFinite { tensor }));
        }
    }
    Ok(Passed { pass, grads, loss, statistics, compute, exchange })
}

fn panicked(panic: &(dyn Any + Send)) -> ReplicaFault {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    let message = text.or_else(|| panic.downcast_ref::<String>().cloned());
    ReplicaFault::Panicked { message: message.unwrap_or_else(|| "unknown".to_owned()) }
}
