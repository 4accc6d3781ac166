//! Half precision: every rounding bit for bit, steps against the oracle, counted costs and invalid slices.

use super::*;
use burn_wsam::engine::{
    AscentOptions, AscentTensor, BaseTensor, EngineError, Format, Role, Rounding, Slice,
};
use burn_wsam_support::engine_route::{engine, read, slice};
use burn_wsam_support::formats::{FORMATS, decode, encode, upload};
use burn_wsam_support::gpu::Gpu;
use burn_wsam_support::half_model::{Model, round_trip};

/// Takes a step of SGD at a learning rate of 1.
fn step_from(
    engine: &Engine,
    weight: &Slice,
    master: Option<&Slice>,
    grad: &Slice,
) -> Result<(), String> {
    let tensor = BaseTensor::new(weight.clone(), grad.clone()).with_master(master.cloned());
    let mut encoder = engine.device().create_command_encoder(&Default::default());
    engine
        .base_step(&mut encoder, &sgd(), 1.0, GradientOptions::default(), &[tensor])
        .map_err(|error| error.to_string())?;
    engine.queue().submit([encoder.finish()]);
    Ok(())
}

/// Every finite half-precision value, as a weight with a zero gradient and as a gradient of a zero weight, gives the
/// exact result. Subnormal bf16 are excluded: they are subnormal f32, which an adapter may flush to zero.
pub(crate) fn every_value(gpu: &Gpu) -> Result<(), String> {
    let engine = engine(gpu)?;
    for format in FORMATS {
        let is_normal_or_zero = |bits: &u16| {
            let value = decode(format, *bits) as f32;
            value.is_finite() && !value.is_subnormal()
        };
        let all: Vec<u16> = (0..=u16::MAX).filter(is_normal_or_zero).collect();
        let zeros = vec![0; all.len()];
        let [weight, zero_grad] = [&all, &zeros].map(|bits| upload(&engine, format, bits));
        step_from(&engine, &weight, None, &zero_grad)?;
        same(format, "weights", &round_trip(&engine, &weight)?, &all)?;

        let [weight, grad] = [&zeros, &all].map(|bits| upload(&engine, format, bits));
        step_from(&engine, &weight, None, &grad)?;
        let negated = all.iter().map(|bits| if bits & 0x7fff == 0 { 0 } else { bits ^ 0x8000 });
        let negated: Vec<u16> = negated.collect();
        same(format, "gradients", &round_trip(&engine, &weight)?, &negated)?;
    }
    Ok(())
}

fn same(format: Format, what: &str, got: &[u16], want: &[u16]) -> Result<(), String> {
    match got.iter().zip(want).position(|(got, want)| got != want) {
        None if got.len() == want.len() => Ok(()),
        at => {
            let bits = at.map(|at| (format!("{:#06x}", got[at]), format!("{:#06x}", want[at])));
            Err(format!("{format:?}, {what}: {bits:?} at {at:?}"))
        }
    }
}

/// Master weights at, between and next to all half-precision values are rounded like in the `half` crate.
pub(crate) fn every_rounding(gpu: &Gpu) -> Result<(), String> {
    let engine = engine(gpu)?;
    for format in FORMATS {
        let mut masters = Vec::new();
        for bits in 0..0x7fffu16 {
            let (half, next) = (decode(format, bits), decode(format, bits + 1));
            if !half.is_finite() {
                break;
            }
            // After the largest value, the one that would follow it without overflow.
            let next = if next.is_finite() { next } else { 2.0 * half - decode(format, bits - 1) };
            let middle = ((half + next) / 2.0) as f32;
            masters.extend([half as f32, middle, middle.next_up(), middle.next_down()]);
        }
        masters.extend(noise(1, 4000).iter().map(|x| (x * 1e5) as f32));
        masters.extend(noise(2, 4000).iter().map(|x| (x * 1e-7) as f32));
        masters.retain(|x| !x.is_subnormal());
        masters.extend(masters.clone().iter().map(|x| -x));
        masters.resize(masters.len().next_multiple_of(4), 1.0);
        let master = slice(&engine, &masters);
        let zeros = upload(&engine, format, &vec![0; masters.len()]);
        let weight = upload(&engine, format, &vec![0x1234; masters.len()]);
        step_from(&engine, &weight, Some(&master), &zeros)?;
        let kept = read(&engine, &master).map_err(|error| error.to_string())?;
        if kept.iter().zip(&masters).any(|(kept, master)| kept.to_bits() != master.to_bits()) {
            return Err(format!("{format:?}: master weights changed"));
        }
        let want: Vec<u16> = masters.iter().map(|x| encode(format, f64::from(*x))).collect();
        same(format, "copies", &round_trip(&engine, &weight)?, &want)?;
    }
    Ok(())
}

