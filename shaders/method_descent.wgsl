// method_descent: the base optimizer's step of WSAM's relatives. In a skipped step it only restores w.
//
//     STEP_ON               the base optimizer steps on
//     GRAD_PERTURBED        g~                                  SAM's part of Friendly-SAM and LookSAM
//     EITHER                g~, or g in a step that falls back
//     SURROGATE_GAP         g~ - b v, or g in a step that falls back; v is the part of g orthogonal to g~       GSAM
//     CORRECTED             g + b ||g|| h                       LookSAM between its SAM steps
//     AT_MOMENTUM           g, with the L2 penalty of w + e_w   Momentum-SAM; e_w is along the old momentum
//
// g and g~ are clipped as in descent.wgsl. Clipping g also scales v and h.
// h is in the column of grad_perturbed. Where b = 0 its content is ignored.
// Reads anchor, grad (but for GRAD_PERTURBED) and grad_perturbed (but for AT_MOMENTUM); reads and writes weight and the
// states.
// One invocation owns an element in all buffers (see common.wgsl).

override STEP_ON: u32 = 0u;

const ON_GRAD_PERTURBED: u32 = 0u;
const ON_EITHER: u32 = 1u;
const ON_SURROGATE_GAP: u32 = 2u;
const ON_CORRECTED: u32 = 3u;
const AT_MOMENTUM: u32 = 4u;

// Values that are the same for every element of a chunk.
struct Scales {
    param_class: ParamClassUniforms,
    row: vec4<f32>,
    clip_g: f32,
    clip_perturbed: f32,
    // Weight of v, of h, or of the old momentum in e_w.
    b: f32,
    falls_back: bool,
}

// The gradient that the base optimizer steps on.
fn gradient_at_SET(chunk: Chunk, i: u32, scales: Scales) -> vec4<f32> {
    if STEP_ON == ON_GRAD_PERTURBED {
        return scales.clip_perturbed * load_grad_perturbed_SET(chunk.grad_perturbed + i);
    }
    let unclipped = load_grad_SET(chunk.grad + i);
    let g = scales.clip_g * unclipped;
    if STEP_ON == AT_MOMENTUM {
        return g;
    }
    if STEP_ON == ON_CORRECTED {
        let h = load_method_state_SET(chunk.grad_perturbed + i);
        return g + select(scales.b * h, vec4<f32>(), scales.b == 0.0);
    }
    let second = load_grad_perturbed_SET(chunk.grad_perturbed + i);
    var stepped_on = scales.clip_perturbed * second;
    if STEP_ON == ON_SURROGATE_GAP {
        let v = scales.clip_g * orthogonal(unclipped, second, scales.row);
        stepped_on -= select(scales.b * v, vec4<f32>(), scales.b == 0.0);
    }
    return select(stepped_on, g, scales.falls_back);
}

fn descend_at_SET(chunk: Chunk, i: u32, count: u32, scales: Scales) {
    var w: vec4<f32>;
    if ANCHORED {
        w = load_anchor_SET(chunk.anchor + i);
    } else {
        w = load_weight_SET(chunk.weight + i);
    }
    var penalised = w;
    if STEP_ON == AT_MOMENTUM {
        let m = select(load_state_0_SET(chunk.state_0 + i), vec4<f32>(), scales.b == 0.0);
        penalised += scales.param_class.rho * (m * scales.b);
    }
    let h = gradient_at_SET(chunk, i, scales);
    let stepped = base_step_SET(scales.param_class, chunk, i, count, w, penalised, h);
    store_weight_SET(chunk.weight + i, stepped, count);
    store_master_SET(chunk.anchor + i, stepped, count);
}

fn descend_SET(chunk: Chunk, len: u32, lane: u32, scales: Scales) {
    for (var i = 4u * lane; i + 4u <= len; i += 4u * WORKGROUP) {
        descend_at_SET(chunk, i, 4u, scales);
    }
    if owns_tail(len, lane) {
        descend_at_SET(chunk, len - len % 4u, len % 4u, scales);
    }
}

// The weight of v, of h, or of the old momentum in e_w.
fn weight_of_second(param_class: ParamClassUniforms) -> f32 {
    if STEP_ON == ON_CORRECTED {
        let unscaled = clip(step_norms.gradient, param_class.max_norm) / step_norms.inv_scale;
        return param_class.b * perturbation_norm(param_class) * unscaled;
    }
    if STEP_ON == AT_MOMENTUM {
        // The momentum is not scaled by the loss scale.
        return param_class.b / (perturbation_norm(param_class) + param_class.norm_epsilon);
    }
    return param_class.b;
}

@compute @workgroup_size(WORKGROUP)
fn method_descent(
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
        coefficients.of_grad[scope_of(param_class)],
        clip(step_norms.gradient, param_class.max_norm),
        clip(step_norms.perturbed, param_class.max_norm_perturbed),
        weight_of_second(param_class),
        (param_class.flags & FALLS_BACK) != 0u && step_norms.nonfinite_perturbed != 0.0,
    );
    let skipped = is_skipped(param_class);
    descend_SET(chunk, select(len_SET(chunk), 0u, skipped), lane, scales);
    restore_SET(chunk, select(0u, len_SET(chunk), skipped), lane);
}
