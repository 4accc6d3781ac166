//! Costs of steps recorded over real parameter sets. The steps are not submitted, so the buffers take no memory.

use crate::sets::sets;
use burn_wsam::engine::{
    AscentOptions, AscentTensor, BlendSource, DescentTensor, Engine, GradientOptions,
    LeanAscentTensor, LeanDescentTensor, Placement, Slice, StepStats,
};
use burn_wsam::layout::{Stage, Width, storage_buffers};
use burn_wsam::method::{Base, Clip, ClipScope, Hyperparameters, Moments, Momentum};
use burn_wsam_support::engine_route::{changed, engine, propagating};
use burn_wsam_support::gpu::Gpu;

const MOMENTS: Moments =
    Moments { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-8, weight_decay: 0.01, amsgrad: false };

fn sgd() -> Hyperparameters {
    Hyperparameters::new(Base::Sgd { momentum: None, weight_decay: 0.0 })
}

fn sgd_momentum() -> Hyperparameters {
    let momentum = Momentum { momentum: 0.9, dampening: 0.0, nesterov: false };
    Hyperparameters::new(Base::Sgd { momentum: Some(momentum), weight_decay: 1e-4 })
}

/// Name, hyperparameters and bytes a parameter.
fn variants() -> Vec<(&'static str, Hyperparameters, u64)> {
    let adamw = Hyperparameters::new(Base::AdamW(MOMENTS));
    let adam = Hyperparameters::new(Base::Adam(MOMENTS));
    let clip = Some(Clip { max_norm: 1.0, scope: ClipScope::Both });
    vec![
        ("SGD", propagating(sgd()), 32),
        ("SGD + momentum", propagating(sgd_momentum()), 40),
        ("Adam", propagating(adam), 48),
        ("AdamW", propagating(adamw.clone()), 48),
        // By default a step checks g~ before it writes.
        ("SGD + momentum, checked", sgd_momentum(), 44),
        ("SGD, clipped", Hyperparameters { clip, ..sgd() }, 36),
        ("AdamW, adaptive", propagating(Hyperparameters { adaptive: true, ..adamw.clone() }), 52),
        ("AdamW, adaptive, clipped", Hyperparameters { adaptive: true, clip, ..adamw.clone() }, 56),
    ]
}

/// One buffer for each role, with tensors on multiples of 256 bytes, as in an arena.
struct Model {
    places: Vec<(u64, u64)>,
    size: u64,
    buffers: Vec<wgpu::Buffer>,
}

/// Frees the buffers at once. The largest set takes 3 GB, and wgpu would keep it until its next cleanup.
impl Drop for Model {
    fn drop(&mut self) {
        self.buffers.iter().for_each(wgpu::Buffer::destroy);
    }
}

