// lean_descent: takes the sharpness step that completes lean_ascent.wgsl.
//
//     weight   <- weight - lr sharpness g~               g~ clipped as in descent.wgsl
//
// If the step was skipped because g is not finite, weight already holds w. If g~ is not finite, w has been
// overwritten: if ANCHORED, the anchor, which holds the weights of the second pass, is copied to weight.
// Reads grad_perturbed; reads and writes weight; reads anchor only in that case.
// One invocation owns an element in all buffers (see common.wgsl).

// frame
fn descend_at(chunk: Chunk, i: u32, count: u32, factor: f32) {
    let g_perturbed = load_grad_perturbed(chunk.grad_perturbed + i);
    let updated = load_weight(chunk.weight + i) - factor * g_perturbed;
    store_weight(chunk.weight + i, updated, count);
}

fn descend(chunk: Chunk, len: u32, lane: u32, factor: f32) {
    for (var i = 4u * lane; i + 4u <= len; i += 4u * WORKGROUP) {
        descend_at(chunk, i, 4u, factor);
    }
    if owns_tail(len, lane) {
        descend_at(chunk, len - len % 4u, len % 4u, factor);
    }
}
// end frame

@compute @workgroup_size(WORKGROUP)
fn lean_descent(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = chunk_index(workgroup);
    if index >= dispatch.chunk_count {
        return;
    }
    let chunk = chunks[index];
    let kind = kinds[chunk.kind];
    let clip_perturbed = clip(step_norms.perturbed, kind.max_norm_perturbed);
    let factor = kind.lr * blend_of(kind).sharpness * clip_perturbed;
    let stays = (kind.flags & SKIPS) != 0u && step_norms.bad_gradient != 0.0;
    let returns = (kind.flags & SKIPS) != 0u && step_norms.bad_perturbed != 0.0;
    descend(chunk, select(chunk.len, 0u, stays || returns), lane, factor); // each frame
    restore(chunk, select(0u, chunk.len, returns && !stays), lane); // each frame
}