const LENS: [usize; 6] = [1, 3, 4, 5, 1000, 4099];

/// Half an ulp of the format, plus the rounding of f32.
fn half_ulp(format: Format) -> Tolerance {
    let rtol = if format == Format::F16 { 2f64.powi(-11) } else { 2f64.powi(-8) };
    Tolerance { rtol: 1.001 * rtol, atol: 2e-6, share: 4e-6 }
}

fn rounded(format: Format, tensors: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    let round = |x: &f64| decode(format, encode(format, *x));
    tensors.iter().map(|tensor| tensor.iter().map(round).collect()).collect()
}

/// Four steps with master weights and one step without match the oracle. Without them the weights are rounded
/// after each step, so later steps would differ.
pub(crate) fn match_oracle(gpu: &Gpu) -> Result<(), String> {
    let engine = engine(gpu)?;
    for format in FORMATS {
        for hyper in [sgd(), sgd_momentum(), adamw(), amsgrad()] {
            for placement in [Placed::OutOfPlace, Placed::InPlace] {
                for master in [true, false] {
                    let place = |error| {
                        format!("{format:?}, {:?}, {placement:?}, {master}: {error}", hyper.base)
                    };
                    let mut weights = model(1, &LENS);
                    if !master {
                        weights = rounded(format, weights);
                    }
                    let model = Model::new(&engine, &hyper, format, master, &weights)?;
                    let steps = if master { 4 } else { 1 };
                    follow(model.placed(placement), &hyper, weights, steps).map_err(place)?;
                }
            }
        }
    }
    Ok(())
}

fn follow(
    mut route: Model,
    hyper: &Hyperparameters,
    weights: Vec<Vec<f64>>,
    steps: u64,
) -> Result<(), String> {
    let format = route.format;
    let mut oracle = OracleRoute::new(hyper.clone(), weights);
    let mut worst = Worst::default();
    for step in 0..steps {
        let grads = [100, 200].map(|seed| rounded(format, model(seed + step, &LENS)));
        let [grad, grad_perturbed] = grads;
        let mut check = |what, got: &[Vec<f64>], want: &[Vec<f64>], tolerance| {
            compare(step as usize, what, got, want, tolerance, &mut worst)
        };
        let got = route.ascend(&grad, Rounding::Nearest)?;
        check("perturbed", &got, &oracle.ascend(&grad)?, half_ulp(format))?;
        route.descend(0.01, &grad_perturbed)?;
        let want = oracle.descend(0.01, &grad_perturbed)?;
        check("weight", &route.weights()?, &want, half_ulp(format))?;
        if let Some(masters) = route.masters()? {
            check("master", &masters, &want, tolerance(hyper))?;
            if rounded(format, masters) != route.weights()? {
                return Err("weights are not the rounded master weights".to_owned());
            }
        }
        for (got, want) in route.state()?.iter().zip(&oracle.state()?) {
            check("state", got, want, SINGLE)?;
        }
    }
    Ok(())
}

