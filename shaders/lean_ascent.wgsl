// lean_ascent: writes w + e_w and takes the base optimizer's step, so that g can be freed before the second
// pass. It requires the decoupled form, whose base step does not use g~.
//
//     weight_copy  <- w + e_w, if perturbed                  e_w as in ascent.wgsl, from the unclipped g
//     weight   <- base_step(w, g) + lr sharpness g       g clipped as in descent.wgsl
//
// lean_descent.wgsl subtracts lr sharpness g~. In a skipped step both results are w.
// Reads w from the anchor if ANCHORED, otherwise from weight; reads grad; writes weight and weight_copy; reads and
// writes the states.
// One invocation owns an element in all buffers (see common.wgsl).

// Values that are the same for every element of a chunk.
struct Scales {
    param_class: ParamClassUniforms,
    perturbed: bool,
    adaptive: bool,
    scale: f32,
    clip_g: f32,
    // lr sharpness
    sharpness: f32,
}

fn perturb_at_SET(chunk: Chunk, i: u32, count: u32, scales: Scales) {
    var w: vec4<f32>;
    if ANCHORED {
        w = load_anchor_SET(chunk.anchor + i);
    } else {
        w = load_weight_SET(chunk.weight + i);
    }
    let unclipped = load_grad_SET(chunk.grad + i);
    if scales.perturbed {
        var e = scales.param_class.rho * (unclipped * scales.scale);
        if scales.adaptive {
            e *= w * w;
        }
        store_weight_copy_SET(chunk.weight_copy + i, dithered(w + e, chunk.position + i), count);
    }
    let g = scales.clip_g * unclipped;
    let stepped = base_step_SET(scales.param_class, chunk, i, count, w, w, g);
    store_weight_SET(chunk.weight + i, stepped + scales.sharpness * g, count);
}

fn perturb_SET(chunk: Chunk, len: u32, lane: u32, scales: Scales) {
    for (var i = 4u * lane; i + 4u <= len; i += 4u * WORKGROUP) {
        perturb_at_SET(chunk, i, 4u, scales);
    }
    if owns_tail(len, lane) {
        perturb_at_SET(chunk, len - len % 4u, len % 4u, scales);
    }
}

fn stay_at_SET(chunk: Chunk, i: u32, count: u32, perturbed: bool) {
    var w: vec4<f32>;
    if ANCHORED {
        w = load_anchor_SET(chunk.anchor + i);
        store_weight_SET(chunk.weight + i, w, count);
    } else {
        w = load_weight_SET(chunk.weight + i);
    }
    if perturbed {
        store_weight_copy_SET(chunk.weight_copy + i, w, count);
    }
}

fn stay_SET(chunk: Chunk, len: u32, lane: u32, perturbed: bool) {
    for (var i = 4u * lane; i + 4u <= len; i += 4u * WORKGROUP) {
        stay_at_SET(chunk, i, 4u, perturbed);
    }
    if owns_tail(len, lane) {
        stay_at_SET(chunk, len - len % 4u, len % 4u, perturbed);
    }
}

@compute @workgroup_size(WORKGROUP)
fn lean_ascent(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = chunk_index(workgroup);
    if index >= dispatch.chunk_count {
        return;
    }
    let chunk = chunks[index];
    let param_class = param_classes[chunk.param_class];
    let scales = Scales(
        param_class,
        is_perturbed(param_class),
        is_adaptive(param_class),
        perturbation_scale(param_class),
        clip(step_norms.gradient, param_class.max_norm),
        param_class.lr * blend_of(param_class).sharpness,
    );
    let skipped = is_skipped(param_class);
    perturb_SET(chunk, select(len_SET(chunk), 0u, skipped), lane, scales);
    stay_SET(chunk, select(0u, len_SET(chunk), skipped), lane, scales.perturbed);
}
