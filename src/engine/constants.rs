//! The constants of one kind of tensors.

use super::step::BlendSource;
use crate::layout::{KindUniforms, Norms};
use crate::method::{Base, ClipScope, Hyperparameters, InGroup, NonFinite};

/// Computes the row of constants for one kind: the method's constants, and the base optimizer's as listed
/// at the top of `step.wgsl`. Everything is computed in f64 and rounded to f32 once.
pub(super) fn kind_uniforms(
    hyper: &Hyperparameters,
    group: &InGroup,
    lr: f64,
    step: u64,
    blend: BlendSource<'_>,
) -> KindUniforms {
    // f32::MAX turns clipping off: see UNCLIPPED in `step.wgsl`.
    let (max_norm, max_norm_perturbed) = match hyper.clip {
        None => (f32::MAX, f32::MAX),
        Some(clip) => match clip.scope {
            ClipScope::Both => (clip.max_norm as f32, clip.max_norm as f32),
            ClipScope::PerturbedOnly => (f32::MAX, clip.max_norm as f32),
        },
    };
    let first = step == 1;
    let flag = |bit, set| if set { bit } else { 0 };
    let blend_here = match blend {
        BlendSource::Host(blend) => blend,
        BlendSource::Method | BlendSource::Device(_) => group.blend,
    };
    let of_g = blend_here.by_difference();
    let common = KindUniforms {
        flags: flag(KindUniforms::PERTURBED, group.perturbed)
            | flag(KindUniforms::ADAPTIVE, group.perturbed && group.adaptive)
            | flag(KindUniforms::DEVICE_BLEND, matches!(blend, BlendSource::Device(_)))
            | flag(KindUniforms::FIRST, first)
            | flag(KindUniforms::SKIPS, hyper.non_finite.checks_gradients())
            | flag(KindUniforms::FALLS_BACK, hyper.non_finite == NonFinite::BaseStep)
            | flag(KindUniforms::BY_DIFFERENCE, of_g.is_some()),
        norm: Norms::place(group.scope),
        rho: group.rho as f32,
        guard: hyper.epsilon as f32,
        a: of_g.unwrap_or(blend_here.a) as f32,
        b: blend_here.b as f32,
        sharpness: blend_here.sharpness as f32,
        max_norm,
        max_norm_perturbed,
        lr: lr as f32,
        decay: 1.0,
        ..Default::default()
    };
    match group.base {
        Base::Sgd { momentum, weight_decay } => {
            let common = KindUniforms { weight_decay: weight_decay as f32, ..common };
            let Some(m) = momentum else { return common };
            KindUniforms {
                keep_1: m.momentum as f32,
                add_1: if first { 1.0 } else { (1.0 - m.dampening) as f32 },
                mix_m: if m.nesterov { m.momentum as f32 } else { 1.0 },
                mix_d: if m.nesterov { 1.0 } else { 0.0 },
                ..common
            }
        }
        Base::Adam(m) | Base::AdamW(m) => {
            let t = step as f64;
            let decoupled = matches!(group.base, Base::AdamW(_));
            KindUniforms {
                decay: if decoupled { (1.0 - lr * m.weight_decay) as f32 } else { 1.0 },
                weight_decay: if decoupled { 0.0 } else { m.weight_decay as f32 },
                epsilon: m.epsilon as f32,
                inverse_bias_2: (1.0 / (1.0 - m.beta_2.powf(t))) as f32,
                keep_1: m.beta_1 as f32,
                add_1: (1.0 - m.beta_1) as f32,
                keep_2: m.beta_2 as f32,
                add_2: (1.0 - m.beta_2) as f32,
                mix_m: (1.0 / (1.0 - m.beta_1.powf(t))) as f32,
                mix_d: 0.0,
                ..common
            }
        }
    }
}
