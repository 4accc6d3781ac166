//! Invalid calls, which return a typed error with the tensor named and record nothing; and blends.

use super::*;
use burn_wsam::engine::{
    AscentOptions, AscentTensor, BlendSource, DescentTensor, EngineError, Role, Slice, StepStats,
};
use burn_wsam::layout::BlendUniforms;
use burn_wsam::method::Blend;
use burn_wsam_support::engine_route::{engine, read, slice};
use burn_wsam_support::gpu::Gpu;
use wgpu::util::DeviceExt;

fn ascend(
    engine: &Engine,
    tensors: &[AscentTensor],
    placement: Placement,
) -> Result<StepStats, EngineError> {
    let mut encoder = engine.device().create_command_encoder(&Default::default());
    let options = AscentOptions { placement, ..Default::default() };
    engine.ascent(&mut encoder, &sgd(), options, tensors).map(|ascent| ascent.stats())
}

fn expect<T: std::fmt::Debug>(
    what: &str,
    got: Result<T, EngineError>,
    right: impl Fn(&EngineError) -> bool,
) -> Result<(), String> {
    match got {
        Err(error) if right(&error) => Ok(()),
        other => Err(format!("{what}: {other:?}")),
    }
}

pub(crate) fn slices(gpu: &Gpu) -> Result<(), String> {
    let engine = engine(gpu)?;
    let new = |len: usize| slice(&engine, &vec![1.0; len]);
    let good = || AscentTensor { weight: new(8), grad: new(8), partner: Some(new(8)), group: 0 };
    let shared = new(16);
    let part = |offset, len| Slice { offset, len, ..shared.clone() };
    let out = Placement::OutOfPlace;
    ascend(&engine, &[good()], out).map_err(|error| error.to_string())?;

    let tensors = [good(), AscentTensor { grad: new(7), ..good() }];
    expect("a short gradient", ascend(&engine, &tensors, out), |error| {
        *error == EngineError::Length { tensor: 1, role: Role::Grad, len: 7, weight_len: 8 }
    })?;
    let tensors = [AscentTensor { partner: Some(part(2, 8)), ..good() }];
    expect("an offset inside an element", ascend(&engine, &tensors, out), |error| {
        let role = Role::Partner;
        *error == EngineError::Misaligned { tensor: 0, role, offset: 2, alignment: 4 }
    })?;
    let tensors = [AscentTensor { weight: part(36, 8), ..good() }];
    expect("a slice past the end", ascend(&engine, &tensors, out), |error| {
        *error == EngineError::OutOfBounds { tensor: 0, role: Role::Weight, end: 68, size: 64 }
    })?;
    let huge = Slice { len: u64::MAX / 2, ..shared.clone() };
    let tensors =
        [AscentTensor { weight: huge.clone(), grad: huge.clone(), partner: Some(huge), group: 0 }];
    expect("a length that overflows", ascend(&engine, &tensors, out), |error| {
        matches!(error, EngineError::OutOfBounds { tensor: 0, role: Role::Weight, .. })
    })?;
    let uniform = engine.device().create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 64,
        usage: wgpu::BufferUsages::UNIFORM,
        mapped_at_creation: false,
    });
    let tensors = [AscentTensor { grad: Slice::new(&uniform, 8), ..good() }];
    expect("a buffer without STORAGE", ascend(&engine, &tensors, out), |error| {
        matches!(error, EngineError::NotStorage { tensor: 0, role: Role::Grad, .. })
    })?;

    let tensors = [AscentTensor { weight: part(0, 8), partner: Some(part(28, 8)), ..good() }];
    expect("a partner over its weight", ascend(&engine, &tensors, out), |error| {
        matches!(error, EngineError::Overlap { tensor: 0, other_tensor: 0, .. })
    })?;
    let tensors = [
        AscentTensor { partner: Some(part(0, 8)), ..good() },
        AscentTensor { partner: Some(part(16, 8)), ..good() },
    ];
    expect("two partners that overlap", ascend(&engine, &tensors, out), |error| {
        matches!(error, EngineError::Overlap { tensor: 1, other_tensor: 0, .. })
    })?;
    // Two tensors may read overlapping weights out of place, and may not write them in place.
    let tensors = [
        AscentTensor { weight: part(0, 8), ..good() },
        AscentTensor { weight: part(16, 8), ..good() },
    ];
    ascend(&engine, &tensors, out).map_err(|error| error.to_string())?;
    expect("weights that overlap in place", ascend(&engine, &tensors, Placement::InPlace), |e| {
        matches!(e, EngineError::Overlap { tensor: 1, other_tensor: 0, .. })
    })
}

