// Shared by descent.wgsl, lean_ascent.wgsl and lean_descent.wgsl: the blend, clipping and the base optimizer's
// step:
//
//     d   = h + weight_decay w                                         the L2 term of SGD and Adam
//     m   = keep_1 m + add_1 d                                         STATES >= 1
//     u   = mix_m m + mix_d d                                          (u = d without states)
//     v   = keep_2 v + add_2 d^2,  u <- u / (sqrt(v inverse_bias_2) + epsilon)     STATES >= 2
//     x   = max(x, v), used under the root instead of v                STATES == 3: AMSGrad
//     w   <- decay w - lr u
//
//                     keep_1    add_1            mix_m          mix_d          decay
//     SGD             -         -                -              -              1
//     SGD, momentum   momentum  1 - dampening    1              0              1
//     SGD, Nesterov   momentum  1 - dampening    momentum       1              1
//     Adam            beta_1    1 - beta_1       1/(1-beta_1^t) 0              1
//     AdamW           beta_1    1 - beta_1       1/(1-beta_1^t) 0              1 - lr weight_decay
//
// The first step ignores the states' old content, which may be uninitialised memory. SGD's momentum then starts
// at d without dampening: the host sets add_1 = 1.

override STATES: u32 = 0u;
// Whether w, or the weights to restore, are read from the anchor.
override ANCHORED: bool = false;

struct BlendUniforms {
    a: f32,
    b: f32,
    sharpness: f32,
    padding: f32,
}

@group(1) @binding(2) var<uniform> blend: BlendUniforms;

// A blend as the descent computes it: a g + b g~, or a g + b (g~ - g) if by_difference.
struct BlendForm {
    a: f32,
    b: f32,
    sharpness: f32,
    by_difference: bool,
}

// The blend of the device buffer if there is one, else the class's blend, for which the host has set BY_DIFFERENCE
// (Blend::by_difference).
fn blend_of(param_class: ParamClassUniforms) -> BlendForm {
    if (param_class.flags & DEVICE_BLEND) == 0u {
        let by_difference = (param_class.flags & BY_DIFFERENCE) != 0u;
        return BlendForm(param_class.a, param_class.b, param_class.sharpness, by_difference);
    }
    let sum = blend.a + blend.b;
    let both = blend.a != 0.0 && blend.b != 0.0;
    let by_difference = both && (sum == 1.0 || (blend.a < 0.0) != (blend.b < 0.0));
    return BlendForm(select(blend.a, sum, by_difference), blend.b, blend.sharpness, by_difference);
}

// Added to the norm, as in PyTorch's clip_grad_norm_.
const CLIP_EPSILON: f32 = 1e-6;

// f32::MAX. This max_norm turns clipping off, also for a gradient whose norm is infinite.
const UNCLIPPED: f32 = 0x1.fffffep+127f;

// The factor that unscales and clips a gradient of this norm.
fn clip(norm: f32, max_norm: f32) -> f32 {
    let factor = min(1.0, max_norm / (norm + CLIP_EPSILON));
    return step_norms.inv_scale * select(factor, 1.0, max_norm >= UNCLIPPED);
}

// Returns the new weights of four elements from element i of a chunk on, and updates the states in their
// buffers. `penalised` are the weights of the L2 penalty: w, but for Momentum-SAM.
fn base_step_SET(
    constants: ParamClassUniforms,
    chunk: Chunk,
    i: u32,
    count: u32,
    w: vec4<f32>,
    penalised: vec4<f32>,
    h: vec4<f32>,
) -> vec4<f32> {
    let first = (constants.flags & FIRST) != 0u;
    let d = h + constants.weight_decay * penalised;
    var u = d;
    if STATES >= 1u {
        let old = select(load_state_0_SET(chunk.state_0 + i), vec4<f32>(), first);
        let m = constants.keep_1 * old + constants.add_1 * d;
        store_state_0_SET(chunk.state_0 + i, m, count);
        u = constants.mix_m * m + constants.mix_d * d;
    }
    if STATES >= 2u {
        let old = select(load_state_1_SET(chunk.state_1 + i), vec4<f32>(), first);
        let v = constants.keep_2 * old + constants.add_2 * (d * d);
        store_state_1_SET(chunk.state_1 + i, v, count);
        var second = v;
        if STATES == 3u {
            let largest = select(load_state_2_SET(chunk.state_2 + i), vec4<f32>(), first);
            second = max(largest, v);
            store_state_2_SET(chunk.state_2 + i, second, count);
        }
        u = u / (sqrt(second * constants.inverse_bias_2) + constants.base_epsilon);
    }
    return constants.decay * w - constants.lr * u;
}

// Copies the anchor to weight if ANCHORED.
fn restore_SET(chunk: Chunk, len: u32, lane: u32) {
    if !ANCHORED {
        return;
    }
    for (var i = 4u * lane; i + 4u <= len; i += 4u * WORKGROUP) {
        store_weight_SET(chunk.weight + i, load_anchor_SET(chunk.anchor + i), 4u);
    }
    if owns_tail(len, lane) {
        let i = len - len % 4u;
        store_weight_SET(chunk.weight + i, load_anchor_SET(chunk.anchor + i), len % 4u);
    }
}