impl Model {
    fn new(engine: &Engine, lens: &[u64]) -> Self {
        let mut size = 0;
        let mut places = Vec::new();
        for len in lens {
            places.push((size, *len));
            size += (4 * len).next_multiple_of(256);
        }
        let buffer = |_| {
            engine.device().create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size,
                usage: wgpu::BufferUsages::STORAGE,
                mapped_at_creation: false,
            })
        };
        Self { places, size, buffers: (0..6).map(buffer).collect() }
    }

    fn at(&self, role: usize, (offset, len): (u64, u64)) -> Slice {
        Slice::new(&self.buffers[role], len).at(offset)
    }

    fn record(
        &self,
        engine: &Engine,
        hyper: &Hyperparameters,
        lean: bool,
    ) -> Result<StepStats, String> {
        let states = 4..4 + hyper.base.state_names().len();
        let state = |place| states.clone().map(|role| self.at(role, place)).collect();
        let places = || self.places.iter().copied();
        let mut encoder = engine.device().create_command_encoder(&Default::default());
        let text = |error: burn_wsam::engine::EngineError| error.to_string();
        if lean {
            let ascents: Vec<_> = places()
                .map(|place| {
                    LeanAscentTensor::new(self.at(0, place), self.at(1, place), self.at(2, place))
                        .with_state(state(place), 2)
                })
                .collect();
            let descents: Vec<_> = places()
                .map(|place| {
                    LeanDescentTensor::new(self.at(0, place), self.at(3, place))
                        .with_second_pass_weight(self.at(2, place))
                })
                .collect();
            let ascent = engine
                .lean_ascent(&mut encoder, hyper, 0.1, GradientOptions::default(), &ascents)
                .map_err(text)?;
            let mut stats = ascent.stats();
            stats += engine.lean_descent(&mut encoder, &ascent, &descents).map_err(text)?;
            return Ok(stats);
        }
        let ascents: Vec<_> = places()
            .map(|place| {
                AscentTensor::new(
                    self.at(0, place),
                    self.at(1, place),
                    Placement::OutOfPlace(self.at(2, place)),
                )
            })
            .collect();
        let descents: Vec<_> = places()
            .map(|place| {
                DescentTensor::new(self.at(0, place), self.at(1, place), self.at(3, place))
                    .with_state(state(place), 2)
            })
            .collect();
        let options = AscentOptions::default();
        let ascent = engine.ascent(&mut encoder, hyper, options, &ascents).map_err(text)?;
        let mut stats = ascent.stats();
        let blend = BlendSource::Method;
        stats +=
            engine.descent(&mut encoder, hyper, 0.1, blend, &ascent, &descents).map_err(text)?;
        Ok(stats)
    }

    /// Number of windows (binding ranges) that a buffer of the model takes.
    fn windows(&self, engine: &Engine) -> u64 {
        self.size.div_ceil(engine.device().limits().max_storage_buffer_binding_size)
    }

    /// Whether a norm's last workgroup finishes it: on Vulkan, without a partial sum for each invocation.
    fn finishes_in_norm(&self, engine: &Engine) -> bool {
        let tuning = engine.tuning();
        let elements: u64 = self.places.iter().map(|(_, len)| len).sum();
        let least = u64::from(tuning.chunk_len);
        let most = u64::from(tuning.max_norm_chunk_len);
        let chunk_len = (elements / 1024).next_multiple_of(least).clamp(least, most);
        let chunks: u64 = self.places.iter().map(|(_, len)| len.div_ceil(chunk_len)).sum();
        let bytes = 32 * chunks * u64::from(tuning.workgroup);
        let by_lane = tuning.partials_by_lane && chunks < 1 << 15 && 20 * bytes < 4 * elements;
        let is_vulkan = engine.device().adapter_info().backend == wgpu::Backend::Vulkan;
        is_vulkan && tuning.finish_in_norm && !by_lane
    }

    /// Expected number of dispatches: windows share a dispatch as far as the device's storage buffers allow.
    fn dispatches(&self, engine: &Engine, hyper: &Hyperparameters, lean: bool) -> u64 {
        let windows = self.windows(engine);
        let states = hyper.base.state_names().len() as u64;
        let limit = engine.device().limits().max_storage_buffers_per_shader_stage;
        let of = |stage: Stage, columns: u64| {
            let spare = u64::from(limit - storage_buffers(stage, Width::Wide));
            windows.div_ceil((1 + spare / columns).min(u64::from(engine.tuning().max_buffer_sets)))
        };
        let finishes = self.finishes_in_norm(engine);
        let norm = |columns| {
            let (apart, joined) = (of(Stage::Norm, columns), of(Stage::NormAndFinish, columns));
            if finishes && joined <= apart { joined } else { 1 + apart }
        };
        let checks = hyper.non_finite.checks_gradients();
        let clip = match (hyper.clip, checks) {
            (Some(_), _) => norm(1),
            (None, true) => of(Stage::Check, 1),
            (None, false) => 0,
        };
        let phases = if lean {
            let columns = 2 + u64::from(checks);
            of(Stage::LeanAscent, 3 + states) + of(Stage::LeanDescent, columns)
        } else {
            of(Stage::Ascent, 3) + of(Stage::Descent, 3 + states)
        };
        norm(1 + u64::from(hyper.adaptive)) + clip + phases
    }

    fn check(&self, engine: &Engine, fits: bool) -> Result<(), String> {
        let parameters: u64 = self.places.iter().map(|(_, len)| len).sum();
        for (name, hyper, bytes) in variants() {
            for lean in [false, true] {
                let wrong = |what: String| {
                    let mode = if lean { " (lean)" } else { "" };
                    Err(format!("{name}{mode}, {} tensors: {what}", self.places.len()))
                };
                let first = self.record(engine, &hyper, lean)?;
                let stats = self.record(engine, &hyper, lean)?;
                if stats.plans_made != 0 {
                    return wrong(format!("{} plans were made again", stats.plans_made));
                }
                let again = changed(stats, |it| it.plans_made = first.plans_made);
                if changed(first, |it| it.recording = stats.recording) != again {
                    return wrong(format!("{first:?}, then {stats:?}"));
                }
                let want = self.dispatches(engine, &hyper, lean);
                if u64::from(stats.dispatches) != want {
                    return wrong(format!("{} dispatches, expected {want}", stats.dispatches));
                }
                // A clipped step takes a second norm and its norm_finish, an unclipped one may check g~.
                let most = match (hyper.clip, hyper.non_finite.checks_gradients()) {
                    (Some(_), _) => 6,
                    (None, true) => 5,
                    (None, false) => 4,
                };
                if fits && stats.dispatches > most {
                    return wrong(format!("{} dispatches", stats.dispatches));
                }
                if stats.bytes() != bytes * parameters {
                    return wrong(format!("{} bytes, not {bytes} each", stats.bytes()));
                }
                if stats.overhead_bytes * 100 > stats.bytes() {
                    return wrong(format!("{} bytes of overhead", stats.overhead_bytes));
                }
                let extra = if lean { 0 } else { 4 * parameters };
                if stats.extra_bytes != extra {
                    return wrong(format!("{} extra bytes, not {extra}", stats.extra_bytes));
                }
                // One buffer for each role, in the phase that binds more: the ascent of a lean step,
                // the descent of an ordinary one.
                let roles = 3 + hyper.base.state_names().len() as u32;
                if stats.buffers != roles {
                    return wrong(format!("{} buffers, expected {roles}", stats.buffers));
                }
            }
        }
        Ok(())
    }
}

