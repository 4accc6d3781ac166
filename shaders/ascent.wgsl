// ascent: climb to the perturbed weights.
//
//     e_w = rho g / (||g|| + guard)                      adaptive: rho w^2 g / (|| |w| g || + guard)
//
// Out of place: reads weight and grad, writes partner = w + e_w; weight stays as it was.
// IN_PLACE: reads weight and grad, writes partner = w (the anchor) and weight = w + e_w. Where there are
// master weights w is read from them, and need not be saved.
// In a step that is skipped e_w is zero.
// One invocation owns an element in all three buffers (see common.wgsl). Tensors that are not
// perturbed are left out of the table.

override IN_PLACE: bool = false;

// What every element of a step needs, read once.
struct Scales {
    adaptive: bool,
    skipped: bool,
    rho: f32,
    scale: f32,
}

// frame
fn climb_at(chunk: Chunk, i: u32, count: u32, scales: Scales) {
    let w = load_original(chunk, i);
    // Scaled first: g / ||g|| is at most 1, while rho / ||g|| may leave the range of f32.
    var e = scales.rho * (load_grad(chunk.grad + i) * scales.scale);
    if scales.adaptive {
        e *= w * w;
    }
    e = select(e, vec4<f32>(), scales.skipped);
    let perturbed = dithered(w + e, chunk.position + i);
    if IN_PLACE {
        if !MASTER {
            store_partner(chunk.partner + i, w, count);
        }
        store_weight(chunk.weight + i, perturbed, count);
    } else {
        store_partner(chunk.partner + i, perturbed, count);
    }
}

fn climb(chunk: Chunk, len: u32, lane: u32, scales: Scales) {
    for (var i = 4u * lane; i + 4u <= len; i += 4u * WORKGROUP) {
        climb_at(chunk, i, 4u, scales);
    }
    if owns_tail(len, lane) {
        climb_at(chunk, len - len % 4u, len % 4u, scales);
    }
}
// end frame

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
    let kind = kinds[chunk.kind];
    let scales = Scales(is_adaptive(kind), is_skipped(kind), kind.rho, perturbation_scale(kind));
    climb(chunk, chunk.len, lane, scales); // each frame
}
