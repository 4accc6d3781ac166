// Tensors in half precision, f16 or bf16, two elements in each word. All arithmetic is in f32, and the states
// are f32. Chunks start on multiples of four elements, and no other tensor shares a tensor's last vector, so
// there is no narrow version of this file. Bits of that vector after the tensor's end are preserved.
//
// Half floats are converted by bit operations, because WGSL does not specify how its built-ins round and
// whether they flush subnormals, and f16 gradients are often subnormal.

// bf16 instead of f16.
override BF16: bool = false;
// Round w + e_w stochastically: to one of its two neighbours, with a probability that falls with the distance.
// Rounding to nearest would give w if e_w is less than half a unit in the last place.
override STOCHASTIC: bool = false;

// All bits except the sign.
const MAGNITUDE: u32 = 0x7fffffffu;
const INFINITY: u32 = 0x7f800000u;
// Difference between the exponent biases of f32 and f16, in the position of f32's exponent.
const REBIAS: u32 = 0x38000000u;

fn from_f16(halves: vec4<u32>) -> vec4<f32> {
    let magnitude = halves & vec4<u32>(0x7fffu);
    let shifted = magnitude << vec4<u32>(13u);
    let subnormal = bitcast<vec4<u32>>(vec4<f32>(magnitude) * 0x1p-24f);
    var bits = select(shifted + REBIAS, subnormal, magnitude < vec4<u32>(0x400u));
    bits = select(bits, shifted | vec4<u32>(INFINITY), magnitude >= vec4<u32>(0x7c00u));
    return bitcast<vec4<f32>>(bits | ((halves & vec4<u32>(0x8000u)) << vec4<u32>(16u)));
}

// Drops the last `shift` bits, rounding stochastically or to nearest, ties to even.
fn cut(x: vec4<u32>, shift: vec4<u32>, noise: vec4<u32>, stochastic: bool) -> vec4<u32> {
    let one = vec4<u32>(1u);
    let below_half = (one << (shift - one)) - one;
    let nearest = below_half + ((x >> shift) & one);
    let random = noise & ((one << shift) - one);
    return (x + select(nearest, random, stochastic)) >> shift;
}

fn to_f16(x: vec4<f32>, noise: vec4<u32>, stochastic: bool) -> vec4<u32> {
    let bits = bitcast<vec4<u32>>(x);
    let magnitude = bits & vec4<u32>(MAGNITUDE);
    let exponent = magnitude >> vec4<u32>(23u);
    // Below 2^-14 an f16 is subnormal: it has no implicit leading one, and its last bit is 2^-24.
    let subnormal = exponent < vec4<u32>(113u);
    let significand = (magnitude & vec4<u32>(0x7fffffu)) | vec4<u32>(0x800000u);
    var whole = select(magnitude - REBIAS, significand, subnormal);
    // Below 2^-32 the result is zero, also if rounded stochastically: a shift has at most 31 bits, and the
    // probability of rounding up would be less than 2^-8.
    whole = select(whole, vec4<u32>(), exponent < vec4<u32>(95u));
    let shift = select(vec4<u32>(13u), min(126u - exponent, vec4<u32>(31u)), subnormal);
    let rounded = min(cut(whole, shift, noise, stochastic), vec4<u32>(0x7c00u));
    let halves = select(rounded, vec4<u32>(0x7e00u), magnitude > vec4<u32>(INFINITY));
    return halves | ((bits >> vec4<u32>(16u)) & vec4<u32>(0x8000u));
}

fn to_bf16(x: vec4<f32>, noise: vec4<u32>, stochastic: bool) -> vec4<u32> {
    let bits = bitcast<vec4<u32>>(x);
    let magnitude = bits & vec4<u32>(MAGNITUDE);
    let rounded = cut(magnitude, vec4<u32>(16u), noise, stochastic);
    let halves = select(rounded, vec4<u32>(0x7fc0u), magnitude > vec4<u32>(INFINITY));
    return halves | ((bits >> vec4<u32>(16u)) & vec4<u32>(0x8000u));
}

fn widened(halves: vec4<u32>) -> vec4<f32> {
    if BF16 {
        return bitcast<vec4<f32>>(halves << vec4<u32>(16u));
    }
    return from_f16(halves);
}

