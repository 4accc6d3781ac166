//! Parameter groups, learning rates by tensor, and the table of kinds.

use super::*;
use crate::common::gpu::Gpu;
use crate::common::lean::LeanRoute;
use crate::common::raw::{engine, slice};
use burn_wsam::engine::{
    AscentOptions, AscentTensor, BaseTensor, BlendSource, EngineError, LeanAscentTensor, Slice,
    StepStats,
};
use burn_wsam::method::{Clip, ClipScope, Group, InvalidHyperparameter, NormScope};
use burn_wsam::reference::Oracle;

/// One of each way to depart.
pub(crate) fn all_ways() -> Vec<Group> {
    let group = Group::default;
    vec![
        Group { lr_factor: 3.0, weight_decay: Some(0.1), ..group() },
        Group { rho: Some(1.5), gamma: Some(0.3), ..group() },
        Group { adaptive: Some(true), ..group() },
        Group { adaptive: Some(false), norm: NormScope::Own, rho: Some(0.7), ..group() },
        Group { perturbed: false, ..group() },
        Group { norm: NormScope::Own, adaptive: Some(true), gamma: Some(0.0), ..group() },
    ]
}

const LENS: [usize; 9] = [300, 17, 4100, 5, 0, 64, 1000, 3, 259];
const OF: [usize; 9] = [1, 2, 3, 4, 4, 5, 6, 0, 5];

/// Tensors have buffers of their own here, and shaders of sixteen frames take long to compile.
pub(crate) fn engine_of_few_frames(gpu: &Gpu) -> Result<Arc<Engine>, String> {
    let engine = engine(gpu)?;
    let tuning = changed(engine.tuning(), |it| it.max_buffer_sets = 2);
    let engine = Engine::with_tuning(engine.device(), engine.queue(), tuning);
    Ok(Arc::new(engine.map_err(|error| error.to_string())?))
}

pub(crate) fn beside_oracle(gpu: &Gpu) -> Result<(), String> {
    let engine = engine_of_few_frames(gpu)?;
    let weight = model(1, &LENS);
    let clip = Some(Clip { max_norm: 0.5, scope: ClipScope::Both });
    for base in [sgd(), sgd_momentum(), adamw(), amsgrad()] {
        for (coupling, clip, adaptive) in
            [(Coupling::Coupled, None, false), (Coupling::Decoupled, clip, true)]
        {
            let groups = all_ways();
            let hyper = Hyperparameters { coupling, clip, adaptive, groups, ..base.clone() };
            let oracle = || {
                let oracle = Oracle::with_groups(hyper.clone(), weight.clone(), &OF);
                oracle.map(OracleRoute).map_err(|error| error.to_string())
            };
            for placement in [Placed::OutOfPlace, Placed::InPlace] {
                let route = EngineRoute::new(&engine, hyper.clone(), placement, &weight);
                let mut route = route.with_groups(&OF);
                side_by_side(&hyper, &mut route, &mut oracle()?, &LENS, 2)?;
            }
            if coupling == Coupling::Decoupled {
                let route = LeanRoute::new(&engine, hyper.clone(), 0.01, &weight);
                let mut route = route.with_groups(&OF);
                side_by_side(&hyper, &mut route, &mut oracle()?, &LENS, 2)
                    .map_err(|error| format!("lean: {error}"))?;
            }
        }
    }
    Ok(())
}

/// A plain gradient step, `w - lr g`, with the rate of each tensor.
fn base_steps(engine: &Engine, rates: &[f64]) -> Result<(Vec<f32>, StepStats), EngineError> {
    let tensors: Vec<_> = rates
        .iter()
        .map(|_| BaseTensor::new(slice(engine, &[1.0]), slice(engine, &[0.5])))
        .collect();
    let mut encoder = engine.device().create_command_encoder(&Default::default());
    let step =
        engine.base_step(&mut encoder, &sgd(), rates, GradientOptions::default(), &tensors)?;
    engine.queue().submit([encoder.finish()]);
    let read = |tensor: &BaseTensor| {
        engine.read_buffer(&tensor.weight.buffer).map(|bytes| bytemuck::pod_read_unaligned(&bytes))
    };
    Ok((tensors.iter().map(read).collect::<Result<_, _>>()?, step.stats()))
}

