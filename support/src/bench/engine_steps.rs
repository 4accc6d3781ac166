//! Steps of the engine over a parameter set in raw buffers.

use super::rows::median;
use burn_wsam::engine::{
    AscentOptions, AscentTensor, BaseTensor, BlendSource, DescentTensor, Engine, EngineError,
    GradientOptions, LeanAscentTensor, LeanDescentTensor, MethodState, MomentumTensor, Placement,
    Rounding, Slice, StepStats,
};
use burn_wsam::method::{Base, Hyperparameters, Method, Moments, Momentum, Passes};
use std::time::{Duration, Instant};

pub fn bases() -> [(&'static str, Base); 3] {
    let momentum = Momentum { momentum: 0.9, dampening: 0.0, nesterov: false };
    let moments =
        Moments { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-8, weight_decay: 0.01, amsgrad: false };
    [
        ("SGD", Base::Sgd { momentum: None, weight_decay: 0.0 }),
        ("SGD + momentum", Base::Sgd { momentum: Some(momentum), weight_decay: 1e-4 }),
        ("AdamW", Base::AdamW(moments)),
    ]
}

/// One buffer a role: weights, gradient, perturbed weights, perturbed gradient, states.
pub struct Model {
    tensors: Vec<(u64, u64)>,
    pub buffers: Vec<wgpu::Buffer>,
}

impl Model {
    pub fn new(engine: &Engine, lens: &[u64], roles: usize) -> Self {
        let mut size = 0;
        let mut tensors = Vec::new();
        for len in lens {
            tensors.push((size, *len));
            size += (4 * len).next_multiple_of(256);
        }
        let buffer = || {
            engine.device().create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size,
                usage: wgpu::BufferUsages::STORAGE,
                mapped_at_creation: false,
            })
        };
        Self { tensors, buffers: (0..roles).map(|_| buffer()).collect() }
    }

    fn slice(&self, role: usize, (offset, len): (u64, u64)) -> Slice {
        Slice::new(&self.buffers[role], len).at(offset)
    }

    fn map<T>(&self, make: impl Fn((u64, u64)) -> T) -> Vec<T> {
        self.tensors.iter().copied().map(make).collect()
    }

    fn state(&self, tensor: (u64, u64)) -> Vec<Slice> {
        (4..self.buffers.len()).map(|role| self.slice(role, tensor)).collect()
    }
}

/// Slices of a model, for steps in one mode.
pub enum Steps {
    Ordinary(Vec<AscentTensor>, Vec<DescentTensor>),
    Lean(Vec<LeanAscentTensor>, Vec<LeanDescentTensor>),
    /// LookSAM's step between its SAM steps.
    OnePass(Vec<BaseTensor>),
    Momentum(Vec<MomentumTensor>, Vec<BaseTensor>),
}

impl Steps {
    pub fn new(model: &Model, lean: bool) -> Self {
        let at = |role, tensor| model.slice(role, tensor);
        if lean {
            let ascents = model.map(|t| {
                LeanAscentTensor::new(at(0, t), at(1, t), at(2, t)).with_state(model.state(t), 2)
            });
            let descents = model.map(|t| LeanDescentTensor::new(at(0, t), at(3, t)));
            return Self::Lean(ascents, descents);
        }
        let ascents =
            model.map(|t| AscentTensor::new(at(0, t), at(1, t), Placement::OutOfPlace(at(2, t))));
        let descents = model.map(|t| {
            DescentTensor::new(at(0, t), at(1, t), at(3, t)).with_state(model.state(t), 2)
        });
        Self::Ordinary(ascents, descents)
    }

