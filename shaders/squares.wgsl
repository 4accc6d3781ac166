// Sums of squares that neither overflow nor underflow, by the method of J. L. Blue (norm.wgsl): their root, and the
// sum over a workgroup.

const LARGE: f32 = 0x1p+47f;
const LARGE_SCALE: f32 = 0x1p-85f;
const SMALL: f32 = 0x1p-58f;
const SMALL_SCALE: f32 = 0x1p+70f;
// A plain sum between these bounds has neither overflowed nor lost a significant part to underflow.
const SAFE_BELOW: f32 = 0x1p-80f;
const SAFE_ABOVE: f32 = 0x1p+90f;

// Sums of squares, separated by magnitude; those of large and small magnitudes are scaled.
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

fn total(x: vec4<f32>) -> f32 {
    return (x.x + x.y) + (x.z + x.w);
}

// The sums over the four elements, as in Sums.
fn joined(sums: Squares) -> vec4<f32> {
    return vec4<f32>(total(sums.large), total(sums.middling), total(sums.small), 0.0);
}

// Whether a plain sum may have overflowed or underflowed. `bits` is the bitwise or of all elements.
fn unsafe_sum(sum: f32, bits: vec4<u32>) -> bool {
    return sum > SAFE_ABOVE || (sum < SAFE_BELOW && any((bits << vec4<u32>(1u)) != vec4<u32>()));
}

// The root of the three sums. Each sum's root is taken before it is unscaled, and the three are combined by
// their ratios, because a driver could fold two consecutive scalings into one constant outside the range of f32.
fn root(sum: vec4<f32>) -> f32 {
    if any(magnitude(vec4<f32>(sum.xyz, 0.0)) > vec4<u32>(NOT_FINITE)) {
        // A NaN, which max below may ignore.
        return (sum.x + sum.y) + sum.z;
    }
    let large = sqrt(sum.x) / LARGE_SCALE;
    let middling = sqrt(sum.y);
    let small = sqrt(sum.z) / SMALL_SCALE;
    let largest = max(large, max(middling, small));
    if largest == 0.0 || magnitude(vec4<f32>(largest)).x >= NOT_FINITE {
        // The ratios below would be NaN: 0 / 0, or infinity / infinity.
        return largest;
    }
    let ratios = vec3<f32>(large, middling, small) / largest;
    return largest * sqrt(dot(ratios, ratios));
}

const FIRST_LEVEL: u32 = 8u;
var<workgroup> lane_sums: array<vec4<f32>, WORKGROUP>;
var<workgroup> level_sums: array<vec4<f32>, FIRST_LEVEL>;

// The sum over a workgroup, valid in invocation 0. It has two levels instead of a binary tree of eight, because
// barriers cost more than the short serial sums.
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
    // The next call writes lane_sums again.
    workgroupBarrier();
    return total;
}
