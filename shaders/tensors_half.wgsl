// Tensors in half precision, f16 or bf16, two elements a word: all arithmetic is in f32, and so are the
// states. Chunks start on multiples of four elements, and a tensor owns its last vector whole, so
// that there is no narrow form of this file. What lies in that vector past the tensor's end stays.
//
// Halves are taken apart and put together by their bits: WGSL leaves open how its built-ins round and
// what they make of subnormals, and gradients in f16 are often subnormal.

// f16 if not.
override BF16: bool = false;
// w + e_w is rounded to one of its two neighbours by chance, the nearer the likelier. To the nearest it
// would be w again wherever e_w is less than half of a last place.
override STOCHASTIC: bool = false;

// Everything but the sign.
const MAGNITUDE: u32 = 0x7fffffffu;
const INFINITY: u32 = 0x7f800000u;
// From the exponents of f32 to those of f16, in place.
const REBIAS: u32 = 0x38000000u;

fn from_f16(halves: vec4<u32>) -> vec4<f32> {
    let magnitude = halves & vec4<u32>(0x7fffu);
    let shifted = magnitude << vec4<u32>(13u);
    let subnormal = bitcast<vec4<u32>>(vec4<f32>(magnitude) * 0x1p-24f);
    var bits = select(shifted + REBIAS, subnormal, magnitude < vec4<u32>(0x400u));
    bits = select(bits, shifted | vec4<u32>(INFINITY), magnitude >= vec4<u32>(0x7c00u));
    return bitcast<vec4<f32>>(bits | ((halves & vec4<u32>(0x8000u)) << vec4<u32>(16u)));
}

// Drops the last `shift` bits: by chance, or to the nearest, ties to even.
fn cut(x: vec4<u32>, shift: vec4<u32>, noise: vec4<u32>, by_chance: bool) -> vec4<u32> {
    let one = vec4<u32>(1u);
    let below_half = (one << (shift - one)) - one;
    let nearest = below_half + ((x >> shift) & one);
    let chance = noise & ((one << shift) - one);
    return (x + select(nearest, chance, by_chance)) >> shift;
}

fn to_f16(x: vec4<f32>, noise: vec4<u32>, by_chance: bool) -> vec4<u32> {
    let bits = bitcast<vec4<u32>>(x);
    let magnitude = bits & vec4<u32>(MAGNITUDE);
    let exponent = magnitude >> vec4<u32>(23u);
    // Below 2^-14 a half has no leading one of its own, and ends at 2^-24 whatever the exponent.
    let subnormal = exponent < vec4<u32>(113u);
    let significand = (magnitude & vec4<u32>(0x7fffffu)) | vec4<u32>(0x800000u);
    var whole = select(magnitude - REBIAS, significand, subnormal);
    // A chance of less than 2^-7 of the smallest half: none.
    whole = select(whole, vec4<u32>(), exponent < vec4<u32>(95u));
    let shift = select(vec4<u32>(13u), min(126u - exponent, vec4<u32>(31u)), subnormal);
    let rounded = min(cut(whole, shift, noise, by_chance), vec4<u32>(0x7c00u));
    let halves = select(rounded, vec4<u32>(0x7e00u), magnitude > vec4<u32>(INFINITY));
    return halves | ((bits >> vec4<u32>(16u)) & vec4<u32>(0x8000u));
}

fn to_bf16(x: vec4<f32>, noise: vec4<u32>, by_chance: bool) -> vec4<u32> {
    let bits = bitcast<vec4<u32>>(x);
    let magnitude = bits & vec4<u32>(MAGNITUDE);
    let rounded = cut(magnitude, vec4<u32>(16u), noise, by_chance);
    let halves = select(rounded, vec4<u32>(0x7fc0u), magnitude > vec4<u32>(INFINITY));
    return halves | ((bits >> vec4<u32>(16u)) & vec4<u32>(0x8000u));
}

fn widened(halves: vec4<u32>) -> vec4<f32> {
    if BF16 {
        return bitcast<vec4<f32>>(halves << vec4<u32>(16u));
    }
    return from_f16(halves);
}

fn narrowed(x: vec4<f32>, noise: vec4<u32>, by_chance: bool) -> vec4<u32> {
    if BF16 {
        return to_bf16(x, noise, by_chance);
    }
    return to_f16(x, noise, by_chance);
}

fn unpacked(words: vec2<u32>) -> vec4<f32> {
    let low = words & vec2<u32>(0xffffu);
    let high = words >> vec2<u32>(16u);
    return widened(vec4<u32>(low.x, high.x, low.y, high.y));
}

// The first `count` elements from `value`, to the nearest; the others as they are in `old`.
fn packed(value: vec4<f32>, count: u32, old: vec2<u32>) -> vec2<u32> {
    let halves = narrowed(value, vec4<u32>(), false);
    let words = halves.xz | (halves.yw << vec2<u32>(16u));
    let owned = select(vec2<u32>(), vec2<u32>(0xffffu), vec2<u32>(0u, 2u) < vec2<u32>(count))
        | select(vec2<u32>(), vec2<u32>(0xffff0000u), vec2<u32>(1u, 3u) < vec2<u32>(count));
    return (words & owned) | (old & ~owned);
}

// Random bits from a counter and a seed: pcg4d of M. Jarzynski and M. Olano, Hash Functions for GPU
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

// Halves, by chance; `at` is the first element's place among those of all tensors.
fn dithered(x: vec4<f32>, at: u32) -> vec4<f32> {
    if !STOCHASTIC {
        return x;
    }
    return widened(narrowed(x, noise_of(at / 4u), true));
}

// frame
@group(0) @binding(1) var<storage, read_write> weight: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read_write> grad: array<vec2<u32>>;
@group(0) @binding(4) var<storage, read_write> grad_perturbed: array<vec2<u32>>;
@group(0) @binding(5) var<storage, read_write> partner: array<vec2<u32>>;

// Four elements from element i on; what lies past the end of a chunk is the caller's to ignore.
fn load_weight(i: u32) -> vec4<f32> {
    return unpacked(weight[i / 4u]);
}

fn load_grad(i: u32) -> vec4<f32> {
    return unpacked(grad[i / 4u]);
}

fn load_grad_perturbed(i: u32) -> vec4<f32> {
    return unpacked(grad_perturbed[i / 4u]);
}

fn load_partner(i: u32) -> vec4<f32> {
    return unpacked(partner[i / 4u]);
}

// The first `count` of four elements, to element i on.
fn store_weight(i: u32, value: vec4<f32>, count: u32) {
    if count >= 4u {
        weight[i / 4u] = packed(value, 4u, vec2<u32>());
    } else {
        weight[i / 4u] = packed(value, count, weight[i / 4u]);
    }
}

fn store_partner(i: u32, value: vec4<f32>, count: u32) {
    if count >= 4u {
        partner[i / 4u] = packed(value, 4u, vec2<u32>());
    } else {
        partner[i / 4u] = packed(value, count, partner[i / 4u]);
    }
}
// end frame
