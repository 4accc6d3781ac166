//! Chunk lengths and counts of partial sums at the limit on loop iterations of one invocation: llvmpipe exits
//! loops silently after 65,535 iterations of all loops together.

use super::*;
use burn_wsam::engine::{AscentOptions, AscentTensor, EngineError, Tuning};
use burn_wsam::layout::{Norms, WORKGROUPS};
use burn_wsam::method::{Clip, ClipScope};
use burn_wsam_support::engine_route::{engine, slice};
use burn_wsam_support::golden::{narrow, widen};
use burn_wsam_support::gpu::Gpu;
use burn_wsam_support::lean_route::LeanRoute;

fn tuning(workgroup: u32, chunk_len: u32, max_buffer_sets: u32) -> Tuning {
    let (max_norm_chunk_len, partials_by_lane) = (chunk_len, false);
    changed(Tuning::default(), |it| {
        it.workgroup = workgroup;
        it.chunk_len = chunk_len;
        it.max_norm_chunk_len = max_norm_chunk_len;
        it.partials_by_lane = partials_by_lane;
        it.max_buffer_sets = max_buffer_sets;
    })
}

fn tuned(gpu: &Gpu, tuning: Tuning) -> Result<Arc<Engine>, String> {
    let default_engine = engine(gpu)?;
    let made = Engine::with_tuning(default_engine.device(), default_engine.queue(), tuning);
    made.map(Arc::new).map_err(|error| error.to_string())
}

/// A chunk 4 elements above the longest is refused, with field, value and allowed range.
pub(crate) fn refused(gpu: &Gpu) -> Result<(), String> {
    let default_engine = engine(gpu)?;
    let (device, queue) = (default_engine.device(), default_engine.queue());
    let found = |tuning| Engine::with_tuning(device, queue, tuning).map(|_| ());
    for workgroup in WORKGROUPS {
        for max_buffer_sets in [1, 16] {
            let longest = tuning(workgroup, 4, max_buffer_sets).longest_chunk();
            let at = tuning(workgroup, longest, max_buffer_sets);
            found(at).map_err(|error| format!("{at:?}: {error}"))?;
            if longest == 1 << 24 {
                continue;
            }
            let too_long = |chunk_len| {
                changed(at, |it| {
                    it.chunk_len = chunk_len;
                    it.max_norm_chunk_len = longest + 4;
                })
            };
            for (name, tuning) in
                [("chunk_len", too_long(longest + 4)), ("max_norm_chunk_len", too_long(4))]
            {
                match found(tuning) {
                    Err(EngineError::Tuning { name: field, value, expected })
                        if field == name
                            && value == u64::from(longest) + 4
                            && expected.contains(&longest.to_string()) => {}
                    other => return Err(format!("{tuning:?}: {other:?}")),
                }
            }
        }
    }
    // On llvmpipe each of these tunings would leave some elements unchanged.
    for (workgroup, log) in [(8, 22), (8, 21), (16, 22), (64, 24)] {
        match found(tuning(workgroup, 1 << log, 16)) {
            Err(EngineError::Tuning { name: "chunk_len", .. }) => {}
            other => return Err(format!("{workgroup} with 2^{log}: {other:?}")),
        }
    }
    Ok(())
}