fn narrowed(x: vec4<f32>, noise: vec4<u32>, stochastic: bool) -> vec4<u32> {
    if BF16 {
        return to_bf16(x, noise, stochastic);
    }
    return to_f16(x, noise, stochastic);
}

fn unpacked(words: vec2<u32>) -> vec4<f32> {
    let low = words & vec2<u32>(0xffffu);
    let high = words >> vec2<u32>(16u);
    return widened(vec4<u32>(low.x, high.x, low.y, high.y));
}

// Packs the first `count` elements of `value`, rounded to nearest, and keeps the bits of the others from `old`.
fn packed(value: vec4<f32>, count: u32, old: vec2<u32>) -> vec2<u32> {
    let halves = narrowed(value, vec4<u32>(), false);
    let words = halves.xz | (halves.yw << vec2<u32>(16u));
    let owned = select(vec2<u32>(), vec2<u32>(0xffffu), vec2<u32>(0u, 2u) < vec2<u32>(count))
        | select(vec2<u32>(), vec2<u32>(0xffff0000u), vec2<u32>(1u, 3u) < vec2<u32>(count));
    return (words & owned) | (old & ~owned);
}

// Random bits from a counter and the seed: pcg4d of M. Jarzynski and M. Olano, Hash Functions for GPU
// Rendering (JCGT 9(3), 2020).
fn noise_of(counter: u32) -> vec4<u32> {
    var v = vec4<u32>(counter, dispatch.seed_0, dispatch.seed_1, 0u);
    v = v * 1664525u + 1013904223u;
    v.x += v.y * v.w;
    v.y += v.z * v.x;
    v.z += v.x * v.y;
    v.w += v.y * v.z;
    v ^= v >> vec4<u32>(16u);
    v.x += v.y * v.w;
    v.y += v.z * v.x;
    v.z += v.x * v.y;
    v.w += v.y * v.z;
    return v;
}

// Rounds to half precision if STOCHASTIC. `at` is the index of the first element among all tensors.
fn dithered(x: vec4<f32>, at: u32) -> vec4<f32> {
    if !STOCHASTIC {
        return x;
    }
    return widened(narrowed(x, noise_of(at / 4u), true));
}

@group(0) @binding(1) var<storage, read_write> weight_SET: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read_write> grad_SET: array<vec2<u32>>;
@group(0) @binding(4) var<storage, read_write> grad_perturbed_SET: array<vec2<u32>>;
@group(0) @binding(5) var<storage, read_write> weight_copy_SET: array<vec2<u32>>;

// Four elements from element i on. The caller must ignore those after the end of the chunk.
fn load_weight_SET(i: u32) -> vec4<f32> {
    return unpacked(weight_SET[i / 4u]);
}

fn load_grad_SET(i: u32) -> vec4<f32> {
    return unpacked(grad_SET[i / 4u]);
}

fn load_grad_perturbed_SET(i: u32) -> vec4<f32> {
    return unpacked(grad_perturbed_SET[i / 4u]);
}

// h, the method's state, where it is bound in the column of g~. It is f32 also if the tensors are in half precision.
fn load_method_state_SET(i: u32) -> vec4<f32> {
    let words = vec4<u32>(grad_perturbed_SET[i / 2u], grad_perturbed_SET[i / 2u + 1u]);
    return bitcast<vec4<f32>>(words);
}

fn load_weight_copy_SET(i: u32) -> vec4<f32> {
    return unpacked(weight_copy_SET[i / 4u]);
}

// Stores the first `count` of four elements from element i on.
fn store_weight_SET(i: u32, value: vec4<f32>, count: u32) {
    if count >= 4u {
        weight_SET[i / 4u] = packed(value, 4u, vec2<u32>());
    } else {
        weight_SET[i / 4u] = packed(value, count, weight_SET[i / 4u]);
    }
}

fn store_weight_copy_SET(i: u32, value: vec4<f32>, count: u32) {
    if count >= 4u {
        weight_copy_SET[i / 4u] = packed(value, 4u, vec2<u32>());
    } else {
        weight_copy_SET[i / 4u] = packed(value, count, weight_copy_SET[i / 4u]);
    }
}
