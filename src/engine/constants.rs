//! What each base optimizer puts into a step's uniforms.

use crate::layout::StepUniforms;
use crate::method::{Base, ClipScope, Hyperparameters};

/// The table at the top of `step.wgsl`, computed in f64 and rounded once.
pub(super) fn step_constants(hyper: &Hyperparameters, lr: f64, step: u64) -> StepUniforms {
    // Unclipped: the largest norm there is.
    let (max_norm, max_norm_perturbed) = match hyper.clip {
        None => (f32::MAX, f32::MAX),
        Some(clip) => match clip.scope {
            ClipScope::Both => (clip.max_norm as f32, clip.max_norm as f32),
            ClipScope::PerturbedOnly => (f32::MAX, clip.max_norm as f32),
        },
    };
    let first = step == 1;
    let common = StepUniforms {
        first: u32::from(first),
        lr: lr as f32,
        decay: 1.0,
        max_norm,
        max_norm_perturbed,
        ..Default::default()
    };
    match hyper.base {
        Base::Sgd { momentum, weight_decay } => {
            let common = StepUniforms { weight_decay: weight_decay as f32, ..common };
            let Some(m) = momentum else { return common };
            StepUniforms {
                keep_1: m.momentum as f32,
                add_1: if first { 1.0 } else { (1.0 - m.dampening) as f32 },
                mix_m: if m.nesterov { m.momentum as f32 } else { 1.0 },
                mix_d: if m.nesterov { 1.0 } else { 0.0 },
                ..common
            }
        }
        Base::Adam(m) | Base::AdamW(m) => {
            let t = step as f64;
            let decoupled = matches!(hyper.base, Base::AdamW(_));
            StepUniforms {
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
