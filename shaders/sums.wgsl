// Sums of partials, shared by norm.wgsl and coefficients.wgsl. The stage defines stride(), the distance between
// consecutive partials of one sum.

struct NormFinishUniforms {
    partial_count: u32,
    // Bit i set: write the norm of g to field i of Norms.
    slots_plain: u32,
    // Index of nonfinite_gradient or nonfinite_perturbed in Norms.
    nonfinite_flag: u32,
    // Number of scopes, for norm_and_finish.
    scope_count: u32,
    // End of each scope's partials.
    ends: array<vec4<u32>, 8>,
}

@group(1) @binding(4) var<uniform> norm_finish_uniforms: NormFinishUniforms;
// Norms as an array of atomics, because several workgroups may write the same flag.
@group(1) @binding(5) var<storage, read_write> norms: array<atomic<u32>, 40>;

// Partials that an invocation adds before it adds their sum to the total. Rounding errors grow with the length
// of a chain of additions, and 2^30 elements may have 2^21 partials.
const LINK: u32 = 128u;

// The sum of the partials from start to end of one norm (offset 0 or 1), valid in invocation 0.
fn stretch_sum(lane: u32, start: u32, end: u32, offset: u32) -> vec4<f32> {
    var sum = vec4<f32>();
    var i = start + lane;
    while i < end {
        var link = vec4<f32>();
        for (var count = 0u; count < LINK && i < end; count += 1u) {
            link += load_partial(i * stride() + offset);
            i += WORKGROUP;
        }
        sum += link;
    }
    return workgroup_sum(lane, sum);
}

fn end_of(scope: u32) -> u32 {
    return norm_finish_uniforms.ends[scope / 4u][scope % 4u];
}

const INV_SCALE: u32 = 3u;

fn finished(sum: vec4<f32>) -> f32 {
    let norm = root(sum);
    // Finite inputs give finite sums, so a sum that is not finite has a NaN or an infinity among its inputs.
    if any(magnitude(vec4<f32>(sum.xyz, norm)) >= vec4<u32>(NOT_FINITE)) {
        atomicStore(&norms[norm_finish_uniforms.nonfinite_flag], bitcast<u32>(1.0));
    }
    return bitcast<f32>(atomicLoad(&norms[INV_SCALE])) * norm;
}