/// An ascent over tensors of all three formats takes one norm over all, and perturbs each in its own format.
pub(crate) fn mixed(gpu: &Gpu) -> Result<(), String> {
    let engine = engine(gpu)?;
    let formats = [Format::F32, Format::F16, Format::Bf16];
    let (lens, hyper) = ([300, 402, 503], Hyperparameters { rho: 2.0, ..sgd() });
    let values = |seed| -> Vec<Vec<f64>> {
        let each = model(seed, &lens).into_iter().zip(formats);
        each.flat_map(|(tensor, format)| match format {
            Format::F32 => vec![tensor],
            half => rounded(half, vec![tensor]),
        })
        .collect()
    };
    let (weights, grads) = (values(1), values(2));
    let put = |tensor: &Vec<f64>, format| match format {
        Format::F32 => slice(&engine, &tensor.iter().map(|x| *x as f32).collect::<Vec<_>>()),
        half => upload(&engine, half, &tensor.iter().map(|x| encode(half, *x)).collect::<Vec<_>>()),
    };
    let tensors: Vec<_> = (0..3)
        .map(|i| {
            AscentTensor::new(
                put(&weights[i], formats[i]),
                put(&grads[i], formats[i]),
                Placement::OutOfPlace(put(&vec![0.0; lens[i]], formats[i])),
            )
        })
        .collect();
    let mut encoder = engine.device().create_command_encoder(&Default::default());
    let ascent = engine
        .ascent(&mut encoder, &hyper, AscentOptions::default(), &tensors)
        .map_err(|error| error.to_string())?;
    engine.queue().submit([encoder.finish()]);
    // norm and ascent for each format. On Vulkan norm includes norm_finish, elsewhere that is one more dispatch.
    let is_vulkan = gpu.adapter.get_info().backend == wgpu::Backend::Vulkan;
    if ascent.stats().dispatches != if is_vulkan { 6 } else { 7 } {
        return Err(format!("{} dispatches", ascent.stats().dispatches));
    }
    let want = OracleRoute::new(hyper, weights).ascend(&grads)?;
    let mut worst = Worst::default();
    for (i, format) in formats.into_iter().enumerate() {
        let Placement::OutOfPlace(partner) = &tensors[i].perturbed else {
            return Err("out of place".to_owned());
        };
        let (got, tolerance) = match format {
            Format::F32 => {
                let found = read(&engine, partner).map_err(|error| error.to_string())?;
                (found.into_iter().map(f64::from).collect(), SINGLE)
            }
            half => {
                let bits = round_trip(&engine, partner)?;
                (bits.iter().map(|bits| decode(half, *bits)).collect(), half_ulp(half))
            }
        };
        compare(0, "perturbed", &[got], &want[i..=i], tolerance, &mut worst)?;
    }
    Ok(())
}

