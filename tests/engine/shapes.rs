//! Lengths of tensors, and extreme values.

use super::*;
use burn_wsam::engine::{AscentOptions, AscentTensor};
use burn_wsam::method::Group;
use burn_wsam_support::engine_route::{engine, read, slice};
use burn_wsam_support::gpu::Gpu;

pub(crate) fn lengths(gpu: &Gpu) -> Result<(), String> {
    let engine = engine(gpu)?;
    let lens = [0, 1, 3, 255, 256, 257, 4095, 4096, 4097, 16_383, 16_385, 65_537, 1_000_003];
    for hyper in [sgd_momentum(), adamw()] {
        for len in lens {
            against_oracle(&engine, hyper.clone(), Placement::OutOfPlace, &[len], 2)?;
        }
        against_oracle(&engine, hyper.clone(), Placement::InPlace, &lens, 2)?;
    }
    against_oracle(&engine, amsgrad(), Placement::OutOfPlace, &lens, 3)?;
    against_oracle(&engine, sgd(), Placement::InPlace, &lens, 3)
}

pub(crate) fn long_tensor(gpu: &Gpu) -> Result<(), String> {
    against_oracle(&engine(gpu)?, sgd_momentum(), Placement::OutOfPlace, &[16_777_217], 1)
}

pub(crate) fn many_tensors(gpu: &Gpu) -> Result<(), String> {
    let lens: Vec<usize> = (0..500).map(|i| i % 37).collect();
    against_oracle(&engine(gpu)?, adamw(), Placement::OutOfPlace, &lens, 2)
}

pub(crate) fn no_elements(gpu: &Gpu) -> Result<(), String> {
    let engine = engine(gpu)?;
    against_oracle(&engine, adamw(), Placement::OutOfPlace, &[], 2)?;
    against_oracle(&engine, adamw(), Placement::InPlace, &[0, 0, 0], 2)
}

/// `g = 0` leaves the weights unchanged, without a division of zero by zero.
pub(crate) fn zero_gradients(gpu: &Gpu) -> Result<(), String> {
    let engine = engine(gpu)?;
    for (adaptive, placement) in
        [(false, Placement::OutOfPlace), (true, Placement::OutOfPlace), (false, Placement::InPlace)]
    {
        let hyper = Hyperparameters { adaptive, rho: 5.0, ..sgd() };
        let weight = model(1, &[1000, 3]);
        let zeros = vec![vec![0.0; 1000], vec![0.0; 3]];
        let mut route = EngineRoute::new(&engine, hyper, placement, &weight);
        if route.ascend(&zeros)? != weight || route.descend(0.1, &zeros)? != weight {
            return Err(format!("weights moved under a zero gradient, adaptive {adaptive}"));
        }
    }
    Ok(())
}

/// Runs an ascent and returns its `||g||`.
fn gradient_norm(
    engine: &Engine,
    hyper: &Hyperparameters,
    tensors: &[AscentTensor],
) -> Result<f64, String> {
    let mut encoder = engine.device().create_command_encoder(&Default::default());
    let options = AscentOptions { track_norms: true, ..Default::default() };
    let ascent = engine.ascent(&mut encoder, hyper, options, tensors);
    let ascent = ascent.map_err(|error| error.to_string())?;
    engine.queue().submit([encoder.finish()]);
    let norms = engine.read_norms(ascent.norms()).map_err(|error| error.to_string())?;
    Ok(f64::from(norms.gradient))
}