    /// The steps of a method, of so many gradients. The model has one role more than the base optimizer's states where
    /// the method keeps a state.
    pub fn of_method(model: &Model, hyper: &Hyperparameters, passes: Passes) -> Self {
        let method = hyper.method;
        let at = |role, tensor| model.slice(role, tensor);
        let states = hyper.base.state_names().len();
        let state = |t| (0..states).map(|state| at(4 + state, t)).collect::<Vec<_>>();
        let method_state = |t| match method.state_names() {
            [] => MethodState::None,
            _ => MethodState::Set(at(4 + states, t)),
        };
        let base = |t| BaseTensor::new(at(0, t), at(1, t)).with_state(state(t), 2);
        let out = |t| Placement::OutOfPlace(at(2, t));
        match (method, passes) {
            (Method::MomentumSam, _) => {
                let momentum = |t| MomentumTensor::new(at(0, t), at(4, t), out(t), 2);
                Self::Momentum(model.map(momentum), model.map(base))
            }
            (_, Passes::One) => {
                Self::OnePass(model.map(|t| base(t).with_method_state(method_state(t))))
            }
            (_, Passes::Two) => {
                let of_ascent = |t| match method {
                    Method::FriendlySam { .. } => method_state(t),
                    _ => MethodState::None,
                };
                let ascent = |t| {
                    AscentTensor::new(at(0, t), at(1, t), out(t)).with_method_state(of_ascent(t))
                };
                let descent = |t| {
                    DescentTensor::new(at(0, t), at(1, t), at(3, t))
                        .with_state(state(t), 2)
                        .with_method_state(method_state(t))
                };
                Self::Ordinary(model.map(ascent), model.map(descent))
            }
        }
    }

    /// Records both phases, or the only one. `between` is called after each, with its commands.
    pub fn record(
        &self,
        engine: &Engine,
        hyper: &Hyperparameters,
        mut between: impl FnMut(wgpu::CommandEncoder),
    ) -> Result<StepStats, EngineError> {
        let encoder = || engine.device().create_command_encoder(&Default::default());
        let (mut first, mut second) = (encoder(), encoder());
        let mut stats;
        match self {
            Self::Ordinary(ascents, descents) => {
                let options = AscentOptions::default();
                let ascent = engine.ascent(&mut first, hyper, options, ascents)?;
                between(first);
                stats = ascent.stats();
                let blend = BlendSource::Method;
                stats += engine.descent(&mut second, hyper, 0.1, blend, &ascent, descents)?;
            }
            Self::Lean(ascents, descents) => {
                let ascent = engine.lean_ascent(
                    &mut first,
                    hyper,
                    0.1,
                    GradientOptions::default(),
                    ascents,
                )?;
                between(first);
                stats = ascent.stats();
                stats += engine.lean_descent(&mut second, &ascent, descents)?;
            }
            Self::OnePass(tensors) => {
                let options = GradientOptions::default();
                let step = engine.one_pass_step(&mut second, hyper, 0.1, options, tensors)?;
                stats = step.stats();
            }
            Self::Momentum(ascents, tensors) => {
                let rounding = Rounding::default();
                let ascent = engine.momentum_ascent(&mut first, hyper, rounding, ascents)?;
                between(first);
                let options = GradientOptions::default();
                let step =
                    engine.momentum_step(&mut second, hyper, 0.1, options, &ascent, tensors)?;
                stats = ascent.stats();
                stats += step.stats();
            }
        }
        between(second);
        Ok(stats)
    }

    /// Records and runs one step with a wait after each phase, in place of the backward passes.
    pub fn run(
        &self,
        engine: &Engine,
        hyper: &Hyperparameters,
    ) -> Result<(StepTimes, StepStats), EngineError> {
        let mut times = StepTimes::default();
        let (start, mut recorded_from) = (Instant::now(), Instant::now());
        let stats = self.record(engine, hyper, |encoder| {
            let commands = encoder.finish();
            times.recording += recorded_from.elapsed();
            let submitted_from = Instant::now();
            engine.queue().submit([commands]);
            times.submitting += submitted_from.elapsed();
            wait(engine);
            times.phases.push(submitted_from.elapsed());
            recorded_from = Instant::now();
        })?;
        times.whole = start.elapsed();
        Ok((times, stats))
    }

    /// Records and submits `count` steps one after another, waits once, and returns the time of one step. Training
    /// loops do so too: they wait only when they read something.
    pub fn run_pipelined(
        &self,
        engine: &Engine,
        hyper: &Hyperparameters,
        count: u32,
    ) -> Result<Duration, EngineError> {
        let start = Instant::now();
        for _ in 0..count {
            self.record(engine, hyper, |encoder| {
                engine.queue().submit([encoder.finish()]);
            })?;
        }
        wait(engine);
        Ok(start.elapsed() / count)
    }
}

