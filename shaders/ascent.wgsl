// ascent: writes the perturbed weights w + e_w.
//
//     e_w = rho g / (||g|| + norm_epsilon)                      adaptive: rho w^2 g / (|| |w| g || + norm_epsilon)
//
// Out of place: reads weight and grad, writes weight_copy = w + e_w; does not write weight.
// IN_PLACE: reads weight and grad, writes weight_copy = w (the anchor) and weight = w + e_w. With master weights
// w is read from these, and weight_copy is not written.
// In a skipped step e_w is zero. direction_state.wgsl has another direction in place of g.
// One invocation owns an element in all buffers (see common.wgsl). The chunk table excludes tensors that are
// not perturbed.

override IN_PLACE: bool = false;

// Values that are the same for every element of a chunk.
struct Scales {
    adaptive: bool,
    skipped: bool,
    rho: f32,
    scale: f32,
    // Weight of the method's state in the direction.
    of_state: f32,
}

fn perturb_at_SET(chunk: Chunk, i: u32, count: u32, scales: Scales) {
    let w = load_original_SET(chunk, i);
    // g is scaled first: g / ||g|| is at most 1, while rho / ||g|| may leave the range of f32.
    var e = scales.rho * (direction_at_SET(chunk, i, scales.of_state) * scales.scale);
    if scales.adaptive {
        e *= w * w;
    }
    e = select(e, vec4<f32>(), scales.skipped);
    let perturbed = dithered(w + e, chunk.position + i);
    if IN_PLACE {
        if !MASTER {
            store_weight_copy_SET(chunk.weight_copy + i, w, count);
        }
        store_weight_SET(chunk.weight + i, perturbed, count);
    } else {
        store_weight_copy_SET(chunk.weight_copy + i, perturbed, count);
    }
}

fn perturb_SET(chunk: Chunk, len: u32, lane: u32, scales: Scales) {
    for (var i = 4u * lane; i + 4u <= len; i += 4u * WORKGROUP) {
        perturb_at_SET(chunk, i, 4u, scales);
    }
    if owns_tail(len, lane) {
        perturb_at_SET(chunk, len - len % 4u, len % 4u, scales);
    }
}

@compute @workgroup_size(WORKGROUP)
fn ascent(
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
        is_adaptive(param_class),
        is_skipped(param_class),
        param_class.rho,
        perturbation_scale(param_class),
        weight_of_state(param_class),
    );
    perturb_SET(chunk, len_SET(chunk), lane, scales);
}