/// One of the benchmarks' parameter sets: the number of dispatches does not depend on its tensors.
pub(crate) fn set(gpu: &Gpu, name: &str) -> Result<(), String> {
    let engine = engine(gpu)?;
    let set = sets().into_iter().find(|set| set.name == name).ok_or("no such set")?;
    let model = Model::new(&engine, &set.lens);
    let limit = u64::from(engine.device().limits().max_storage_buffers_per_shader_stage);
    // The stage with most bindings has six columns and the chunk table.
    model.check(&engine, 6 * model.windows(&engine) < limit)
}

/// With WebGPU's default limits, 8 storage buffers of 128 MiB a dispatch, the number of dispatches
/// grows with the arenas' windows and not with the tensors.
pub(crate) fn eight_buffers(gpu: &Gpu) -> Result<(), String> {
    let mut required_limits = gpu.adapter.limits();
    required_limits.max_storage_buffers_per_shader_stage = 8;
    required_limits.max_storage_buffer_binding_size = 1 << 27;
    let descriptor = wgpu::DeviceDescriptor { required_limits, ..Default::default() };
    let (device, queue) = pollster::block_on(gpu.adapter.request_device(&descriptor))
        .map_err(|error| error.to_string())?;
    let engine = Engine::new(&device, &queue).map_err(|error| error.to_string())?;
    for set in sets() {
        let model = Model::new(&engine, &set.lens);
        let fits = model.windows(&engine) == 1;
        model.check(&engine, fits).map_err(|error| format!("{}: {error}", set.name))?;
    }
    Ok(())
}

/// Each tensor of each role in its own buffer: an engine with several buffer sets a dispatch gives the same
/// bits as an engine with one.
pub(crate) fn many_buffers(gpu: &Gpu) -> Result<(), String> {
    many_buffers_on(&engine(gpu)?)
}

