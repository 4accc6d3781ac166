// ascent: climb to the perturbed weights.
//
//     e_w = rho g / (||g|| + epsilon)                    adaptive: rho w^2 g / (|| |w| g || + epsilon)
//
// Out of place: reads weight and grad, writes partner = w + e_w; weight stays as it was.
// IN_PLACE: reads weight and grad, writes partner = w (the anchor) and weight = w + e_w.
// One invocation owns an element in all three buffers (see common.wgsl).

override ADAPTIVE: bool = false;
override IN_PLACE: bool = false;

struct AscentUniforms {
    chunk_count: u32,
    grid_width: u32,
    rho: f32,
    epsilon: f32,
}

@group(1) @binding(0) var<uniform> ascent_uniforms: AscentUniforms;
@group(1) @binding(1) var<uniform> ascent_norms: Norms;

// frame
fn climb_at(chunk: Chunk, i: u32, count: u32, rho: f32, scale: f32) {
    let w = load_weight(chunk.weight + i);
    // Scaled first: g / ||g|| is at most 1, while rho / ||g|| may leave the range of f32.
    var e = rho * (load_grad(chunk.grad + i) * scale);
    if ADAPTIVE {
        e *= w * w;
    }
    if IN_PLACE {
        store_partner(chunk.partner + i, w, count);
        store_weight(chunk.weight + i, w + e, count);
    } else {
        store_partner(chunk.partner + i, w + e, count);
    }
}

fn climb(chunk: Chunk, len: u32, lane: u32, rho: f32, scale: f32) {
    for (var i = 4u * lane; i + 4u <= len; i += 4u * WORKGROUP) {
        climb_at(chunk, i, 4u, rho, scale);
    }
    if owns_tail(len, lane) {
        climb_at(chunk, len - len % 4u, len % 4u, rho, scale);
    }
}
// end frame

@compute @workgroup_size(WORKGROUP)
fn ascent(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = chunk_index(workgroup, ascent_uniforms.grid_width);
    if index >= ascent_uniforms.chunk_count {
        return;
    }
    let chunk = chunks[index];
    let scale = 1.0 / (ascent_norms.perturbation + ascent_uniforms.epsilon);
    climb(chunk, chunk.len, lane, ascent_uniforms.rho, scale); // each frame
}