pub(crate) fn rates(gpu: &Gpu) -> Result<(), String> {
    let engine = engine(gpu)?;
    let rates = [0.25, 0.5, 0.25, -1.0, 0.0];
    let (got, _) = base_steps(&engine, &rates).map_err(|error| error.to_string())?;
    let want: Vec<_> = rates.iter().map(|lr| (1.0 - lr * 0.5) as f32).collect();
    if got != want {
        return Err(format!("{got:?} for {want:?}"));
    }
    match base_steps(&engine, &[0.1, f64::NAN]) {
        Err(EngineError::Hyperparameter(InvalidHyperparameter { name: "lr", .. })) => {}
        other => return Err(format!("a rate of NaN: {other:?}")),
    }
    let tensor = AscentTensor::new(
        slice(&engine, &[1.0]),
        slice(&engine, &[1.0]),
        Placement::OutOfPlace(slice(&engine, &[1.0])),
    );
    let mut encoder = engine.device().create_command_encoder(&Default::default());
    let ascent = engine.ascent(&mut encoder, &sgd(), AscentOptions::default(), &[tensor]);
    let ascent = ascent.map_err(|error| error.to_string())?;
    let blend = BlendSource::Method;
    let rates: &[f64] = &[0.1, 0.1];
    match engine.descent(&mut encoder, &sgd(), rates, blend, &ascent, &[]) {
        Err(EngineError::RateCount { rates: 2, tensors: 0 }) => Ok(()),
        other => Err(format!("two rates for nothing: {other:?}")),
    }
}

pub(crate) fn many_kinds(gpu: &Gpu) -> Result<(), String> {
    let engine = engine(gpu)?;
    let rates: Vec<f64> = (0..150).map(|i| f64::from(i) / 128.0).collect();
    let (got, stats) = base_steps(&engine, &rates).map_err(|error| error.to_string())?;
    let want: Vec<_> = rates.iter().map(|lr| (1.0 - lr * 0.5) as f32).collect();
    if got != want {
        return Err(format!("{got:?} for {want:?}"));
    }
    // Each tensor has buffers of its own, so frames decide; a page of 64 kinds never shares with
    // another.
    if stats.dispatches < 3 {
        return Err(format!("{} dispatches for three pages", stats.dispatches));
    }
    Ok(())
}

/// Slices of one buffer, each on vectors of four.
fn shelves(engine: &Engine, roles: usize, lens: &[usize]) -> impl Fn(usize, usize) -> Slice {
    let room = |len: &usize| len.next_multiple_of(64);
    let row: usize = lens.iter().map(room).sum();
    let whole = slice(engine, &vec![0.5; roles * row]);
    let starts: Vec<usize> = lens
        .iter()
        .scan(0, |end, len| {
            *end += room(len);
            Some(*end - room(len))
        })
        .collect();
    let lens = lens.to_vec();
    move |role, tensor| {
        Slice::new(&whole.buffer, lens[tensor] as u64).at(4 * (role * row + starts[tensor]) as u64)
    }
}

/// What a lean ascent costs with tensors of these groups.
fn cost(engine: &Engine, hyper: &Hyperparameters, of: &[usize]) -> Result<StepStats, EngineError> {
    let lens = [1000, 200, 300, 500];
    let at = shelves(engine, 5, &lens);
    let moved = |i: usize| hyper.in_group(of[i]).is_some_and(|group| group.perturbed);
    let tensors: Vec<_> = (0..lens.len())
        .map(|i| {
            LeanAscentTensor::new(at(0, i), at(2, i), moved(i).then(|| at(3, i)))
                .with_anchor(at(1, i))
                .with_state(vec![at(4, i)], 3)
                .in_group(of[i])
        })
        .collect();
    let mut encoder = engine.device().create_command_encoder(&Default::default());
    Ok(engine.lean_ascent(&mut encoder, hyper, 0.1, GradientOptions::default(), &tensors)?.stats())
}

