// lean_ascent: climb, and take the base optimizer's step already, so that g may be freed before the
// second pass. For the decoupled form, whose base step knows nothing of g~.
//
//     partner  w + e_w                                   e_w as in ascent.wgsl, from the unclipped g
//     weight   base_step(w, g) + lr sharpness g          g clipped as in descent.wgsl
//
// lean_descent.wgsl subtracts lr sharpness g~. Reads w from the anchor if ANCHORED, otherwise from
// weight itself; reads grad, writes partner, reads and writes the states.
// One invocation owns an element in all buffers (see common.wgsl).

override ADAPTIVE: bool = false;
override ANCHORED: bool = false;

struct LeanAscentUniforms {
    chunk_count: u32,
    grid_width: u32,
    rho: f32,
    epsilon: f32,
}

@group(1) @binding(0) var<uniform> lean_ascent_uniforms: LeanAscentUniforms;
@group(1) @binding(1) var<uniform> lean_ascent_norms: Norms;

// What every element of a step needs, read once.
struct Scales {
    hyper: StepUniforms,
    rho: f32,
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
    var e = scales.rho * (unclipped * scales.scale);
    if ADAPTIVE {
        e *= w * w;
    }
    store_partner(chunk.partner + i, w + e, count);
    let g = scales.clip_g * unclipped;
    let stepped = base_step(scales.hyper, chunk, i, count, w, g);
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
// end frame

@compute @workgroup_size(WORKGROUP)
fn lean_ascent(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = chunk_index(workgroup, lean_ascent_uniforms.grid_width);
    if index >= lean_ascent_uniforms.chunk_count {
        return;
    }
    let chunk = chunks[index];
    let scales = Scales(
        hyper,
        lean_ascent_uniforms.rho,
        1.0 / (lean_ascent_norms.perturbation + lean_ascent_uniforms.epsilon),
        clip(lean_ascent_norms.gradient, hyper.max_norm),
        hyper.lr * blend.sharpness,
    );
    climb(chunk, chunk.len, lane, scales); // each frame
}