pub(crate) fn numbers(gpu: &Gpu) -> Result<(), String> {
    let engine = engine(gpu)?;
    let new = || slice(&engine, &[1.0; 8]);
    let good = || DescentTensor {
        weight: new(),
        anchor: None,
        grad: new(),
        grad_perturbed: new(),
        state: vec![new()],
        step: 1,
        group: 0,
    };
    let descend = |hyper: &Hyperparameters, lr, tensors: &[DescentTensor]| {
        let mut encoder = engine.device().create_command_encoder(&Default::default());
        let ascents = [AscentTensor { weight: new(), grad: new(), partner: Some(new()), group: 0 }];
        let options = AscentOptions::default();
        let ascent = engine.ascent(&mut encoder, &sgd_momentum(), options, &ascents)?;
        engine.descent(&mut encoder, hyper, lr, BlendSource::Method, &ascent, tensors)
    };
    let hyper = sgd_momentum();
    descend(&hyper, 0.1, &[good()]).map_err(|error| error.to_string())?;
    expect("no state", descend(&hyper, 0.1, &[DescentTensor { state: vec![], ..good() }]), |e| {
        *e == EngineError::StateCount { tensor: 0, found: 0, expected: 1 }
    })?;
    expect("step 0", descend(&hyper, 0.1, &[DescentTensor { step: 0, ..good() }]), |e| {
        *e == EngineError::StepZero { tensor: 0 }
    })?;
    expect("two tensors for one", descend(&hyper, 0.1, &[good(), good()]), |e| {
        *e == EngineError::TensorCount { ascent: 1, descent: 2 }
    })?;
    for lr in [f64::NAN, f64::INFINITY, 1e300] {
        expect(
            "an invalid lr",
            descend(&hyper, lr, &[good()]),
            |e| matches!(e, EngineError::Hyperparameter(h) if h.name == "lr"),
        )?;
    }
    let invalid = Hyperparameters { gamma: 1.0, ..hyper };
    expect(
        "gamma 1",
        descend(&invalid, 0.1, &[good()]),
        |e| matches!(e, EngineError::Hyperparameter(h) if h.name == "gamma" && h.value == 1.0),
    )
}

pub(crate) fn blends(gpu: &Gpu) -> Result<(), String> {
    let engine = engine(gpu)?;
    for (usage, size) in [(wgpu::BufferUsages::STORAGE, 16), (wgpu::BufferUsages::UNIFORM, 8)] {
        let buffer = engine.device().create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size,
            usage,
            mapped_at_creation: false,
        });
        let got = blended(&engine, BlendSource::Device(&buffer));
        expect("a blend buffer", got, |error| {
            *error == EngineError::BlendBuffer { usage, size, need: 16 }
        })?;
    }
    Ok(())
}

/// Other members of the SAM family are other blends: the base optimizer gets `a g + b g~`, and `lr s (g~ - g)` is
/// subtracted from its result.
pub(crate) fn device_blend(gpu: &Gpu) -> Result<(), String> {
    let engine = engine(gpu)?;
    let blend = Blend { a: 0.25, b: -0.5, sharpness: 2.0 };
    let uniforms = BlendUniforms { a: 0.25, b: -0.5, sharpness: 2.0, padding: 0.0 };
    let buffer = engine.device().create_buffer_init(&wgpu::util::BufferInitDescriptor {
        label: None,
        contents: bytemuck::bytes_of(&uniforms),
        usage: wgpu::BufferUsages::UNIFORM,
    });
    let from_device =
        blended(&engine, BlendSource::Device(&buffer)).map_err(|error| error.to_string())?;
    let from_host =
        blended(&engine, BlendSource::Host(blend)).map_err(|error| error.to_string())?;
    // w = 1, g = 2, g~ = 4, lr = 1/2.
    let want = 1.0 - 0.5 * (0.25 * 2.0 - 0.5 * 4.0) - 0.5 * 2.0 * (4.0 - 2.0);
    if from_device == [want; 8] && from_host == [want; 8] {
        Ok(())
    } else {
        Err(format!("{from_device:?} and {from_host:?}, expected {want}"))
    }
}