/// A limit on buffers of all kinds together, uniform buffers included: 29 as on Metal, or, if the
/// device has fewer storage buffers, 12, the fewest that the engine accepts.
pub(crate) fn counted_together(gpu: &Gpu) -> Result<(), String> {
    let mut required_limits = gpu.adapter.limits();
    let storage = required_limits.max_storage_buffers_per_shader_stage.min(29);
    required_limits.max_storage_buffers_per_shader_stage = storage;
    let together = if storage == 29 { 29 } else { 12 };
    required_limits.max_buffers_and_acceleration_structures_per_shader_stage = together;
    let descriptor = wgpu::DeviceDescriptor { required_limits, ..Default::default() };
    let (device, queue) = pollster::block_on(gpu.adapter.request_device(&descriptor))
        .map_err(|error| error.to_string())?;
    let engine = Engine::new(&device, &queue).map_err(|error| error.to_string())?;
    many_buffers_on(&std::sync::Arc::new(engine))
}

fn many_buffers_on(engine: &std::sync::Arc<Engine>) -> Result<(), String> {
    use burn_wsam_support::engine_route::{EngineRoute, Placed};
    use burn_wsam_support::replay::Route;
    let single = changed(engine.tuning(), |it| it.max_buffer_sets = 1);
    let single = Engine::with_tuning(engine.device(), engine.queue(), single)
        .map(std::sync::Arc::new)
        .map_err(|error| error.to_string())?;
    let tensor = |seed: usize, len: usize| -> Vec<f64> {
        (0..len).map(|i| f64::from(((seed * 31 + i * 7) % 97) as f32 / 48.0 - 1.0)).collect()
    };
    let model = |seed| (0..23).map(|i| tensor(seed + i, 300 + 41 * i)).collect::<Vec<_>>();
    let run = |engine: &std::sync::Arc<Engine>| -> Result<_, String> {
        let mut bits = Vec::new();
        let hyper = Hyperparameters::new(Base::AdamW(MOMENTS));
        for placement in [Placed::OutOfPlace, Placed::InPlace] {
            let mut route = EngineRoute::new(engine, hyper.clone(), placement, &model(1));
            for step in 0..3 {
                bits.push(route.ascend(&model(100 + step))?);
                bits.push(route.descend(0.01, &model(200 + step))?);
            }
        }
        Ok(bits)
    };
    if run(engine)? == run(&single)? {
        Ok(())
    } else {
        Err("the number of buffer sets changes results".to_owned())
    }
}

/// A plan is reused for the same tensors, and a change of any input makes a new plan.
pub(crate) fn plans(gpu: &Gpu) -> Result<(), String> {
    let engine = engine(gpu)?;
    let model = Model::new(&engine, &[1000, 5, 4096]);
    let made = |model: &Model, hyper: &Hyperparameters, lean| {
        model.record(&engine, hyper, lean).map(|stats| stats.plans_made)
    };
    let expect = |what: &str, found: Result<u32, String>, want: u32| match found? {
        found if found == want => Ok(()),
        found => Err(format!("{what}: {found} plans made, not {want}")),
    };
    let base = sgd_momentum();
    expect("first", made(&model, &base, false), 2)?;
    expect("again", made(&model, &base, false), 0)?;
    let numbers = Hyperparameters { rho: 0.3, gamma: 0.5, ..base.clone() };
    expect("with other numbers", made(&model, &numbers, false), 0)?;
    expect(
        "adaptive",
        made(&model, &Hyperparameters { adaptive: true, ..base.clone() }, false),
        1,
    )?;
    let clip = Some(Clip { max_norm: 1.0, scope: ClipScope::Both });
    expect("clipped", made(&model, &Hyperparameters { clip, ..base.clone() }, false), 1)?;
    expect("with another base", made(&model, &sgd(), false), 1)?;
    expect("lean", made(&model, &base, true), 2)?;
    expect("in other buffers", made(&Model::new(&engine, &[1000, 5, 4096]), &base, false), 2)?;
    let mut shorter = Model::new(&engine, &[1000, 5, 4096]);
    expect("in other buffers again", made(&shorter, &base, false), 2)?;
    shorter.places[2].1 = 4095;
    expect("shorter", made(&shorter, &base, false), 2)?;
    shorter.places.pop();
    expect("fewer", made(&shorter, &base, false), 2)?;
    engine.forget_plans();
    expect("after forget_plans", made(&shorter, &base, false), 2)
}
