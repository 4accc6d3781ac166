//! Offsets, neighbours and placements of tensors do not change a bit of the results.

use super::*;
use burn_wsam::engine::{AscentOptions, AscentTensor, BlendSource, DescentTensor, Slice};
use burn_wsam_support::engine_route::{engine, slice};
use burn_wsam_support::golden::narrow;
use burn_wsam_support::gpu::Gpu;

/// A NaN with a recognisable payload, in memory that no kernel may write.
const POISON: f32 = f32::from_bits(0x7fc0_dead);

/// A buffer with poison between the tensors.
struct Poisoned {
    memory: Vec<f32>,
    taken: Vec<(usize, usize)>,
}

impl Poisoned {
    fn new() -> Self {
        Self { memory: vec![POISON; 5], taken: Vec::new() }
    }

    /// Adds a tensor and a gap after it, and returns its offset in bytes and its length.
    fn place(&mut self, values: &[f64]) -> (u64, u64) {
        let start = self.memory.len();
        self.memory.extend(narrow(values));
        self.taken.push((start, self.memory.len()));
        let gap = 1 + start % 7;
        self.memory.extend(std::iter::repeat_n(POISON, gap));
        (4 * start as u64, values.len() as u64)
    }

    fn check(&self, found: &[f32]) -> Result<(), String> {
        let owned = |i: usize| self.taken.iter().any(|(start, end)| (*start..*end).contains(&i));
        match found.iter().enumerate().find(|(i, x)| !owned(*i) && x.to_bits() != POISON.to_bits())
        {
            Some((i, x)) => Err(format!("element {i}, outside of all tensors, became {x}")),
            None => Ok(()),
        }
    }
}

const LENS: [usize; 6] = [1, 255, 0, 257, 4097, 10_001];

/// All tensors of a model in one buffer, at any multiple of 4 bytes.
pub(crate) fn one_buffer(gpu: &Gpu) -> Result<(), String> {
    one_buffer_on(&engine(gpu)?)
}

pub(crate) fn one_buffer_on(engine: &Arc<Engine>) -> Result<(), String> {
    let roles = ["w", "g", "partner", "g~", "exp_avg", "exp_avg_sq"];
    let mut memory = Poisoned::new();
    let places: Vec<Vec<_>> = roles
        .iter()
        .zip(0..)
        .map(|(_, role)| model(10 * role, &LENS).iter().map(|t| memory.place(t)).collect())
        .collect();
    let buffer = burn_wsam_support::engine_route::buffer(engine, &memory.memory);
    let at = |role: usize, i: usize| {
        let (offset, len) = places[role][i];
        Slice::new(&buffer, len).at(offset)
    };
    step(engine, adamw(), Placed::OutOfPlace, at)?;
    let bytes = engine.read_buffer(&buffer).map_err(|error| error.to_string())?;
    let found: Vec<f32> = bytemuck::pod_collect_to_vec(&bytes);
    memory.check(&found)?;
    // The same step with each tensor at the start of its own buffer.
    let alone: Vec<Vec<Slice>> = (0..roles.len() as u64)
        .map(|role| model(10 * role, &LENS).iter().map(|t| slice(engine, &narrow(t))).collect())
        .collect();
    step(engine, adamw(), Placed::OutOfPlace, |role, i| alone[role][i].clone())?;
    for (role, tensors) in alone.iter().enumerate() {
        for (i, tensor) in tensors.iter().enumerate() {
            let want = bits(engine, tensor)?;
            let got = bits(engine, &at(role, i))?;
            if got != want {
                return Err(format!("{} of tensor {i} depends on its offset", roles[role]));
            }
        }
    }
    Ok(())
}

/// One buffer for each role, in place.
pub(crate) fn own_buffers(gpu: &Gpu) -> Result<(), String> {
    let engine = engine(gpu)?;
    let mut memories = Vec::new();
    let mut slices = Vec::new();
    for role in 0..6 {
        let mut memory = Poisoned::new();
        let places: Vec<_> = model(10 * role, &LENS).iter().map(|t| memory.place(t)).collect();
        let buffer = burn_wsam_support::engine_route::buffer(&engine, &memory.memory);
        slices.push(
            places
                .into_iter()
                .map(|(offset, len)| Slice::new(&buffer, len).at(offset))
                .collect::<Vec<_>>(),
        );
        memories.push((memory, buffer));
    }
    step(&engine, adamw(), Placed::InPlace, |role, i| slices[role][i].clone())?;
    for (memory, buffer) in &memories {
        let bytes = engine.read_buffer(buffer).map_err(|error| error.to_string())?;
        memory.check(&bytemuck::pod_collect_to_vec::<u8, f32>(&bytes))?;
    }
    Ok(())
}

