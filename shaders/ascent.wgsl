// ascent: climb to the perturbed weights.
//
//     e_w = rho g / (||g|| + guard)                      adaptive: rho w^2 g / (|| |w| g || + guard)
//
// Out of place: reads weight and grad, writes partner = w + e_w; weight stays as it was.
// IN_PLACE: reads weight and grad, writes partner = w (the anchor) and weight = w + e_w.
// One invocation owns an element in all three buffers (see common.wgsl). Tensors that are not
// perturbed are left out of the table.

override IN_PLACE: bool = false;

// frame
fn climb_at(chunk: Chunk, i: u32, count: u32, adaptive: bool, rho: f32, scale: f32) {
    let w = load_weight(chunk.weight + i);
    // Scaled first: g / ||g|| is at most 1, while rho / ||g|| may leave the range of f32.
    var e = rho * (load_grad(chunk.grad + i) * scale);
    if adaptive {
        e *= w * w;
    }
    if IN_PLACE {
        store_partner(chunk.partner + i, w, count);
        store_weight(chunk.weight + i, w + e, count);
    } else {
        store_partner(chunk.partner + i, w + e, count);
    }
}

fn climb(chunk: Chunk, len: u32, lane: u32, adaptive: bool, rho: f32, scale: f32) {
    for (var i = 4u * lane; i + 4u <= len; i += 4u * WORKGROUP) {
        climb_at(chunk, i, 4u, adaptive, rho, scale);
    }
    if owns_tail(len, lane) {
        climb_at(chunk, len - len % 4u, len % 4u, adaptive, rho, scale);
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
    let scale = 1.0 / (perturbation_norm(kind) + kind.guard);
    let adaptive = is_adaptive(kind);
    climb(chunk, chunk.len, lane, adaptive, kind.rho, scale); // each frame
}
