//! Prepared steps: the same bits as ordinary ones, one upload, and a time that does not grow with the tensors.

use super::*;
use burn_wsam::engine::{
    AscentOptions, AscentTensor, BlendSource, DescentTensor, EngineError, PreparedStep, Slice,
    StepStats, StepValues,
};
use burn_wsam::method::{Clip, ClipScope};
use burn_wsam_support::engine_route::{engine, perturbed, read, slice};
use burn_wsam_support::gpu::Gpu;
use std::time::Duration;

const LENS: [usize; 9] = [5000, 17, 30_000, 5, 0, 64, 1000, 3, 259];
const OF: [usize; 9] = [1, 2, 3, 4, 4, 5, 6, 0, 5];

/// The tensors of a model, from the same numbers each time.
struct Model {
    weight: Vec<Slice>,
    copy: Vec<Slice>,
    grad: Vec<Slice>,
    grad_perturbed: Vec<Slice>,
    state: Vec<Vec<Slice>>,
    groups: Vec<usize>,
    placed: Placed,
}

impl Model {
    fn new(engine: &Engine, hyper: &Hyperparameters, placed: Placed) -> Self {
        let tensors = |seed: u64| -> Vec<Slice> {
            model(seed, &LENS)
                .iter()
                .map(|t| slice(engine, &burn_wsam_support::golden::narrow(t)))
                .collect()
        };
        Self {
            weight: tensors(1),
            copy: tensors(2),
            grad: tensors(3),
            grad_perturbed: tensors(4),
            state: (0..hyper.base.state_names().len()).map(|_| tensors(5)).collect(),
            groups: if hyper.groups.is_empty() { vec![0; 9] } else { OF.to_vec() },
            placed,
        }
    }

    fn ascents(&self, hyper: &Hyperparameters) -> Vec<AscentTensor> {
        let moved = perturbed(hyper, &self.groups);
        let tensor = |i: usize| {
            let copy = self.placed.with(moved[i].then(|| self.copy[i].clone()));
            AscentTensor::new(self.weight[i].clone(), self.grad[i].clone(), copy)
                .in_group(self.groups[i])
        };
        (0..LENS.len()).map(tensor).collect()
    }

    /// The last two tensors are two steps further than the others.
    fn descents(&self, hyper: &Hyperparameters, step: u64) -> Vec<DescentTensor> {
        let moved = perturbed(hyper, &self.groups);
        let tensor = |i: usize| {
            let (weight, grad) = (self.weight[i].clone(), self.grad[i].clone());
            let anchor = moved[i] && self.placed == Placed::InPlace;
            let state = self.state.iter().map(|plane| plane[i].clone()).collect();
            DescentTensor::new(weight, grad, self.grad_perturbed[i].clone())
                .with_anchor(anchor.then(|| self.copy[i].clone()))
                .with_state(state, if i < 7 { step } else { step + 2 })
                .in_group(self.groups[i])
        };
        (0..LENS.len()).map(tensor).collect()
    }

    fn bits(&self, engine: &Engine) -> Result<Vec<u32>, String> {
        let slices = self.weight.iter().chain(&self.copy).chain(self.state.iter().flatten());
        let mut bits = Vec::new();
        for slice in slices {
            let values = read(engine, slice).map_err(|error| error.to_string())?;
            bits.extend(values.iter().map(|value| value.to_bits()));
        }
        Ok(bits)
    }
}

/// Hyperparameters, learning rate and loss scale of the steps.
fn schedule(hyper: &Hyperparameters) -> [(Hyperparameters, f64, f64); 4] {
    [(0.05, 0.1, 1.0), (0.5, 0.02, 0.5), (0.0, 0.3, 1.0), (0.1, 0.1, 0.25)]
        .map(|(rho, lr, inv_scale)| (Hyperparameters { rho, ..hyper.clone() }, lr, inv_scale))
}

pub(crate) fn same_bits(gpu: &Gpu) -> Result<(), String> {
    let text = |error: EngineError| error.to_string();
    let engine = groups::engine_of_few_frames(gpu)?;
    let clip = Some(Clip { max_norm: 1.0, scope: ClipScope::Both });
    let cases = [
        (propagating(sgd()), Placed::OutOfPlace),
        (sgd_momentum(), Placed::InPlace),
        (Hyperparameters { clip, ..adamw() }, Placed::OutOfPlace),
        (Hyperparameters { groups: groups::all_overrides(), ..amsgrad() }, Placed::OutOfPlace),
    ];
    for (hyper, placed) in cases {
        let [ordinary, prepared] = [0, 1].map(|_| Model::new(&engine, &hyper, placed));
        let mut costs = StepStats::default();
        for (count, (hyper, lr, inv_scale)) in (1..).zip(schedule(&hyper)) {
            let mut encoder = engine.device().create_command_encoder(&Default::default());
            let options = AscentOptions::default()
                .with_inv_scale(burn_wsam::engine::InvScale::Host(inv_scale));
            let ascents = ordinary.ascents(&hyper);
            let ascent = engine.ascent(&mut encoder, &hyper, options, &ascents).map_err(text)?;
            costs = ascent.stats();
            let (blend, descents) = (BlendSource::Method, ordinary.descents(&hyper, count));
            costs += engine
                .descent(&mut encoder, &hyper, lr, blend, &ascent, &descents)
                .map_err(text)?;
            engine.queue().submit([encoder.finish()]);
        }
        let options = AscentOptions::default();
        let (ascents, descents) = (prepared.ascents(&hyper), prepared.descents(&hyper, 1));
        let mut step = engine.prepare(&hyper, options, &ascents, &descents).map_err(text)?;
        // Two steps in each submission: what is recorded must not change what is recorded already.
        for two in schedule(&hyper).chunks(2).zip([0, 2]).map(|(two, first)| (first..).zip(two)) {
            let mut encoder = engine.device().create_command_encoder(&Default::default());
            for (taken, (hyper, lr, inv_scale)) in two {
                let values = changed(StepValues::new(*lr, taken), |it| it.inv_scale = *inv_scale);
                let mut stats = step.ascent(&engine, &mut encoder, hyper, values).map_err(text)?;
                stats += step.descent(&engine, &mut encoder).map_err(text)?;
                let same = (stats.dispatches, stats.bytes()) == (costs.dispatches, costs.bytes());
                if !same || (stats.uploads, stats.plans_made, costs.uploads) != (1, 0, 3) {
                    return Err(format!("{stats}, not prepared {costs}"));
                }
            }
            engine.queue().submit([encoder.finish()]);
        }
        if ordinary.bits(&engine)? != prepared.bits(&engine)? {
            return Err(format!("{hyper:?}, {placed:?}: other bits"));
        }
    }
    Ok(())
}

