// update: the new state h of a method, which is in the column of state_0.
//
//     h <- a g + b h                    Friendly-SAM: the average of g, with a = 1 - lambda and b = lambda
//     h <- v / ||v||                    LookSAM (FROM_PERTURBED): v is the part of g~ orthogonal to g, or zero if it
//                                       is no more than rounding error
//
// g is unclipped. A skipped step keeps h. LookSAM also keeps it in a step that falls back to g, which has no v.
// Where b = 0 the content of h is ignored, because it may be uninitialised memory.
// One invocation owns an element in all buffers (see common.wgsl).

override FROM_PERTURBED: bool = false;

// Values that are the same for every element of a chunk.
struct Scales {
    row: vec4<f32>,
    a: f32,
    b: f32,
}

fn update_at_SET(chunk: Chunk, i: u32, count: u32, scales: Scales) {
    let g = load_grad_SET(chunk.grad + i);
    if FROM_PERTURBED {
        let v = orthogonal(load_grad_perturbed_SET(chunk.grad_perturbed + i), g, scales.row);
        let length = scales.row.w;
        let unit = select(v / length, vec4<f32>(), length == 0.0);
        store_state_0_SET(chunk.state_0 + i, unit, count);
        return;
    }
    let h = select(load_state_0_SET(chunk.state_0 + i), vec4<f32>(), scales.b == 0.0);
    store_state_0_SET(chunk.state_0 + i, scales.a * g + scales.b * h, count);
}

fn update_SET(chunk: Chunk, len: u32, lane: u32, scales: Scales) {
    for (var i = 4u * lane; i + 4u <= len; i += 4u * WORKGROUP) {
        update_at_SET(chunk, i, 4u, scales);
    }
    if owns_tail(len, lane) {
        update_at_SET(chunk, len - len % 4u, len % 4u, scales);
    }
}

@compute @workgroup_size(WORKGROUP)
fn update(
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
        coefficients.of_grad_perturbed[scope_of(param_class)],
        param_class.a * step_norms.inv_scale,
        param_class.b,
    );
    let has_no_v = FROM_PERTURBED && (param_class.flags & SKIPS) != 0u && step_norms.nonfinite_perturbed != 0.0;
    let keeps = is_skipped(param_class) || has_no_v;
    update_SET(chunk, select(len_SET(chunk), 0u, keeps), lane, scales);
}
