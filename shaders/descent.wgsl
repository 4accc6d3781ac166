// descent: restores w, blends the two gradients and takes the base optimizer's step.
//
//     w   is read from the anchor if ANCHORED, otherwise from weight. It is never computed as
//         (w + e_w) - e_w, which would round. Master weights are an anchor and are also updated.
//     g   <- g  min(1, max_norm / (||g||  + 1e-6))
//     g~  <- g~ min(1, max_norm_perturbed / (||g~|| + 1e-6))
//     w   <- base_step(w, a g + b g~) - lr sharpness (g~ - g)
//
// If a and b have opposite signs or sum to 1, a g + b g~ is computed as (a + b) g + b (g~ - g). The products
// a g and b g~ may then be much larger than their sum, so that their rounding errors would dominate it. The
// gradients are close to each other, so g~ - g is exact or nearly so. scales.a is then a + b.
//
// ALONE: takes the base optimizer's step only, w <- base_step(w, g), without g~.
// A skipped step only restores w. A step that falls back uses g as g~, which gives the base optimizer's step.
// Reads anchor, grad and grad_perturbed (unless ALONE); reads and writes weight and the states.
// One invocation owns an element in all buffers (see common.wgsl).

override ALONE: bool = false;

// Values that are the same for every element of a chunk.
struct Scales {
    param_class: ParamClassUniforms,
    a: f32,
    b: f32,
    by_difference: bool,
    // lr sharpness
    sharpness: f32,
    clip_g: f32,
    clip_perturbed: f32,
    falls_back: bool,
}

fn descend_at_SET(chunk: Chunk, i: u32, count: u32, scales: Scales) {
    var w: vec4<f32>;
    if ANCHORED {
        w = load_anchor_SET(chunk.anchor + i);
    } else {
        w = load_weight_SET(chunk.weight + i);
    }
    let g = scales.clip_g * load_grad_SET(chunk.grad + i);
    if ALONE {
        let alone = base_step_SET(scales.param_class, chunk, i, count, w, w, g);
        store_weight_SET(chunk.weight + i, alone, count);
        store_master_SET(chunk.anchor + i, alone, count);
        return;
    }
    let second = scales.clip_perturbed * load_grad_perturbed_SET(chunk.grad_perturbed + i);
    let g_perturbed = select(second, g, scales.falls_back);
    let difference = g_perturbed - g;
    let h = scales.a * g + scales.b * select(g_perturbed, difference, scales.by_difference);
    let stepped = base_step_SET(scales.param_class, chunk, i, count, w, w, h);
    let sharpened = stepped - scales.sharpness * difference;
    store_weight_SET(chunk.weight + i, sharpened, count);
    store_master_SET(chunk.anchor + i, sharpened, count);
}

fn descend_SET(chunk: Chunk, len: u32, lane: u32, scales: Scales) {
    for (var i = 4u * lane; i + 4u <= len; i += 4u * WORKGROUP) {
        descend_at_SET(chunk, i, 4u, scales);
    }
    if owns_tail(len, lane) {
        descend_at_SET(chunk, len - len % 4u, len % 4u, scales);
    }
}

@compute @workgroup_size(WORKGROUP)
fn descent(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = chunk_index(workgroup);
    if index >= dispatch.chunk_count {
        return;
    }
    let chunk = chunks[index];
    let param_class = param_classes[chunk.param_class];
    let mixed = blend_of(param_class);
    let scales = Scales(
        param_class,
        mixed.a,
        mixed.b,
        mixed.by_difference,
        param_class.lr * mixed.sharpness,
        clip(step_norms.gradient, param_class.max_norm),
        clip(step_norms.perturbed, param_class.max_norm_perturbed),
        (param_class.flags & FALLS_BACK) != 0u && step_norms.nonfinite_perturbed != 0.0,
    );
    let skipped = is_skipped(param_class);
    descend_SET(chunk, select(len_SET(chunk), 0u, skipped), lane, scales);
    restore_SET(chunk, select(0u, len_SET(chunk), skipped), lane);
}