/// Stochastic rounding chooses one of the two neighbours and is right on average. The same seed gives the same bits
/// under every tuning.
pub(crate) fn stochastic_rounding(gpu: &Gpu) -> Result<(), String> {
    let engine = engine(gpu)?;
    let other = changed(engine.tuning(), |it| {
        it.chunk_len = 16;
        it.workgroup = 16;
    });
    let other = changed(other, |it| it.max_norm_chunk_len = 4096);
    let other = Engine::with_tuning(engine.device(), engine.queue(), other);
    let other = Arc::new(other.map_err(|error| error.to_string())?);
    for format in FORMATS {
        let weights = rounded(format, model(1, &LENS));
        let grad = rounded(format, model(2, &LENS));
        let hyper = Hyperparameters { rho: 1.0, ..sgd() };
        let exact = OracleRoute::new(hyper.clone(), weights.clone()).ascend(&grad)?;
        let ascended = |engine: &Arc<Engine>, placement, rounding| {
            let model = Model::new(engine, &hyper, format, false, &weights)?;
            model.placed(placement).ascend(&grad, rounding)
        };
        let out = Placed::OutOfPlace;
        let seeds = 100;
        let mut sums: Vec<Vec<f64>> = weights.iter().map(|w| vec![0.0; w.len()]).collect();
        for seed in 0..seeds {
            let rounding = Rounding::Stochastic { seed };
            let got = ascended(&engine, out, rounding)?;
            for (tensor, (got, exact)) in got.iter().zip(&exact).enumerate() {
                for (i, (got, exact)) in got.iter().zip(exact).enumerate() {
                    sums[tensor][i] += got - exact;
                    if (got - exact).abs() > 1.001 * ulp_at(format, *exact) {
                        return Err(format!("{format:?}: {exact} became {got}"));
                    }
                }
            }
            if seed == 7 {
                let again = ascended(&engine, out, rounding)?;
                let cut = ascended(&other, out, rounding)?;
                let in_place = ascended(&engine, Placed::InPlace, rounding)?;
                if [&again, &cut, &in_place].iter().any(|same| **same != got) {
                    return Err(format!("{format:?}: one seed, different bits"));
                }
                if ascended(&engine, out, Rounding::Stochastic { seed: 7 << 32 })? == got {
                    return Err(format!("{format:?}: the seed's upper 32 bits have no effect"));
                }
            }
        }
        // The error is at most one ulp. The mean over all seeds lies within six standard deviations.
        let deviations = sums.iter().zip(&exact).flat_map(|(sums, exact)| {
            sums.iter().zip(exact).map(|(sum, exact)| {
                sum / seeds as f64 / (ulp_at(format, *exact) / 2.0 / (seeds as f64).sqrt())
            })
        });
        let (mut largest, mut square, mut count) = (0f64, 0.0, 0.0);
        for deviation in deviations {
            largest = largest.max(deviation.abs());
            square += deviation * deviation;
            count += 1.0;
        }
        // With probabilities uniform in [0, 1], the mean variance is two thirds of the largest.
        if !(largest < 6.0 && (0.6..0.73).contains(&(square / count))) {
            return Err(format!("{format:?}: {largest} deviations, {} on average", square / count));
        }
    }
    Ok(())
}

/// The ulp of the format at `x`.
fn ulp_at(format: Format, x: f64) -> f64 {
    let (digits, least) = if format == Format::F16 { (10, -14) } else { (7, -126) };
    let exponent = x.abs().log2().floor().max(f64::from(least));
    (exponent - f64::from(digits)).exp2()
}

/// A step over one non-finite element leaves the bits of weights, master weights and states as they are.
pub(crate) fn skipped(gpu: &Gpu) -> Result<(), String> {
    let engine = engine(gpu)?;
    for format in FORMATS {
        for (placement, master) in [(Placed::OutOfPlace, false), (Placed::InPlace, true)] {
            for bad in [f64::NAN, f64::INFINITY] {
                let hyper = sgd_momentum();
                let weights = model(1, &LENS);
                let mut route = Model::new(&engine, &hyper, format, master, &weights)?;
                route = route.placed(placement);
                let seen = |route: &Model| {
                    Ok::<_, String>((route.weights()?, route.masters()?, route.state()?))
                };
                route.ascend(&rounded(format, model(3, &LENS)), Rounding::Nearest)?;
                route.descend(0.1, &rounded(format, model(4, &LENS)))?;
                let before = seen(&route)?;
                let mut grads = [5, 6].map(|seed| rounded(format, model(seed, &LENS)));
                for pass in 0..2 {
                    let [grad, perturbed] = &mut grads;
                    let kept = [grad, perturbed].map(|grads| grads[5][4098]);
                    grads[pass][5][4098] = bad;
                    route.ascend(&grads[0], Rounding::Nearest)?;
                    route.descend(0.1, &grads[1])?;
                    grads[pass][5][4098] = kept[pass];
                    if seen(&route)? != before {
                        return Err(format!(
                            "{format:?}, {placement:?}, {bad}: the skipped step changed something"
                        ));
                    }
                }
            }
        }
    }
    Ok(())
}