/// The longest chunk in every kernel, wide and narrow, in the first and the last of many buffer sets.
pub(crate) fn longest_chunks(gpu: &Gpu) -> Result<(), String> {
    let clip = Some(Clip { max_norm: 0.5, scope: ClipScope::Both });
    for (workgroup, buffer_sets) in [(8, 1), (8, 16), (16, 16)] {
        let longest = tuning(workgroup, 4, buffer_sets).longest_chunk();
        let engine = tuned(gpu, tuning(workgroup, longest, buffer_sets))?;
        let len = longest as usize;
        // With as many buffers as buffer sets, the loops of the last set run after those of all other sets.
        let mut lens = vec![5; buffer_sets as usize];
        lens[buffer_sets as usize - 1] = len;
        let fail =
            |error: String| format!("{workgroup}, {buffer_sets} buffer sets, {len}: {error}");
        against_oracle(&engine, sgd_momentum(), Placed::InPlace, &lens, 1).map_err(fail)?;
        let coupled = Hyperparameters { clip, coupling: Coupling::Coupled, ..sgd_momentum() };
        against_oracle(&engine, coupled, Placed::OutOfPlace, &[len], 2).map_err(fail)?;
        against_oracle(&engine, adamw(), Placed::OutOfPlace, &[len], 2).map_err(fail)?;
        let weight = model(1, &lens);
        let mut lean = LeanRoute::new(&engine, sgd_momentum(), 0.01, &weight);
        let mut oracle = OracleRoute::new(sgd_momentum(), weight);
        compare_steps(&sgd_momentum(), &mut lean, &mut oracle, &lens, 1).map_err(fail)?;
        narrow_tensors(&engine, len).map_err(fail)?;
        extreme_norms(&engine, len).map_err(fail)?;
    }
    Ok(())
}

/// Tensors that start inside a vector use the narrow kernels. Every element is perturbed.
fn narrow_tensors(engine: &Arc<Engine>, len: usize) -> Result<(), String> {
    let at = |values: &[f64]| {
        let mut memory = vec![f32::NAN; 3];
        memory.extend(narrow(values));
        let whole = slice(engine, &memory);
        whole.at(12).with_len(len as u64)
    };
    let (w, g) = (noise(1, len), noise(2, len));
    let tensor = AscentTensor::new(at(&w), at(&g), Placement::OutOfPlace(at(&vec![0.0; len])));
    norms_of(engine, &sgd(), std::slice::from_ref(&tensor))?;
    let Placement::OutOfPlace(partner) = &tensor.perturbed else {
        return Err("no place".to_owned());
    };
    let got = burn_wsam_support::engine_route::read(engine, partner)
        .map_err(|error| error.to_string())?;
    let mut oracle = OracleRoute::new(sgd(), vec![w]);
    let want = oracle.ascend(&[g])?;
    compare(0, "perturbed", &[widen(&got)], &want, SINGLE, &mut Worst::default())
}

/// Gradients whose squares overflow or underflow take a second loop over each vector, for both norms.
fn extreme_norms(engine: &Arc<Engine>, len: usize) -> Result<(), String> {
    let adaptive = true;
    let hyper = Hyperparameters { adaptive, epsilon: 1e-37, ..sgd() };
    for scale in [1e-30, 1e30] {
        let grad: Vec<f32> = noise(5, len).iter().map(|x| ((1.5 + x) * scale) as f32).collect();
        let tensor = AscentTensor::new(
            slice(engine, &vec![0.5; len]),
            slice(engine, &grad),
            Placement::OutOfPlace(slice(engine, &vec![0.0; len])),
        );
        let want = burn_wsam::reference::norm(&[widen(&grad)]);
        let norms = norms_of(engine, &hyper, &[tensor])?;
        near(norms.gradient, want).map_err(|error| format!("{scale}: {error}"))?;
        near(norms.perturbation, want / 2.0).map_err(|error| format!("{scale}: {error}"))?;
    }
    Ok(())
}

fn near(got: f32, want: f64) -> Result<(), String> {
    let right = (f64::from(got) / want - 1.0).abs() <= 1e-6;
    if right { Ok(()) } else { Err(format!("norm {got}, expected {want}")) }
}

fn norms_of(
    engine: &Engine,
    hyper: &Hyperparameters,
    tensors: &[AscentTensor],
) -> Result<Norms, String> {
    let mut encoder = engine.device().create_command_encoder(&Default::default());
    let options = AscentOptions::default().tracking_norms();
    let ascent = engine.ascent(&mut encoder, hyper, options, tensors);
    let ascent = ascent.map_err(|error| error.to_string())?;
    engine.queue().submit([encoder.finish()]);
    engine.read_norms(ascent.norms()).map_err(|error| error.to_string())
}

