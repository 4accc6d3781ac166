//! Replicas of a model on other devices, for data-parallel steps.

pub(crate) mod error;
mod exchange;
mod job;
mod read;
mod report;
mod round;
mod worker;

pub use error::{ReplicaError, ReplicaFault, ReplicaPass};
pub(crate) use job::PassSettings;
pub use report::{DataParallelReport, ReplicaReport, Span};
pub(crate) use round::{Round, RoundSettings};
pub(crate) use worker::Computed;

use super::error::WsamError;
use super::pass::pass;
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use exchange::Layout;
use job::Job;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;
use worker::{Load, RunPass, Worker};

/// A part of a batch for one replica.
#[derive(Clone, Debug)]
pub struct Shard<B> {
    /// The data, which the replica's thread loads.
    pub batch: B,
    /// Weight of its loss in the average: the number of its samples, if the loss is a mean over them.
    pub weight: f64,
}

impl<B> Shard<B> {
    /// A shard whose loss has this weight in the average.
    pub fn new(batch: B, weight: f64) -> Self {
        Self { batch, weight }
    }
}

/// Replicas of a model, each with a thread and a copy of the model on its device, for
/// [`Wsam::step_data_parallel`](crate::Wsam::step_data_parallel).
///
/// A device may be any of Burn's: several GPUs, the CPU, the optimizer's own device, a remote worker, in any mixture.
/// Each pass runs wholly on its device, so gradients do not depend on the other replicas, and weights and gradients
/// go through the host. A replica's copy is made in its first step and is updated in later ones: each step sends
/// trainable weights and running statistics. Frozen parameters are sent once; call [`refresh`](Self::refresh) after
/// changing them. Trainable parameters that share a tensor share it on the replicas, too, if they have the same id.
///
/// If a replica times out, its thread is left behind, with its copy of the model, until Burn returns from the call
/// that hangs; Burn has no way to interrupt it.
#[derive(Debug)]
pub struct Replicas<M, B> {
    start: StartThread<M, B>,
    replicas: Vec<Replica<M, B>>,
    timeout: Duration,
    layout: Arc<Layout>,
}

/// Starts the thread of a replica with this name, on this device.
type Start<M, B> = dyn Fn(Arc<str>, Device, Inbox<M, B>) -> std::io::Result<()> + Send + Sync;

struct StartThread<M, B>(Box<Start<M, B>>);

impl<M, B> std::fmt::Debug for StartThread<M, B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StartThread")
    }
}

/// The thread's ends of a replica's channels.
struct Inbox<M, B> {
    jobs: Receiver<Job<M, B>>,
    /// Number of jobs that were sent and are not done.
    unfinished: Arc<AtomicUsize>,
    /// Closes when the thread ends.
    ended: Sender<()>,
}

struct Replica<M, B> {
    name: Arc<str>,
    jobs: Option<Sender<Job<M, B>>>,
    unfinished: Arc<AtomicUsize>,
    ended: Receiver<()>,
    /// Whether the thread has a copy of the model with the current layout.
    has_copy: bool,
    timed_out: bool,
}

impl<M, B> std::fmt::Debug for Replica<M, B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replica").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<M: Module + 'static, B: Send + 'static> Replicas<M, B> {
    /// No replicas yet. Both closures run in the threads of the replicas: `load` makes the tensors of a shard on
    /// the replica's device, once a step, and `loss` computes the loss of a model over them, once a pass.
    pub fn new<T: 'static>(
        load: impl Fn(B, &Device) -> T + Send + Sync + 'static,
        loss: impl Fn(&M, &T) -> Tensor<1> + Send + Sync + 'static,
    ) -> Self {
        Self::with_pass(load, move |model, batch, settings, _| {
            let (grads, loss) =
                pass(model, loss(model, batch), settings.loss_scale, settings.share)?;
            Ok((grads, Some(loss)))
        })
    }

    /// Replicas that compute gradients with `run_pass`.
    pub(crate) fn with_pass<T: 'static>(
        load: impl Fn(B, &Device) -> T + Send + Sync + 'static,
        run_pass: impl Fn(&M, &T, &PassSettings, ReplicaPass) -> Result<Computed, WsamError>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        let load: Arc<Load<B, T>> = Arc::new(load);
        let run_pass: Arc<RunPass<M, T>> = Arc::new(run_pass);
        let start = move |name: Arc<str>, device, inbox: Inbox<M, B>| {
            let (load, run_pass) = (load.clone(), run_pass.clone());
            let thread = std::thread::Builder::new().name(format!("replica {name}"));
            let run = move || {
                let mut worker = Worker::new(name, device, load, run_pass);
                for job in inbox.jobs {
                    worker.answer(job);
                    inbox.unfinished.fetch_sub(1, Ordering::Release);
                }
                drop((worker, inbox.ended));
            };
            thread.spawn(run).map(drop)
        };
        Self {
            start: StartThread(Box::new(start)),
            replicas: Vec::new(),
            timeout: Duration::from_secs(60),
            layout: Arc::default(),
        }
    }

    /// Sets the longest time from sending work to a replica until it answers, 60 s by default. A replica answers
    /// once in each pass. The first step takes longer than later ones: it copies the model and compiles kernels.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Adds a replica on `device`, with a thread of its own. The next step copies the model to it.
    ///
    /// # Errors
    ///
    /// [`WsamError::ReplicaName`] if there is a replica with this name, and [`WsamError::Backend`] if no thread can
    /// be started.
    pub fn add(&mut self, name: impl Into<String>, device: &Device) -> Result<(), WsamError> {
        let name: Arc<str> = name.into().into();
        if self.replicas.iter().any(|replica| replica.name == name) {
            return Err(WsamError::ReplicaName { name: name.to_string() });
        }
        let device = if device.is_autodiff() { device.clone() } else { device.clone().autodiff() };
        let (sender, jobs) = channel();
        let (end, ended) = channel();
        let unfinished = Arc::new(AtomicUsize::new(0));
        let inbox = Inbox { jobs, unfinished: unfinished.clone(), ended: end };
        let started = (self.start.0)(name.clone(), device, inbox);
        started.map_err(|error| WsamError::Backend { reason: format!("no thread: {error}") })?;
        self.replicas.push(Replica {
            name,
            jobs: Some(sender),
            unfinished,
            ended,
            has_copy: false,
            timed_out: false,
        });
        Ok(())
    }
}

impl<M, B> Replicas<M, B> {
    /// Removes a replica, with its copy of the model. Returns whether there was one with this name.
    pub fn remove(&mut self, name: &str) -> bool {
        let place = self.replicas.iter().position(|replica| &*replica.name == name);
        place.map(|place| self.replicas.remove(place)).is_some()
    }

    /// Copies the whole model to each replica again in the next step. Call it after a change of frozen parameters.
    pub fn refresh(&mut self) {
        self.replicas.iter_mut().for_each(|replica| replica.has_copy = false);
    }

    /// The replicas' names, in the order of the shards.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.replicas.iter().map(|replica| &*replica.name)
    }

    /// Number of replicas.
    pub fn len(&self) -> usize {
        self.replicas.len()
    }

    /// Whether there are no replicas.
    pub fn is_empty(&self) -> bool {
        self.replicas.is_empty()
    }
}

impl<M, B> Drop for Replica<M, B> {
    /// Lets the thread end, and waits for it unless it hangs: Burn's devices do not support tensors that are
    /// dropped while the process ends.
    fn drop(&mut self) {
        drop(self.jobs.take());
        if !self.timed_out {
            let _ = self.ended.recv_timeout(Duration::from_secs(1));
        }
    }
}