/// Each access of a weight or gradient moves two bytes, of a state or master weight four.
pub(crate) fn counts(gpu: &Gpu) -> Result<(), String> {
    let engine = engine(gpu)?;
    let hyper = propagating(adamw());
    let elements: u64 = LENS.iter().map(|len| *len as u64).sum();
    // norm: g; ascent: w g -> partner; descent: w g g~ m v -> w m v. With master weights, w and the master.
    let plain = 2 + 3 * 2 + (3 * 2 + 8) + (2 + 8);
    let master = 2 + (4 + 2 + 2) + (4 + 2 * 2 + 8) + (2 + 4 + 8);
    for (has_master, want) in [(false, plain), (true, master)] {
        let mut route = Model::new(&engine, &hyper, Format::F16, has_master, &model(1, &LENS))?;
        route.ascend(&model(2, &LENS), Rounding::Nearest)?;
        route.descend(0.1, &model(3, &LENS))?;
        let stats = route.stats;
        if (stats.bytes(), stats.extra_bytes) != (want * elements, 2 * elements) {
            return Err(format!("{stats:?}, but {want} bytes a parameter"));
        }
    }
    Ok(())
}

pub(crate) fn refused(gpu: &Gpu) -> Result<(), String> {
    let engine = engine(gpu)?;
    let half = |len: usize| upload(&engine, Format::F16, &vec![0; len]);
    let single = |len: usize| slice(&engine, &vec![0.0; len]);
    let good = || AscentTensor::new(half(5), half(5), Placement::OutOfPlace(half(5)));
    let ascend = |tensor: AscentTensor, placed| {
        let mut encoder = engine.device().create_command_encoder(&Default::default());
        let options = AscentOptions::default();
        let tensor = replaced(tensor, placed);
        engine.ascent(&mut encoder, &sgd(), options, &[tensor]).map(|ascent| ascent.stats())
    };
    let (out, inside) = (Placed::OutOfPlace, Placed::InPlace);
    for placement in [out, inside] {
        ascend(good(), placement).map_err(|error| error.to_string())?;
    }
    let wrong =
        |role, found| Err(EngineError::Format { tensor: 0, role, found, expected: Format::F16 });
    let moved = |offset| half(16).at(offset);
    let short = engine.device().create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 12,
        usage: wgpu::BufferUsages::STORAGE,
        mapped_at_creation: false,
    });
    let short = Slice::new(&short, 5).with_format(Format::F16);
    let bf16 = half(5).with_format(Format::Bf16);
    let misaligned = |role, offset, alignment| {
        Err(EngineError::Misaligned { tensor: 0, role, offset, alignment })
    };
    let shifted = |offset| moved(offset).at(offset).with_len(5);
    let odd_master = single(16).at(8).with_len(5);
    for (what, tensor, placement, want) in [
        (
            "a gradient in f32",
            changed(good(), |it| it.grad = single(5)),
            out,
            wrong(Role::Grad, Format::F32),
        ),
        (
            "bf16 beside f16",
            changed(good(), |it| it.grad = bf16),
            out,
            wrong(Role::Grad, Format::Bf16),
        ),
        (
            "a partner in f32",
            changed(good(), |it| it.perturbed = Placement::OutOfPlace(single(5))),
            out,
            wrong(Role::Perturbed, Format::F32),
        ),
        (
            "a master to be written",
            changed(good(), |it| it.weight = single(5)),
            inside,
            wrong(Role::Weight, Format::F32),
        ),
        (
            "half a vector in",
            changed(good(), |it| it.grad = shifted(4)),
            out,
            misaligned(Role::Grad, 4, 8),
        ),
        (
            "half a vector of a master",
            changed(good(), |it| it.master = Some(odd_master)),
            out,
            misaligned(Role::Master, 8, 16),
        ),
        (
            "no room for the last vector",
            changed(good(), |it| it.grad = short),
            out,
            Err(EngineError::OutOfBounds { tensor: 0, role: Role::Grad, end: 16, size: 12 }),
        ),
    ] {
        let got = ascend(tensor, placement);
        if got != want {
            return Err(format!("{what}: {got:?}"));
        }
    }
    Ok(())
}