/// What an ascent costs with tensors of these groups.
fn ascent_cost(
    engine: &Engine,
    hyper: &Hyperparameters,
    of: &[usize],
) -> Result<StepStats, EngineError> {
    let lens = [1000, 200, 300, 500];
    let at = shelves(engine, 3, &lens);
    let moved = |i: usize| hyper.in_group(of[i]).is_some_and(|group| group.perturbed);
    let tensors: Vec<_> = (0..lens.len())
        .map(|i| {
            AscentTensor::new(
                at(0, i),
                at(1, i),
                Placed::OutOfPlace.with(moved(i).then(|| at(2, i))),
            )
            .in_group(of[i])
        })
        .collect();
    let mut encoder = engine.device().create_command_encoder(&Default::default());
    Ok(engine.ascent(&mut encoder, hyper, AscentOptions::default(), &tensors)?.stats())
}

pub(crate) fn counts(gpu: &Gpu) -> Result<(), String> {
    let engine = engine(gpu)?;
    // With a look at its `g`, what is not perturbed would cost 4 bytes all the same.
    let plain = propagating(sgd_momentum());
    let grouped = Hyperparameters { groups: all_ways(), ..plain.clone() };
    let text = |error: EngineError| error.to_string();
    // Tensors of 1000, 200, 300 and 500 elements, the second not perturbed.
    for (of, norm_bytes) in [
        // All in one norm, but for what is not perturbed.
        ([1, 5, 2, 0], 4 * 1800),
        // The third reads its weights for the norm as well.
        ([1, 5, 3, 4], 4 * 1800 + 4 * 300),
    ] {
        let want = ascent_cost(&engine, &plain, &[0; 4]).map_err(text)?;
        let got = ascent_cost(&engine, &grouped, &of).map_err(text)?;
        let bytes = (norm_bytes + 8 * 1800, 4 * 1800, 4 * 1800);
        let found = (got.bytes_read, got.bytes_written, got.extra_bytes);
        if got.dispatches != want.dispatches || found != bytes {
            return Err(format!("{of:?}: {got:?}; wanted {bytes:?}"));
        }
    }
    // Lean: w, g and a state are read and a state and u written of all, w + e_w of three.
    let of = [1, 0, 5, 2];
    let want = cost(&engine, &plain, &[0; 4]).map_err(text)?;
    let got = cost(&engine, &grouped, &of).map_err(text)?;
    let bytes = (4 * 1700 + 12 * 2000, 8 * 2000 + 4 * 1700);
    // What has no partner lies in another frame, not in another dispatch.
    if got.dispatches > want.dispatches + 1 || (got.bytes_read, got.bytes_written) != bytes {
        return Err(format!(
            "lean {of:?}: {got:?}; wanted {bytes:?} and {} dispatches",
            want.dispatches
        ));
    }
    Ok(())
}

pub(crate) fn refused(gpu: &Gpu) -> Result<(), String> {
    let engine = engine(gpu)?;
    let grouped = Hyperparameters { groups: all_ways(), ..sgd() };
    let ascend = |group, partner: bool| {
        let tensor = AscentTensor::new(
            slice(&engine, &[1.0]),
            slice(&engine, &[1.0]),
            Placed::OutOfPlace.with(partner.then(|| slice(&engine, &[1.0]))),
        )
        .in_group(group);
        let mut encoder = engine.device().create_command_encoder(&Default::default());
        engine.ascent(&mut encoder, &grouped, AscentOptions::default(), &[tensor]).map(|_| ())
    };
    ascend(1, true).map_err(|error| error.to_string())?;
    ascend(5, false).map_err(|error| error.to_string())?;
    match ascend(7, true) {
        Err(EngineError::Group { tensor: 0, group: 7, groups: 6 }) => {}
        other => return Err(format!("a group that is not there: {other:?}")),
    }
    for (group, given) in [(1, false), (5, true)] {
        match ascend(group, given) {
            Err(EngineError::Placement { tensor: 0, given: found }) if found == given => {}
            other => return Err(format!("a partner {given} in group {group}: {other:?}")),
        }
    }
    Ok(())
}