/// More partial sums than one invocation of `norm_finish` may loop over: chunks of 4 elements, one norm and two
/// norms, a partial sum for each invocation, and many tensors.
pub(crate) fn many_partials(gpu: &Gpu) -> Result<(), String> {
    let engine = tuned(gpu, tuning(8, 4, 1))?;
    // 64,511 partial sums for each of 8 invocations, in 504 blocks, are the most that fit. An earlier version
    // gave a wrong sum from 2,064,864 elements on.
    let fits = 4 * 8 * 64_511;
    for len in [fits, fits + 32, 2_064_868, 4_194_304] {
        let grad: Vec<f32> = noise(5, len).iter().map(|x| (1.5 + x) as f32).collect();
        let want = burn_wsam::reference::norm(&[widen(&grad)]);
        for adaptive in [false, true] {
            let tensor = AscentTensor::new(
                slice(&engine, &vec![0.5; len]),
                slice(&engine, &grad),
                Placement::OutOfPlace(slice(&engine, &vec![0.0; len])),
            );
            let hyper = Hyperparameters { adaptive, ..sgd() };
            let norms = norms_of(&engine, &hyper, &[tensor])?;
            let fail = |error| format!("{len}, adaptive {adaptive}: {error}");
            near(norms.gradient, want).map_err(fail)?;
            let perturbation = if adaptive { want / 2.0 } else { want };
            near(norms.perturbation, perturbation).map_err(fail)?;
        }
    }
    by_lane(gpu)?;
    many_tensors(gpu)
}

/// One partial sum for each invocation, with as many chunks as one `norm_finish` adds for two norms, and more.
fn by_lane(gpu: &Gpu) -> Result<(), String> {
    let engine = tuned(gpu, changed(tuning(8, 2048, 1), |it| it.partials_by_lane = true))?;
    let (len, scale) = (1 << 20, slice(&engine, &vec![0.5; 1 << 20]));
    let grad: Vec<f32> = noise(5, len).iter().map(|x| (1.5 + x) as f32).collect();
    let one = burn_wsam::reference::norm(&[widen(&grad)]);
    let grad = slice(&engine, &grad);
    let unperturbed = burn_wsam::method::Group { perturbed: false, ..Default::default() };
    for (adaptive, tensors) in [(false, 62), (false, 63), (true, 31), (true, 63), (true, 64)] {
        let hyper = Hyperparameters { adaptive, groups: vec![unperturbed], ..sgd() };
        // Only one tensor is perturbed, so the others may share one buffer.
        let tensor = |group| {
            AscentTensor::new(scale.clone(), grad.clone(), Placement::Unperturbed).in_group(group)
        };
        let perturbed = changed(tensor(0), |it| {
            it.perturbed = Placement::OutOfPlace(slice(&engine, &vec![0.0; len]))
        });
        let mut all = vec![tensor(1); tensors - 1];
        all.push(perturbed);
        let norms = norms_of(&engine, &hyper, &all)?;
        let want = one * (tensors as f64).sqrt();
        near(norms.gradient, want).map_err(|error| format!("{tensors} by lane: {error}"))?;
        let perturbation = if adaptive { one / 2.0 } else { one };
        near(norms.perturbation, perturbation)?;
    }
    Ok(())
}

/// 600,000 tensors of one element, which need a chunk each.
fn many_tensors(gpu: &Gpu) -> Result<(), String> {
    let engine = tuned(gpu, changed(tuning(8, 4096, 1), |it| it.max_norm_chunk_len = 4096))?;
    let grad: Vec<f32> = noise(5, 600_000).iter().map(|x| (1.5 + x) as f32).collect();
    let want = burn_wsam::reference::norm(&[widen(&grad)]);
    let whole = slice(&engine, &grad);
    let unperturbed = burn_wsam::method::Group { perturbed: false, ..Default::default() };
    let hyper = Hyperparameters { groups: vec![unperturbed], ..sgd() };
    let tensors: Vec<_> = (0..grad.len() as u64)
        .map(|i| {
            let one = whole.clone().at(4 * i).with_len(1);
            AscentTensor::new(one.clone(), one, Placement::Unperturbed).in_group(1)
        })
        .collect();
    near(norms_of(&engine, &hyper, &tensors)?.gradient, want)
}