/// The blend `a g + b g~` is accurate to the f32 roundings of the difference and of the sum, also where `a` and `b`
/// cancel. It is exactly `g~` for `a = 0` and exactly `g` for `b = 0`.
pub(crate) fn rounding(gpu: &Gpu) -> Result<(), String> {
    let engine = engine(gpu)?;
    let g: Vec<f32> = noise(3, 4099).iter().map(|x| *x as f32).collect();
    let g_perturbed: Vec<f32> =
        g.iter().zip(noise(4, 4099)).map(|(g, x)| g + 0.01 * x as f32).collect();
    let on_device = |a: f32, b: f32| {
        let uniforms = BlendUniforms { a, b, sharpness: 0.0, padding: 0.0 };
        engine.device().create_buffer_init(&wgpu::util::BufferInitDescriptor {
            label: None,
            contents: bytemuck::bytes_of(&uniforms),
            usage: wgpu::BufferUsages::UNIFORM,
        })
    };
    let alpha = 0.93 / 0.07;
    let cases: [(f64, f64); 7] = [
        (1.0 - alpha, alpha),
        (-8.0, 9.0),
        (0.25, 0.75),
        (-6.5, 7.25),
        (3.0, -2.5),
        (0.0, 1.0),
        (1.0, 0.0),
    ];
    for (a, b) in cases {
        let device = on_device(a as f32, b as f32);
        let host = BlendSource::Host(Blend { a, b, sharpness: 0.0 });
        for source in [host, BlendSource::Device(&device)] {
            let from_device = matches!(source, BlendSource::Device(_));
            // The device has the blend's weights in f32.
            let (a, b) =
                if from_device { (f64::from(a as f32), f64::from(b as f32)) } else { (a, b) };
            let tensors = [vec![0.0; 4099], g.clone(), vec![0.0; 4099], g_perturbed.clone()];
            let found = blended_of(&engine, source, -1.0, tensors);
            let found = found.map_err(|error| error.to_string())?;
            for ((found, g), p) in found.iter().zip(&g).zip(&g_perturbed) {
                let (g, p) = (f64::from(*g), f64::from(*p));
                let want = (a + b) * g + b * (p - g);
                let unit_roundoff = 2f64.powi(-24);
                let allowed = if a == 0.0 || b == 0.0 {
                    0.0
                } else {
                    unit_roundoff
                        * (3.0 * (b * (p - g)).abs() + 2.0 * ((a + b) * g).abs() + want.abs())
                };
                let right = (f64::from(*found) - want).abs() <= 1.01 * allowed;
                if !right {
                    return Err(format!("{source:?}, {a} {g} + {b} {p}: {found}, expected {want}"));
                }
            }
        }
    }
    Ok(())
}

fn blended(engine: &Engine, source: BlendSource<'_>) -> Result<Vec<f32>, EngineError> {
    blended_of(engine, source, 0.5, [1.0, 2.0, 0.0, 4.0].map(|value| vec![value; 8]))
}

/// Takes a step of SGD over one tensor. `tensors`: weight, `g`, memory for `w + e_w`, and `g~`.
fn blended_of(
    engine: &Engine,
    source: BlendSource<'_>,
    lr: f64,
    tensors: [Vec<f32>; 4],
) -> Result<Vec<f32>, EngineError> {
    let [weight, grad, partner, grad_perturbed] = tensors.map(|values| slice(engine, &values));
    let mut encoder = engine.device().create_command_encoder(&Default::default());
    let tensors = [AscentTensor {
        weight: weight.clone(),
        grad: grad.clone(),
        partner: Some(partner),
        group: 0,
    }];
    let ascent = engine.ascent(&mut encoder, &sgd(), AscentOptions::default(), &tensors)?;
    let tensors = [DescentTensor {
        weight: weight.clone(),
        anchor: None,
        grad,
        grad_perturbed,
        state: vec![],
        step: 1,
        group: 0,
    }];
    engine.descent(&mut encoder, &sgd(), lr, source, &ascent, &tensors)?;
    engine.queue().submit([encoder.finish()]);
    read(engine, &weight)
}