pub(crate) fn refused(gpu: &Gpu) -> Result<(), String> {
    let text = |error: EngineError| error.to_string();
    let engine = groups::engine_of_few_frames(gpu)?;
    let hyper = Hyperparameters { groups: groups::all_overrides(), ..sgd() };
    let model = Model::new(&engine, &hyper, Placed::OutOfPlace);
    let options = AscentOptions::default();
    let (ascents, descents) = (model.ascents(&hyper), model.descents(&hyper, 1));
    let mut step = engine.prepare(&hyper, options, &ascents, &descents).map_err(text)?;
    let mut encoder = engine.device().create_command_encoder(&Default::default());
    let mut ascend = |hyper: &Hyperparameters, values, step: &mut PreparedStep| {
        step.ascent(&engine, &mut encoder, hyper, values).map(|_| ())
    };
    let values = StepValues::new(0.1, 0);
    let clip = Some(Clip { max_norm: 1.0, scope: ClipScope::Both });
    let others = [
        Hyperparameters { clip, ..hyper.clone() },
        Hyperparameters { base: adamw().base, ..hyper.clone() },
        Hyperparameters { groups: Vec::new(), ..hyper.clone() },
        propagating(hyper.clone()),
    ];
    for other in others {
        match ascend(&other, values, &mut step) {
            Err(EngineError::Prepared) => {}
            got => return Err(format!("{other:?}: {got:?}")),
        }
    }
    for wrong in [changed(values, |it| it.lr = f64::NAN), changed(values, |it| it.inv_scale = 0.0)]
    {
        match ascend(&hyper, wrong, &mut step) {
            Err(EngineError::Hyperparameter(_)) => {}
            got => return Err(format!("{wrong:?}: {got:?}")),
        }
    }
    ascend(&hyper, values, &mut step).map_err(text)?;
    step.descent(&engine, &mut encoder).map_err(text)?;
    match step.descent(&engine, &mut encoder) {
        Err(EngineError::NoAscent) => Ok(()),
        got => Err(format!("a second descent: {got:?}")),
    }
}

/// Recording a thousand tensors takes about as long as recording one. Prints both times.
pub(crate) fn constant_time(gpu: &Gpu) -> Result<(), String> {
    let text = |error: EngineError| error.to_string();
    let engine = engine(gpu)?;
    let hyper = sgd_momentum();
    let recording = |count: u64| -> Result<Duration, String> {
        let buffers: Vec<_> = (0..5)
            .map(|_| {
                burn_wsam_support::engine_route::buffer(&engine, &vec![0.5; 64 * count as usize])
            })
            .collect();
        let at = |role: usize, i: u64| Slice::new(&buffers[role], 64).at(256 * i);
        let copy = |i| Placed::OutOfPlace.with(Some(at(2, i)));
        let ascents: Vec<_> =
            (0..count).map(|i| AscentTensor::new(at(0, i), at(1, i), copy(i))).collect();
        let descent =
            |i| DescentTensor::new(at(0, i), at(1, i), at(3, i)).with_state(vec![at(4, i)], 1);
        let descents: Vec<_> = (0..count).map(descent).collect();
        let options = AscentOptions::default();
        let mut step = engine.prepare(&hyper, options, &ascents, &descents).map_err(text)?;
        let mut times = Vec::new();
        for taken in 0..100 {
            let mut encoder = engine.device().create_command_encoder(&Default::default());
            let values = StepValues::new(0.1, taken);
            let mut stats = step.ascent(&engine, &mut encoder, &hyper, values).map_err(text)?;
            stats += step.descent(&engine, &mut encoder).map_err(text)?;
            engine.queue().submit([encoder.finish()]);
            engine.device().poll(wgpu::PollType::wait_indefinitely()).map_err(|e| e.to_string())?;
            times.push(stats.recording);
        }
        times.sort_unstable();
        println!("{count} tensors: {:?} at least, {:?} in the median", times[0], times[50]);
        Ok(times[0])
    };
    let (few, many) = (recording(1)?, recording(1000)?);
    if many > 4 * few {
        return Err(format!("{many:?} for a thousand tensors, {few:?} for one"));
    }
    Ok(())
}
