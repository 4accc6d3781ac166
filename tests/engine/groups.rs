//! Parameter groups, learning rates by tensor, and the constants table with one row for each kind.

use super::*;
use burn_wsam::engine::{
    AscentOptions, AscentTensor, BaseTensor, BlendSource, EngineError, LeanAscentTensor, Slice,
    StepStats,
};
use burn_wsam::method::{Clip, ClipScope, Group, InvalidHyperparameter, NormScope};
use burn_wsam::reference::Oracle;
use burn_wsam_support::engine_route::{engine, slice};
use burn_wsam_support::gpu::Gpu;
use burn_wsam_support::lean_route::LeanRoute;

/// Groups that together override every setting.
pub(crate) fn all_overrides() -> Vec<Group> {
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

/// An engine whose dispatches use at most two buffer sets. Tensors have their own buffers here, and shaders with
/// sixteen buffer sets take long to compile.
pub(crate) fn engine_of_few_frames(gpu: &Gpu) -> Result<Arc<Engine>, String> {
    let engine = engine(gpu)?;
    let tuning = changed(engine.tuning(), |it| it.max_buffer_sets = 2);
    let engine = Engine::with_tuning(engine.device(), engine.queue(), tuning);
    Ok(Arc::new(engine.map_err(|error| error.to_string())?))
}

pub(crate) fn match_oracle(gpu: &Gpu) -> Result<(), String> {
    let engine = engine_of_few_frames(gpu)?;
    let weight = model(1, &LENS);
    let clip = Some(Clip { max_norm: 0.5, scope: ClipScope::Both });
    for base in [sgd(), sgd_momentum(), adamw(), amsgrad()] {
        for (coupling, clip, adaptive) in
            [(Coupling::Coupled, None, false), (Coupling::Decoupled, clip, true)]
        {
            let groups = all_overrides();
            let hyper = Hyperparameters { coupling, clip, adaptive, groups, ..base.clone() };
            let oracle = || {
                let oracle = Oracle::with_groups(hyper.clone(), weight.clone(), &OF);
                oracle.map(OracleRoute).map_err(|error| error.to_string())
            };
            for placement in [Placed::OutOfPlace, Placed::InPlace] {
                let route = EngineRoute::new(&engine, hyper.clone(), placement, &weight);
                let mut route = route.with_groups(&OF);
                compare_steps(&hyper, &mut route, &mut oracle()?, &LENS, 2)?;
            }
            if coupling == Coupling::Decoupled {
                let route = LeanRoute::new(&engine, hyper.clone(), 0.01, &weight);
                let mut route = route.with_groups(&OF);
                compare_steps(&hyper, &mut route, &mut oracle()?, &LENS, 2)
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
        return Err(format!("{got:?}, expected {want:?}"));
    }
    match base_steps(&engine, &[0.1, f64::NAN]) {
        Err(EngineError::Hyperparameter(InvalidHyperparameter { name: "lr", .. })) => {}
        other => return Err(format!("a learning rate of NaN: {other:?}")),
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
        other => Err(format!("two learning rates for no tensors: {other:?}")),
    }
}

pub(crate) fn many_kinds(gpu: &Gpu) -> Result<(), String> {
    let engine = engine(gpu)?;
    let rates: Vec<f64> = (0..150).map(|i| f64::from(i) / 128.0).collect();
    let (got, stats) = base_steps(&engine, &rates).map_err(|error| error.to_string())?;
    let want: Vec<_> = rates.iter().map(|lr| (1.0 - lr * 0.5) as f32).collect();
    if got != want {
        return Err(format!("{got:?}, expected {want:?}"));
    }
    // Each tensor has its own buffers, so the number of buffer sets decides. Two pages of 64 classes never
    // share a dispatch.
    if stats.dispatches < 3 {
        return Err(format!("{} dispatches for three pages", stats.dispatches));
    }
    Ok(())
}

/// Slices of one buffer for each role and tensor, aligned to vectors of four.
fn slices_of_one_buffer(
    engine: &Engine,
    roles: usize,
    lens: &[usize],
) -> impl Fn(usize, usize) -> Slice {
    let padded = |len: &usize| len.next_multiple_of(64);
    let row: usize = lens.iter().map(padded).sum();
    let whole = slice(engine, &vec![0.5; roles * row]);
    let starts: Vec<usize> = lens
        .iter()
        .scan(0, |end, len| {
            *end += padded(len);
            Some(*end - padded(len))
        })
        .collect();
    let lens = lens.to_vec();
    move |role, tensor| {
        Slice::new(&whole.buffer, lens[tensor] as u64).at(4 * (role * row + starts[tensor]) as u64)
    }
}

/// Costs of a lean ascent with tensors of these groups.
fn lean_ascent_cost(
    engine: &Engine,
    hyper: &Hyperparameters,
    of: &[usize],
) -> Result<StepStats, EngineError> {
    let lens = [1000, 200, 300, 500];
    let at = slices_of_one_buffer(engine, 5, &lens);
    let is_perturbed = |i: usize| hyper.in_group(of[i]).is_some_and(|group| group.perturbed);
    let tensors: Vec<_> = (0..lens.len())
        .map(|i| {
            LeanAscentTensor::new(at(0, i), at(2, i), is_perturbed(i).then(|| at(3, i)))
                .with_anchor(at(1, i))
                .with_state(vec![at(4, i)], 3)
                .in_group(of[i])
        })
        .collect();
    let mut encoder = engine.device().create_command_encoder(&Default::default());
    Ok(engine.lean_ascent(&mut encoder, hyper, 0.1, GradientOptions::default(), &tensors)?.stats())
}

/// Costs of an ascent with tensors of these groups.
fn ascent_cost(
    engine: &Engine,
    hyper: &Hyperparameters,
    of: &[usize],
) -> Result<StepStats, EngineError> {
    let lens = [1000, 200, 300, 500];
    let at = slices_of_one_buffer(engine, 3, &lens);
    let is_perturbed = |i: usize| hyper.in_group(of[i]).is_some_and(|group| group.perturbed);
    let tensors: Vec<_> = (0..lens.len())
        .map(|i| {
            AscentTensor::new(
                at(0, i),
                at(1, i),
                Placed::OutOfPlace.with(is_perturbed(i).then(|| at(2, i))),
            )
            .in_group(of[i])
        })
        .collect();
    let mut encoder = engine.device().create_command_encoder(&Default::default());
    Ok(engine.ascent(&mut encoder, hyper, AscentOptions::default(), &tensors)?.stats())
}

pub(crate) fn counts(gpu: &Gpu) -> Result<(), String> {
    let engine = engine(gpu)?;
    // A check of `g` would read the unperturbed tensor's gradient, 4 bytes an element.
    let plain = propagating(sgd_momentum());
    let grouped = Hyperparameters { groups: all_overrides(), ..plain.clone() };
    let text = |error: EngineError| error.to_string();
    // Tensors of 1000, 200, 300 and 500 elements, the second not perturbed.
    for (of, norm_bytes) in [
        // All but the unperturbed tensor are in one norm.
        ([1, 5, 2, 0], 4 * 1800),
        // The norm reads the weights of the third tensor as well.
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
    // Lean: all tensors read w, g and a state and write a state and u; three write w + e_w.
    let of = [1, 0, 5, 2];
    let want = lean_ascent_cost(&engine, &plain, &[0; 4]).map_err(text)?;
    let got = lean_ascent_cost(&engine, &grouped, &of).map_err(text)?;
    let bytes = (4 * 1700 + 12 * 2000, 8 * 2000 + 4 * 1700);
    // The tensor without a partner takes another frame, not another dispatch.
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
    let grouped = Hyperparameters { groups: all_overrides(), ..sgd() };
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
        other => return Err(format!("a nonexistent group: {other:?}")),
    }
    for (group, given) in [(1, false), (5, true)] {
        match ascend(group, given) {
            Err(EngineError::Placement { tensor: 0, given: found }) if found == given => {}
            other => return Err(format!("a partner {given} in group {group}: {other:?}")),
        }
    }
    Ok(())
}
