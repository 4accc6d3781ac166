// lean_ascent: writes w + e_w and takes the base optimizer's step, so that g can be freed before the second
// pass. It requires the decoupled form, whose base step does not use g~.
//
//     partner  <- w + e_w, if perturbed                  e_w as in ascent.wgsl, from the unclipped g
//     weight   <- base_step(w, g) + lr sharpness g       g clipped as in descent.wgsl
//
// lean_descent.wgsl subtracts lr sharpness g~. In a skipped step both results are w.
// Reads w from the anchor if ANCHORED, otherwise from weight; reads grad; writes weight and partner; reads and
// writes the states.
// One invocation owns an element in all buffers (see common.wgsl).

// Values that are the same for every element of a chunk.
struct Scales {
    kind: KindUniforms,
    perturbed: bool,
    adaptive: bool,
    scale: f32,
    clip_g: f32,
    // lr sharpness
    sharpness: f32,
}

// frame
fn climb_at(chunk: Chunk, i: u32, count: u32, scales: Scales) {
    var w: vec4<f32>;
    if ANCHORED {
        w = load_anchor(chunk.anchor + i);
    } else {
        w = load_weight(chunk.weight + i);
    }
    let unclipped = load_grad(chunk.grad + i);
    if scales.perturbed {
        var e = scales.kind.rho * (unclipped * scales.scale);
        if scales.adaptive {
            e *= w * w;
        }
        store_partner(chunk.partner + i, dithered(w + e, chunk.position + i), count);
    }
    let g = scales.clip_g * unclipped;
    let stepped = base_step(scales.kind, chunk, i, count, w, g);
    store_weight(chunk.weight + i, stepped + scales.sharpness * g, count);
}

fn climb(chunk: Chunk, len: u32, lane: u32, scales: Scales) {
    for (var i = 4u * lane; i + 4u <= len; i += 4u * WORKGROUP) {
        climb_at(chunk, i, 4u, scales);
    }
    if owns_tail(len, lane) {
        climb_at(chunk, len - len % 4u, len % 4u, scales);
    }
}

fn stay_at(chunk: Chunk, i: u32, count: u32, perturbed: bool) {
    var w: vec4<f32>;
    if ANCHORED {
        w = load_anchor(chunk.anchor + i);
        store_weight(chunk.weight + i, w, count);
    } else {
        w = load_weight(chunk.weight + i);
    }
    if perturbed {
        store_partner(chunk.partner + i, w, count);
    }
}

fn stay(chunk: Chunk, len: u32, lane: u32, perturbed: bool) {
    for (var i = 4u * lane; i + 4u <= len; i += 4u * WORKGROUP) {
        stay_at(chunk, i, 4u, perturbed);
    }
    if owns_tail(len, lane) {
        stay_at(chunk, len - len % 4u, len % 4u, perturbed);
    }
}
// end frame

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
    let kind = kinds[chunk.kind];
    let scales = Scales(
        kind,
        is_perturbed(kind),
        is_adaptive(kind),
        perturbation_scale(kind),
        clip(step_norms.gradient, kind.max_norm),
        kind.lr * blend_of(kind).sharpness,
    );
    let skipped = is_skipped(kind);
    climb(chunk, select(chunk.len, 0u, skipped), lane, scales); // each frame
    stay(chunk, select(0u, chunk.len, skipped), lane, scales.perturbed); // each frame
}