/// Times of one step with a wait after each phase, on the host.
#[derive(Clone, Debug, Default)]
pub struct StepTimes {
    pub whole: Duration,
    pub recording: Duration,
    pub submitting: Duration,
    /// Submission and wait of each phase.
    pub phases: Vec<Duration>,
}

/// Number of steps that are pipelined: 50, or fewer where a step takes over 5 ms, which hides the wait anyway.
pub fn pipelined_count(step: Duration) -> u32 {
    (0.25 / step.as_secs_f64().max(1e-6)).clamp(3.0, 50.0) as u32
}

/// How much longer than its stages a step may take before its row names a bound.
pub const BOUND: f64 = 1.15;

/// What bounds a pipelined step, if its time is well above that of its stages on the device: the `host`, if recording
/// and submitting take most of the time, or else `launches`, such as submissions, barriers and the gaps between
/// dispatches. Times in seconds; without timestamps `device` is not known.
pub fn bound(step: f64, host: f64, device: Option<f64>) -> Option<&'static str> {
    if device.is_some_and(|device| step <= BOUND * device) {
        None
    } else if host >= 0.8 * step {
        Some("host")
    } else {
        device.map(|_| "launches")
    }
}

/// The counts of a pipelined step's row that say where its time goes.
pub fn pipelined_counts(
    seconds: &[f64],
    count: u32,
    times: &[StepTimes],
    device: Option<f64>,
) -> serde_json::Value {
    let host = |of: fn(&StepTimes) -> Duration| {
        median(&times.iter().map(|times| of(times).as_secs_f64()).collect::<Vec<_>>())
    };
    let (recording, submitting) = (host(|times| times.recording), host(|times| times.submitting));
    let microseconds = |seconds: f64| (1e7 * seconds).round() / 10.0;
    let mut counts = serde_json::json!({
        "pipelined_steps": count,
        "recording_us": microseconds(recording),
        "submitting_us": microseconds(submitting),
    });
    if let Some(device) = device {
        counts["device_us"] = microseconds(device).into();
    }
    let mut sorted = seconds.to_vec();
    sorted.sort_by(f64::total_cmp);
    // The lower quartile, so that other load on the machine does not look like a bound.
    if let Some(bound) = bound(sorted[sorted.len() / 4], recording + submitting, device) {
        counts["bound_by"] = bound.into();
    }
    counts
}

pub fn wait(engine: &Engine) {
    engine.device().poll(wgpu::PollType::wait_indefinitely()).expect("the device is there");
}

/// An engine, or an end with the reason.
pub fn engine() -> (Engine, wgpu::AdapterInfo) {
    Engine::on_any_adapter().unwrap_or_else(|error| {
        eprintln!("{error}");
        std::process::exit(1);
    })
}

/// What a report says of the machine.
pub fn machine(adapter: &wgpu::AdapterInfo) -> serde_json::Value {
    serde_json::json!({
        "adapter": adapter.name,
        "driver": format!("{} {}", adapter.driver, adapter.driver_info),
        "backend": adapter.backend.to_string(),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
    })
}

/// Burn's default device, shared with the kernels, or an end with the reason.
#[cfg(feature = "burn")]
pub fn shared() -> burn::tensor::Device {
    burn_wsam::device().unwrap_or_else(|error| {
        eprintln!("{error}");
        std::process::exit(1);
    })
}

#[cfg(test)]
mod tests {
    use super::{bound, pipelined_count};
    use std::time::Duration;

    #[test]
    fn a_bound_is_named_where_the_stages_take_less() {
        assert_eq!(bound(1.1, 0.9, Some(1.0)), None);
        assert_eq!(bound(1.2, 0.3, Some(1.0)), Some("launches"));
        assert_eq!(bound(5.0, 4.5, Some(1.0)), Some("host"));
        assert_eq!(bound(5.0, 4.5, None), Some("host"));
        assert_eq!(bound(5.0, 1.0, None), None);
    }

    #[test]
    fn slow_steps_are_pipelined_less() {
        let counts = [0, 1, 5, 25, 1000].map(|ms| pipelined_count(Duration::from_millis(ms)));
        assert_eq!(counts, [50, 50, 50, 10, 3]);
    }
}
