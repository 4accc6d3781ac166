//! Measures how much of a perturbation half precision keeps, with rounding to nearest and with stochastic rounding.
//!
//! Weights are normal with a standard deviation of 0.05, gradients are normal, and rho has its default of 0.05. With
//! more parameters, each element of `e_w` is smaller. The table has the component along `e_w` and the length of the
//! change that an ascent makes to the weights, both relative to the length of `e_w`.

use burn_wsam::engine::{AscentOptions, AscentTensor, Engine, EngineError, Format, Rounding};
use burn_wsam::method::{Base, Hyperparameters};
use burn_wsam_support::formats::{FORMATS, decode, encode, upload};
use std::process::ExitCode;

const DEVIATION: f64 = 0.05;
const SIZES: [usize; 6] = [100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), EngineError> {
    let (engine, adapter) = Engine::on_any_adapter()?;
    println!("{} ({})\n", adapter.name, adapter.backend);
    println!("| Parameters | f16 | f16, stochastic | bf16 | bf16, stochastic |");
    println!("| --- | --- | --- | --- | --- |");
    for len in SIZES {
        let mut cells = Vec::new();
        for format in FORMATS {
            for rounding in [Rounding::Nearest, Rounding::Stochastic { seed: 1 }] {
                let (along, whole) = kept(&engine, format, rounding, len)?;
                cells.push(format!("{along:.3} of {whole:.3}"));
            }
        }
        println!("| {len} | {} |", cells.join(" | "));
    }
    Ok(())
}

/// The component along `e_w` of the change that an ascent makes to the weights, and the length of that change.
fn kept(
    engine: &Engine,
    format: Format,
    rounding: Rounding,
    len: usize,
) -> Result<(f64, f64), EngineError> {
    let hyper = Hyperparameters::new(Base::Sgd { momentum: None, weight_decay: 0.0 });
    let weight: Vec<u16> = normal(1, len).map(|x| encode(format, DEVIATION * x)).collect();
    let grad: Vec<u16> = normal(2, len).map(|x| encode(format, x)).collect();
    let slice = |bits: &[u16]| upload(engine, format, bits);
    let partner = slice(&vec![0; len]);
    let tensor = AscentTensor {
        weight: slice(&weight),
        grad: slice(&grad),
        partner: Some(partner.clone()),
        group: 0,
    };
    let mut encoder = engine.device().create_command_encoder(&Default::default());
    let options = AscentOptions { rounding, ..Default::default() };
    let _ascent = engine.ascent(&mut encoder, &hyper, options, &[tensor])?;
    engine.queue().submit([encoder.finish()]);

    let bytes = engine.read_buffer(&partner.buffer)?;
    let perturbed: Vec<u16> = bytemuck::pod_collect_to_vec(&bytes);
    let norm = grad.iter().map(|g| decode(format, *g).powi(2)).sum::<f64>().sqrt();
    let (mut along, mut whole) = (0.0, 0.0);
    for ((w, g), p) in weight.iter().zip(&grad).zip(&perturbed) {
        let added = decode(format, *p) - decode(format, *w);
        along += added * hyper.rho * decode(format, *g) / norm;
        whole += added * added;
    }
    // The length of e_w is rho.
    Ok((along / hyper.rho.powi(2), whole.sqrt() / hyper.rho))
}

/// Repeatable normal numbers, by the Box-Muller method.
fn normal(seed: u64, len: usize) -> impl Iterator<Item = f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut uniform = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((state >> 40) as f64 + 0.5) / f64::from(1 << 24)
    };
    let pair = move || {
        let (radius, angle) = ((-2.0 * uniform().ln()).sqrt(), std::f64::consts::TAU * uniform());
        [radius * angle.cos(), radius * angle.sin()]
    };
    std::iter::repeat_with(pair).flatten().take(len)
}
