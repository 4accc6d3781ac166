//! Steps of the engine over a parameter set in raw buffers.

use burn_wsam::engine::{
    AscentOptions, AscentTensor, BlendSource, DescentTensor, Engine, EngineError, LeanAscentTensor,
    LeanDescentTensor, Slice, StepStats,
};
use burn_wsam::method::{Base, Hyperparameters, Moments, Momentum};
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
        Slice { offset, ..Slice::new(&self.buffers[role], len) }
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
}

impl Steps {
    pub fn new(model: &Model, lean: bool) -> Self {
        let at = |role, tensor| model.slice(role, tensor);
        if lean {
            let ascents = model.map(|t| LeanAscentTensor {
                weight: at(0, t),
                anchor: None,
                grad: at(1, t),
                partner: Some(at(2, t)),
                state: model.state(t),
                step: 2,
                group: 0,
            });
            let descents = model.map(|t| LeanDescentTensor {
                weight: at(0, t),
                grad_perturbed: at(3, t),
                ran_on: None,
                group: 0,
            });
            return Self::Lean(ascents, descents);
        }
        let ascents = model.map(|t| AscentTensor {
            weight: at(0, t),
            grad: at(1, t),
            partner: Some(at(2, t)),
            group: 0,
        });
        let descents = model.map(|t| DescentTensor {
            weight: at(0, t),
            anchor: None,
            grad: at(1, t),
            grad_perturbed: at(3, t),
            state: model.state(t),
            step: 2,
            group: 0,
        });
        Self::Ordinary(ascents, descents)
    }

    /// Records both halves. `between` is called after each, with its commands.
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
                let ascent = engine.lean_ascent(&mut first, hyper, 0.1, false, ascents)?;
                between(first);
                stats = ascent.stats();
                stats += engine.lean_descent(&mut second, &ascent, descents)?;
            }
        }
        between(second);
        Ok(stats)
    }

    /// Records and runs one step; waits for both halves, as two backward passes would lie between.
    pub fn run(
        &self,
        engine: &Engine,
        hyper: &Hyperparameters,
    ) -> Result<(Duration, StepStats), EngineError> {
        let start = Instant::now();
        let stats = self.record(engine, hyper, |encoder| {
            engine.queue().submit([encoder.finish()]);
            wait(engine);
        })?;
        Ok((start.elapsed(), stats))
    }
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