/// Takes one step. `at` returns the slices of w, g, partner, g~ and two states.
fn step(
    engine: &Arc<Engine>,
    hyper: Hyperparameters,
    placement: Placed,
    at: impl Fn(usize, usize) -> Slice,
) -> Result<(), String> {
    let ascents: Vec<_> = (0..LENS.len())
        .map(|i| AscentTensor::new(at(0, i), at(1, i), placement.with(Some(at(2, i)))))
        .collect();
    let descents: Vec<_> = (0..LENS.len())
        .map(|i| {
            DescentTensor::new(at(0, i), at(1, i), at(3, i))
                .with_anchor((placement == Placed::InPlace).then(|| at(2, i)))
                .with_state(vec![at(4, i), at(5, i)], 3)
        })
        .collect();
    let mut encoder = engine.device().create_command_encoder(&Default::default());
    let options = AscentOptions::default().tracking_norms();
    // Both phases in one encoder, because no result between them is needed on the host.
    let ascent = engine
        .ascent(&mut encoder, &hyper, options, &ascents)
        .map_err(|error| error.to_string())?;
    engine
        .descent(&mut encoder, &hyper, 0.01, BlendSource::Method, &ascent, &descents)
        .map_err(|error| error.to_string())?;
    engine.queue().submit([encoder.finish()]);
    Ok(())
}

fn bits(engine: &Engine, slice: &Slice) -> Result<Vec<u32>, String> {
    let values =
        burn_wsam_support::engine_route::read(engine, slice).map_err(|error| error.to_string())?;
    Ok(values.iter().map(|x| x.to_bits()).collect())
}

/// Bits of weights and state after each of five steps.
fn trajectory(
    engine: &Arc<Engine>,
    hyper: Hyperparameters,
    placement: Placed,
) -> Result<Vec<u64>, String> {
    let lens = [1000, 4097, 1, 70_001];
    let mut route = EngineRoute::new(engine, hyper, placement, &model(3, &lens));
    let mut bits = Vec::new();
    let mut keep =
        |tensors: &[Vec<f64>]| bits.extend(tensors.iter().flatten().map(|x| x.to_bits()));
    for step in 0..5 {
        keep(&route.ascend(&model(50 + step, &lens))?);
        keep(&route.descend(0.02, &model(60 + step, &lens))?);
        route.state()?.iter().for_each(|plane| keep(plane));
    }
    Ok(bits)
}

pub(crate) fn placements_agree(gpu: &Gpu) -> Result<(), String> {
    let engine = engine(gpu)?;
    for hyper in [sgd(), sgd_momentum(), adamw(), amsgrad()] {
        let out = trajectory(&engine, hyper.clone(), Placed::OutOfPlace)?;
        if out != trajectory(&engine, hyper.clone(), Placed::InPlace)? {
            return Err(format!("{:?} differs between the placements", hyper.base));
        }
    }
    Ok(())
}

/// Steps repeat on one engine and on another engine of the same adapter.
pub(crate) fn repeats(gpu: &Gpu) -> Result<(), String> {
    let (first, second) = (engine(gpu)?, engine(gpu)?);
    for hyper in [sgd_momentum(), adamw(), amsgrad()] {
        let once = trajectory(&first, hyper.clone(), Placed::OutOfPlace)?;
        for engine in [&first, &second] {
            if trajectory(engine, hyper.clone(), Placed::OutOfPlace)? != once {
                return Err(format!("{:?} does not repeat", hyper.base));
            }
        }
    }
    Ok(())
}

/// Restoring weights by subtraction would lose their low bits under a perturbation far larger than the
/// weights. With lr = 0 and no decay, the descent only restores.
pub(crate) fn anchor_is_exact(gpu: &Gpu) -> Result<(), String> {
    let engine = engine(gpu)?;
    let hyper = Hyperparameters { rho: 1e6, ..sgd() };
    let lens = [10_001];
    let weight: Vec<Vec<f64>> =
        vec![noise(5, lens[0]).into_iter().map(|x| f64::from((x * 1e-6) as f32)).collect()];
    for placement in [Placed::InPlace, Placed::OutOfPlace] {
        let mut route = EngineRoute::new(&engine, hyper.clone(), placement, &weight);
        if route.ascend(&model(6, &lens))? == weight {
            return Err("the ascent did not change the weights".to_owned());
        }
        if route.descend(0.0, &model(7, &lens))? != weight {
            return Err(format!("{placement:?}: the weights came back changed"));
        }
    }
    Ok(())
}
