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

@group(0) @binding(0) var<uniform> ascent_uniforms: AscentUniforms;
@group(0) @binding(1) var<storage, read> ascent_chunks: array<Chunk>;
@group(0) @binding(2) var<uniform> ascent_norms: Norms;
@group(0) @binding(3) var<storage, read_write> ascent_weight: array<f32>;
@group(0) @binding(4) var<storage, read_write> ascent_grad: array<f32>;
@group(0) @binding(5) var<storage, read_write> ascent_partner: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn ascent(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = chunk_index(workgroup, ascent_uniforms.grid_width);
    if index >= ascent_uniforms.chunk_count {
        return;
    }
    let chunk = ascent_chunks[index];
    let divisor = ascent_norms.perturbation + ascent_uniforms.epsilon;

    for (var i = lane; i < chunk.len; i += WORKGROUP) {
        let w = ascent_weight[chunk.weight + i];
        // Divided first: g / ||g|| is at most 1, while rho / ||g|| may leave the range of f32.
        var e = ascent_uniforms.rho * (ascent_grad[chunk.grad + i] / divisor);
        if ADAPTIVE {
            e *= w * w;
        }
        if IN_PLACE {
            ascent_partner[chunk.partner + i] = w;
            ascent_weight[chunk.weight + i] = w + e;
        } else {
            ascent_partner[chunk.partner + i] = w + e;
        }
    }
}
