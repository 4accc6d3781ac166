// norm: the global L2 norm over all tensors of a model, in two entry points.
//
//     norm         partials[first_partial + chunk] = sum of x^2 over the chunk
//     norm_finish  norms[slots] = sqrt(sum of all partials)
//
// with x = g, or x = |w| g if ADAPTIVE. Reads weight (if ADAPTIVE) and grad, writes partials.
// Every sum runs in a fixed order, so the norm is the same bits every time.
//
// x^2 leaves the range of f32 for |x| above 1e19 or below 1e-19. Where a plain sum of squares is
// not safely inside, it is taken again after J. L. Blue (ACM TOMS 4, 1978): large, middling and
// small magnitudes are summed apart, the outer two scaled by powers of two, so that gradients from
// 1e-37 to 1e+37, and 2^33 of them, give the right norm.

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
@group(0) @binding(11) var<storage, read_write> partials: array<vec4<f32>>;
@group(0) @binding(12) var<uniform> norm_finish_uniforms: NormFinishUniforms;
@group(0) @binding(13) var<storage, read_write> norms: array<f32, 4>;

const LARGE: f32 = 0x1p+47f;
const LARGE_SCALE: f32 = 0x1p-85f;
const SMALL: f32 = 0x1p-58f;
const SMALL_SCALE: f32 = 0x1p+70f;
// A plain sum between these has neither overflowed nor lost anything that counts.
const SAFE_BELOW: f32 = 0x1p-80f;
const SAFE_ABOVE: f32 = 0x1p+90f;

// Squares of four elements, apart by magnitude; the outer two scaled.
struct Squares {
    large: vec4<f32>,
    middling: vec4<f32>,
    small: vec4<f32>,
}

fn add_squares(sums: Squares, x: vec4<f32>) -> Squares {
    let magnitude = abs(x);
    let large = magnitude > vec4<f32>(LARGE);
    let small = magnitude < vec4<f32>(SMALL);
    let zero = vec4<f32>();
    var scale = select(vec4<f32>(1.0), vec4<f32>(SMALL_SCALE), small);
    scale = select(scale, vec4<f32>(LARGE_SCALE), large);
    let scaled = magnitude * scale;
    let square = scaled * scaled;
    return Squares(
        sums.large + select(zero, square, large),
        sums.middling + select(square, zero, large | small),
        sums.small + select(zero, square, small),
    );
}

// What is squared: four elements from element i of a chunk on.
fn element(weight_start: u32, grad_start: u32, i: u32, len: u32) -> vec4<f32> {
    var x = load_grad(grad_start + i);
    if ADAPTIVE {
        x *= load_weight(weight_start + i);
    }
    // Past the end of the chunk lies somebody else's.
    return select(vec4<f32>(), x, vec4<u32>(i) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(len));
}

fn total(x: vec4<f32>) -> f32 {
    return (x.x + x.y) + (x.z + x.w);
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
var<workgroup> lane_sums: array<vec4<f32>, WORKGROUP>;
var<workgroup> level_sums: array<vec4<f32>, FIRST_LEVEL>;

// Two levels in place of a tree of eight: barriers cost more than the short serial sums. The
// result is valid in invocation 0 alone.
fn workgroup_sum(lane: u32, value: vec4<f32>) -> vec4<f32> {
    lane_sums[lane] = value;
    workgroupBarrier();
    if lane < FIRST_LEVEL {
        var sum = vec4<f32>();
        for (var i = 0u; i < WORKGROUP / FIRST_LEVEL; i += 1u) {
            sum += lane_sums[lane + i * FIRST_LEVEL];
        }
        level_sums[lane] = sum;
    }
    workgroupBarrier();
    var total = vec4<f32>();
    if lane == 0u {
        for (var i = 0u; i < FIRST_LEVEL; i += 1u) {
            total += level_sums[i];
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
        let chunk = chunks[index];
        len = chunk.len;
        weight_start = chunk.weight;
        grad_start = chunk.grad;
    }

    var sum = vec4<f32>();
    var largest = vec4<f32>();
    for (var i = 4u * lane; i < len; i += 4u * WORKGROUP) {
        let x = element(weight_start, grad_start, i, len);
        sum += x * x;
        largest = max(largest, abs(x));
    }
    var by_size = vec4<f32>(0.0, total(sum), 0.0, 0.0);
    // Squares that left the range, or that may have lost their smallest parts: sort them by size.
    if by_size.y > SAFE_ABOVE || (by_size.y < SAFE_BELOW && any(largest > vec4<f32>())) {
        var sums = Squares();
        for (var i = 4u * lane; i < len; i += 4u * WORKGROUP) {
            sums = add_squares(sums, element(weight_start, grad_start, i, len));
        }
        by_size = vec4<f32>(total(sums.large), total(sums.middling), total(sums.small), 0.0);
    }

    // Outside the branch: a barrier must be reached by the whole workgroup.
    let total = workgroup_sum(lane, by_size);
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