/// Gradients whose squares overflow or underflow f32.
pub(crate) fn extreme_gradients(gpu: &Gpu) -> Result<(), String> {
    let engine = engine(gpu)?;
    for scales in
        [[1e-30, 1e-30], [1e30, 1e30], [1e-30, 1e30], [1e-20, 1e-12], [1e15, 1.0], [1e-18, 1.0]]
    {
        let grad: Vec<Vec<f64>> = scales
            .iter()
            .zip([5000, 37])
            .map(|(scale, len)| {
                let scaled = noise(7, len).into_iter().map(|x| f64::from((x * scale) as f32));
                scaled.collect()
            })
            .collect();
        let want = burn_wsam::reference::norm(&grad);
        let tensors: Vec<_> = grad
            .iter()
            .map(|g| AscentTensor {
                weight: slice(&engine, &vec![1.0; g.len()]),
                grad: slice(&engine, &burn_wsam_support::golden::narrow(g)),
                partner: Some(slice(&engine, &vec![0.0; g.len()])),
                group: 0,
            })
            .collect();
        let hyper = Hyperparameters { epsilon: 1e-37, ..sgd() };
        let got = gradient_norm(&engine, &hyper, &tensors)?;
        let error = (got / want - 1.0).abs();
        let right = error <= 1e-6;
        if !right {
            return Err(format!("{scales:?}: norm {got}, expected {want}"));
        }
        for (tensor, g) in tensors.iter().zip(&grad) {
            let partner = tensor.partner.as_ref().ok_or("no partner")?;
            let perturbed = read(&engine, partner).map_err(|error| error.to_string())?;
            for (p, g) in perturbed.iter().zip(g) {
                let want = 1.0 + 0.05 * g / want;
                let right = (f64::from(*p) - want).abs() <= 1e-6;
                if !right {
                    return Err(format!("{scales:?}: w + e_w is {p}, expected {want}"));
                }
            }
        }
    }
    Ok(())
}

/// The norm of 1,019,153,664 elements, in one short buffer that many tensors read. Their squares have similar
/// sizes, so that rounding errors accumulate.
pub(crate) fn a_billion_elements(gpu: &Gpu) -> Result<(), String> {
    let engine = engine(gpu)?;
    let len = (1 << 22) - 256;
    let unperturbed = Group { perturbed: false, ..Group::default() };
    let hyper = Hyperparameters { groups: vec![unperturbed], ..sgd() };
    // Also a tenth of that at the two scales whose squares are summed separately, which reads them twice.
    for (tensors, scale) in [(243, 1.0), (24, 1e-30), (24, 1e30)] {
        let grad: Vec<f32> = noise(5, len).iter().map(|x| ((1.5 + x) * scale) as f32).collect();
        let one = burn_wsam::reference::norm(&[burn_wsam_support::golden::widen(&grad)]);
        let (want, grad) = (one * f64::from(tensors).sqrt(), slice(&engine, &grad));
        // Nothing is written, so all tensors may read one buffer, as weight and as gradient.
        let tensor =
            AscentTensor { weight: grad.clone(), grad: grad.clone(), partner: None, group: 1 };
        let tensors = vec![tensor; tensors as usize];
        let got = gradient_norm(&engine, &hyper, &tensors)?;
        let error = (got / want - 1.0).abs();
        let right = error <= 1e-6;
        if !right {
            return Err(format!("scale {scale}: norm {got}, expected {want}, {error:e}"));
        }
    }
    Ok(())
}

/// With `NonFinite::Propagate`, a NaN or an infinity reaches the perturbed weights.
pub(crate) fn non_finite_gradients_propagate(gpu: &Gpu) -> Result<(), String> {
    let engine = engine(gpu)?;
    for bad in [f64::NAN, f64::INFINITY] {
        for place in [0, 4999] {
            let mut grad = vec![vec![0.0; 5000]];
            grad[0][place] = bad;
            let hyper = Hyperparameters { non_finite: NonFinite::Propagate, ..sgd() };
            let mut route =
                EngineRoute::new(&engine, hyper, Placement::OutOfPlace, &model(1, &[5000]));
            let perturbed = route.ascend(&grad)?;
            if perturbed[0][place].is_finite() {
                return Err(format!("{bad} at {place} gave {}", perturbed[0][place]));
            }
        }
    }
    Ok(())
}
