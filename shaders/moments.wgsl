// moments: partial sums over one or two operands a and b, from which coefficients.wgsl computes norms and factors.
//
//     partials[SUMS index + 0] = sum of a^2 over a chunk
//     partials[SUMS index + 1] = sum of b^2         SUMS >= 2
//     partials[SUMS index + 2] = sum of a b         SUMS == 3
//
// operands_gradients.wgsl or operands_direction.wgsl says what a and b are. Chunks are ordered by scope, and every sum
// has a fixed order, as in norm.wgsl.
//
// Where a sum of squares is close to the limits of f32, the sums of the invocation are computed again: squares as in
// squares.wgsl, and products by their exponents. Both then hold three sums, for large, middling and small magnitudes.

override SUMS: u32 = 3u;

// Sums as in Sums of norm.wgsl: (large, middling, small, 0).
struct Moments {
    aa: vec4<f32>,
    bb: vec4<f32>,
    ab: vec4<f32>,
}

// Plain sums, and the bitwise or of the elements.
struct PlainMoments {
    aa: vec4<f32>,
    bb: vec4<f32>,
    ab: vec4<f32>,
    bits_a: vec4<u32>,
    bits_b: vec4<u32>,
}

fn stride() -> u32 {
    return SUMS;
}

// Adds the products of four elements, separated by exponent (products.wgsl). `Squares` holds the sums.
fn add_products(sums: Squares, a: vec4<f32>, b: vec4<f32>) -> Squares {
    let e = exponents(a) + exponents(b);
    let large = e > vec4<i32>(PRODUCT_LARGE);
    let small = e < vec4<i32>(-PRODUCT_LARGE);
    var shift = select(vec4<i32>(), vec4<i32>(PRODUCT_SHIFT), small);
    shift = select(shift, vec4<i32>(-PRODUCT_SHIFT), large);
    let product = significands(a) * significands(b) * powers(e + shift);
    let zero = vec4<f32>();
    return Squares(
        sums.large + select(zero, product, large),
        sums.middling + select(product, zero, large | small),
        sums.small + select(zero, product, small),
    );
}

fn add_at_SET(chunk: Chunk, i: u32, count: u32, factors: Factors, to: PlainMoments) -> PlainMoments {
    var sums = to;
    let x = operands_at_SET(chunk, i, count, factors);
    sums.aa += x.a * x.a;
    sums.bits_a |= bitcast<vec4<u32>>(x.a);
    if SUMS >= 2u {
        sums.bb += x.b * x.b;
        sums.bits_b |= bitcast<vec4<u32>>(x.b);
    }
    if SUMS == 3u {
        sums.ab += x.a * x.b;
    }
    return sums;
}

// Sums over one invocation's elements of a chunk.
fn moments_of_SET(chunk: Chunk, len: u32, lane: u32, factors: Factors) -> Moments {
    var found = PlainMoments();
    var i = 4u * lane;
    let stride = 4u * WORKGROUP;
    for (; i + 3u * stride + 4u <= len; i += 4u * stride) {
        found = add_at_SET(chunk, i, 4u, factors, found);
        found = add_at_SET(chunk, i + stride, 4u, factors, found);
        found = add_at_SET(chunk, i + 2u * stride, 4u, factors, found);
        found = add_at_SET(chunk, i + 3u * stride, 4u, factors, found);
    }
    for (; i + 4u <= len; i += stride) {
        found = add_at_SET(chunk, i, 4u, factors, found);
    }
    if owns_tail(len, lane) {
        found = add_at_SET(chunk, len - len % 4u, len % 4u, factors, found);
    }
    var sums = Moments(
        vec4<f32>(0.0, total(found.aa), 0.0, 0.0),
        vec4<f32>(0.0, total(found.bb), 0.0, 0.0),
        vec4<f32>(0.0, total(found.ab), 0.0, 0.0),
    );
    let unsafe_a = unsafe_sum(sums.aa.y, found.bits_a);
    let unsafe_b = SUMS >= 2u && unsafe_sum(sums.bb.y, found.bits_b);
    if unsafe_a || unsafe_b {
        var aa = Squares();
        var bb = Squares();
        var ab = Squares();
        // One loop for all sums: an invocation's loop iterations are limited (MAX_LOOP_ITERATIONS in
        // src/engine/tuning.rs).
        for (var i = 4u * lane; i < len; i += 4u * WORKGROUP) {
            let x = operands_at_SET(chunk, i, len - i, factors);
            aa = add_squares(aa, x.a);
            if SUMS >= 2u {
                bb = add_squares(bb, x.b);
            }
            if SUMS == 3u {
                ab = add_products(ab, x.a, x.b);
            }
        }
        if unsafe_a {
            sums.aa = joined(aa);
        }
        if unsafe_b {
            sums.bb = joined(bb);
        }
        sums.ab = joined(ab);
    }
    return sums;
}

fn add_moments(a: Moments, b: Moments) -> Moments {
    return Moments(a.aa + b.aa, a.bb + b.bb, a.ab + b.ab);
}

// The sums over one invocation's elements of a chunk.
fn chunk_moments(chunk: Chunk, lane: u32) -> Moments {
    let factors = factors_of(param_classes[chunk.param_class]);
    var sums = Moments();
    sums = add_moments(sums, moments_of_SET(chunk, select(len_SET(chunk), 0u, factors.is_excluded), lane, factors));
    return sums;
}

@compute @workgroup_size(WORKGROUP)
fn moments(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = chunk_index(workgroup);
    let is_chunk = row < dispatch.chunk_count;
    var chunk = Chunk();
    if is_chunk {
        chunk = chunks[row];
    }
    // In uniform control flow, because the whole workgroup must reach the barriers.
    let own = chunk_moments(chunk, lane);
    let aa = workgroup_sum(lane, own.aa);
    var bb = vec4<f32>();
    var ab = vec4<f32>();
    if SUMS >= 2u {
        bb = workgroup_sum(lane, own.bb);
    }
    if SUMS == 3u {
        ab = workgroup_sum(lane, own.ab);
    }
    if is_chunk && lane == 0u {
        let place = chunk.index * SUMS;
        store_partial(place, aa);
        if SUMS >= 2u {
            store_partial(place + 1u, bb);
        }
        if SUMS == 3u {
            store_partial(place + 2u, ab);
        }
    }
}
