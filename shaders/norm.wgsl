// norm: the global L2 norm over all tensors of a model, in two entry points.
//
//     norm         partials[first_partial + chunk] = sum of x^2 over the chunk
//     norm_finish  norms[slots] = sqrt(sum of all partials)
//
// with x = g, or x = |w| g if ADAPTIVE. Reads weight (if ADAPTIVE) and grad, writes partials.
// Every sum runs in a fixed order, so the norm is the same bits every time.
//
// x^2 leaves the range of f32 for |x| above 1e19 or below 1e-19. After J. L. Blue (ACM TOMS 4,
// 1978), large, middling and small magnitudes are summed apart, the outer two scaled by powers of
// two, so that gradients from 1e-37 to 1e+37, and 2^33 of them, give the right norm in one pass.

override ADAPTIVE: bool = false;

struct NormUniforms {
    chunk_count: u32,
    grid_width: u32,
    first_partial: u32,
    padding: u32,
}

struct NormFinishUniforms {
    partial_count: u32,
    // Bit i set: write field i of Norms.
    slots: u32,
    padding_0: u32,
    padding_1: u32,
}

@group(0) @binding(0) var<uniform> norm_uniforms: NormUniforms;
@group(0) @binding(1) var<storage, read> norm_chunks: array<Chunk>;
@group(0) @binding(2) var<storage, read_write> norm_weight: array<f32>;
@group(0) @binding(3) var<storage, read_write> norm_grad: array<f32>;
@group(0) @binding(4) var<storage, read_write> partials: array<vec4<f32>>;
@group(0) @binding(5) var<uniform> norm_finish_uniforms: NormFinishUniforms;
@group(0) @binding(6) var<storage, read_write> norms: array<f32, 4>;

const LARGE: f32 = 0x1p+47f;
const LARGE_SCALE: f32 = 0x1p-85f;
const SMALL: f32 = 0x1p-58f;
const SMALL_SCALE: f32 = 0x1p+70f;

// x: scaled large squares, y: middling squares, z: scaled small squares.
fn squares(x: f32) -> vec4<f32> {
    let magnitude = abs(x);
    let large = magnitude > LARGE;
    let small = magnitude < SMALL;
    let scaled = magnitude * select(select(1.0, SMALL_SCALE, small), LARGE_SCALE, large);
    let square = scaled * scaled;
    return vec4<f32>(
        select(0.0, square, large),
        select(square, 0.0, large || small),
        select(0.0, square, small),
        0.0,
    );
}

// Each part is rooted before it is brought back to scale, and the three are joined by ratios: a
// chain of two scalings could be folded by a driver into one constant outside the range of f32.
fn root(sum: vec4<f32>) -> f32 {
    let large = sqrt(sum.x) / LARGE_SCALE;
    let middling = sqrt(sum.y);
    let small = sqrt(sum.z) / SMALL_SCALE;
    let largest = max(large, max(middling, small));
    if largest == 0.0 {
        // Zero, or the NaN that max may pass over.
        return middling;
    }
    let ratios = vec3<f32>(large, middling, small) / largest;
    return largest * sqrt(dot(ratios, ratios));
}

const FIRST_LEVEL: u32 = 16u;
var<workgroup> shared_sums: array<vec4<f32>, WORKGROUP>;

// Two levels in place of a tree of eight: barriers cost more than the short serial sums. The
// result is valid in invocation 0 alone.
fn workgroup_sum(lane: u32, value: vec4<f32>) -> vec4<f32> {
    shared_sums[lane] = value;
    workgroupBarrier();
    var sum = vec4<f32>();
    if lane < FIRST_LEVEL {
        for (var i = 0u; i < WORKGROUP / FIRST_LEVEL; i += 1u) {
            sum += shared_sums[lane + i * FIRST_LEVEL];
        }
    }
    workgroupBarrier();
    if lane < FIRST_LEVEL {
        shared_sums[lane] = sum;
    }
    workgroupBarrier();
    var total = vec4<f32>();
    if lane == 0u {
        for (var i = 0u; i < FIRST_LEVEL; i += 1u) {
            total += shared_sums[i];
        }
    }
    return total;
}

@compute @workgroup_size(WORKGROUP)
fn norm(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = chunk_index(workgroup, norm_uniforms.grid_width);
    let inside = index < norm_uniforms.chunk_count;
    var len = 0u;
    var weight_start = 0u;
    var grad_start = 0u;
    if inside {
        let chunk = norm_chunks[index];
        len = chunk.len;
        weight_start = chunk.weight;
        grad_start = chunk.grad;
    }

    var sum = vec4<f32>();
    for (var i = lane; i < len; i += WORKGROUP) {
        var x = norm_grad[grad_start + i];
        if ADAPTIVE {
            x *= norm_weight[weight_start + i];
        }
        sum += squares(x);
    }

    // Outside the branch: a barrier must be reached by the whole workgroup.
    let total = workgroup_sum(lane, sum);
    if inside && lane == 0u {
        partials[norm_uniforms.first_partial + index] = total;
    }
}

@compute @workgroup_size(WORKGROUP)
fn norm_finish(@builtin(local_invocation_index) lane: u32) {
    var sum = vec4<f32>();
    for (var i = lane; i < norm_finish_uniforms.partial_count; i += WORKGROUP) {
        sum += partials[i];
    }
    let total = workgroup_sum(lane, sum);
    if lane == 0u {
        let norm = root(total);
        for (var slot = 0u; slot < 4u; slot += 1u) {
            if (norm_finish_uniforms.slots & (1u << slot)) != 0u {
                norms[slot] = norm;
            }
        }
    }
}
