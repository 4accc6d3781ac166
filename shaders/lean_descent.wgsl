// lean_descent: takes the sharpness step that completes lean_ascent.wgsl.
//
//     weight   <- weight - lr sharpness g~               g~ clipped as in descent.wgsl
//
// If the step was skipped because g is not finite, weight already holds w. If g~ is not finite, w has been
// overwritten: if ANCHORED, the anchor, which holds the weights of the second pass, is copied to weight.
// Reads grad_perturbed; reads and writes weight; reads anchor only in that case.
// One invocation owns an element in all buffers (see common.wgsl).

fn descend_at_SET(chunk: Chunk, i: u32, count: u32, factor: f32) {
    let g_perturbed = load_grad_perturbed_SET(chunk.grad_perturbed + i);
    let updated = load_weight_SET(chunk.weight + i) - factor * g_perturbed;
    store_weight_SET(chunk.weight + i, updated, count);
}

fn descend_SET(chunk: Chunk, len: u32, lane: u32, factor: f32) {
    for (var i = 4u * lane; i + 4u <= len; i += 4u * WORKGROUP) {
        descend_at_SET(chunk, i, 4u, factor);
    }
    if owns_tail(len, lane) {
        descend_at_SET(chunk, len - len % 4u, len % 4u, factor);
    }
}

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
    let param_class = param_classes[chunk.param_class];
    let clip_perturbed = clip(step_norms.perturbed, param_class.max_norm_perturbed);
    let factor = param_class.lr * blend_of(param_class).sharpness * clip_perturbed;
    let stays = (param_class.flags & SKIPS) != 0u && step_norms.nonfinite_gradient != 0.0;
    let returns = (param_class.flags & SKIPS) != 0u && step_norms.nonfinite_perturbed != 0.0;
    descend_SET(chunk, select(len_SET(chunk), 0u, stays || returns), lane, factor);
    restore_SET(chunk, select(0u, len_SET(chunk), returns && !stays), lane);
}
