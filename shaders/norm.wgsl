// norm: the global L2 norm over all tensors of a model, in two entry points.
//
//     norm         partials[..] = sums of squares over a chunk
//     norm_finish  norms[slots] = inv_scale sqrt(sum of all partials)
//                  norms[nonfinite_flag]  = 1 if the sum is not finite
//
// norm_and_finish is both in one dispatch: the last workgroup to write its partials is norm_finish.
//
// PLAIN takes the norm of g. SCALED takes the norm that divides the perturbation: of |w| g for adaptive tensors,
// of g for the other perturbed tensors, without those that are not perturbed. If both are set, both norms are
// computed in one pass, and each plain partial is followed by its scaled partial. Reads weight (where adaptive)
// and grad, writes partials.
//
// Chunks are ordered by scope. norm_finish adds a contiguous range of the partials for each norm that divides
// perturbations, and all partials for the norm of g.
//
// Every sum has a fixed order, so the norm is reproducible bit for bit.
//
// A chunk has one partial, summed over its workgroup. If BY_LANE, it has one for each invocation, which avoids
// barriers on adapters where these are slow.
//
// A square leaves the range of f32 for magnitudes above 1e19 or below 1e-19. If a plain sum of squares is close
// to these limits, it is computed again by the method of J. L. Blue (ACM TOMS 4, 1978): large, middling and small
// magnitudes are summed separately, and the large and small ones are scaled by powers of two. The norm is then
// correct for magnitudes from 1e-37 to 1e+37 and up to 2^33 elements. A norm beyond the range of f32 becomes
// infinity, and the perturbation zero, because g / infinity is 0.

override PLAIN: bool = true;
override SCALED: bool = false;
override BY_LANE: bool = false;

// Sums of squares: (large, middling, small, 0).
struct Sums {
    plain: vec4<f32>,
    scaled: vec4<f32>,
}

// Plain sums of squares, and the bitwise or of the elements. The latter shows whether all elements are zero,
// and is cheaper than the largest magnitude.
struct Plain {
    plain: vec4<f32>,
    bits_plain: vec4<u32>,
    scaled: vec4<f32>,
    bits_scaled: vec4<u32>,
}

// Four elements of a chunk from element i on, of which the first `count` belong to the chunk; zeros after these.
fn grad_at_SET(chunk: Chunk, i: u32, count: u32) -> vec4<f32> {
    return first(count, load_grad_SET(chunk.grad + i));
}

// w g if adaptive, else g. The sign of w does not matter for the square.
fn scaled_at_SET(chunk: Chunk, i: u32, count: u32, g: vec4<f32>, adaptive: bool) -> vec4<f32> {
    if adaptive {
        return first(count, load_original_SET(chunk, i)) * g;
    }
    return g;
}

fn add_at_SET(chunk: Chunk, i: u32, count: u32, adaptive: bool, to: Plain) -> Plain {
    var sums = to;
    let g = grad_at_SET(chunk, i, count);
    if PLAIN {
        sums.plain += g * g;
        sums.bits_plain |= bitcast<vec4<u32>>(g);
    }
    if SCALED {
        let x = scaled_at_SET(chunk, i, count, g, adaptive);
        sums.scaled += x * x;
        sums.bits_scaled |= bitcast<vec4<u32>>(x);
    }
    return sums;
}

// Sums over one invocation's elements of a chunk.
fn sum_of_SET(chunk: Chunk, len: u32, lane: u32, adaptive: bool) -> Sums {
    var found = Plain();
    var i = 4u * lane;
    let stride = 4u * WORKGROUP;
    for (; i + 3u * stride + 4u <= len; i += 4u * stride) {
        found = add_at_SET(chunk, i, 4u, adaptive, found);
        found = add_at_SET(chunk, i + stride, 4u, adaptive, found);
        found = add_at_SET(chunk, i + 2u * stride, 4u, adaptive, found);
        found = add_at_SET(chunk, i + 3u * stride, 4u, adaptive, found);
    }
    for (; i + 4u <= len; i += stride) {
        found = add_at_SET(chunk, i, 4u, adaptive, found);
    }
    if owns_tail(len, lane) {
        found = add_at_SET(chunk, len - len % 4u, len % 4u, adaptive, found);
    }
    var sums = Sums(
        vec4<f32>(0.0, total(found.plain), 0.0, 0.0),
        vec4<f32>(0.0, total(found.scaled), 0.0, 0.0),
    );
    let unsafe_plain = PLAIN && unsafe_sum(sums.plain.y, found.bits_plain);
    let unsafe_scaled = SCALED && unsafe_sum(sums.scaled.y, found.bits_scaled);
    if unsafe_plain || unsafe_scaled {
        var plain = Squares();
        var scaled = Squares();
        // One loop for both sums: an invocation's loop iterations are limited (MAX_LOOP_ITERATIONS in
        // src/engine/tuning.rs).
        for (var i = 4u * lane; i < len; i += 4u * WORKGROUP) {
            let g = grad_at_SET(chunk, i, len - i);
            if PLAIN {
                plain = add_squares(plain, g);
            }
            if SCALED {
                scaled = add_squares(scaled, scaled_at_SET(chunk, i, len - i, g, adaptive));
            }
        }
        if unsafe_plain {
            sums.plain = joined(plain);
        }
        if unsafe_scaled {
            sums.scaled = joined(scaled);
        }
    }
    return sums;
}

// Distance between consecutive partials of one norm.
fn stride() -> u32 {
    return select(1u, 2u, PLAIN && SCALED);
}

// The sums over one invocation's elements of a chunk.
fn chunk_sums(chunk: Chunk, lane: u32) -> Sums {
    let adaptive = is_adaptive(param_classes[chunk.param_class]);
    var sums = Sums();
    sums = add_sums(sums, sum_of_SET(chunk, len_SET(chunk), lane, adaptive));
    return sums;
}

// The sums over a workgroup, valid in invocation 0.
fn workgroup_sums(lane: u32, own: Sums) -> Sums {
    var sums = own;
    if PLAIN {
        sums.plain = workgroup_sum(lane, sums.plain);
    }
    if SCALED {
        sums.scaled = workgroup_sum(lane, sums.scaled);
    }
    return sums;
}

// Partials are in the order of the tensors, independent of their buffers, so that they are added in the same
// order.
fn store_sums(index: u32, sums: Sums) {
    var place = index * stride();
    if PLAIN {
        store_partial(place, sums.plain);
        place += 1u;
    }
    if SCALED {
        store_partial(place, sums.scaled);
    }
}

@compute @workgroup_size(WORKGROUP)
fn norm(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = chunk_index(workgroup);
    let is_chunk = row < dispatch.chunk_count;
    var chunk = Chunk();
    if is_chunk {
        chunk = chunks[row];
    }
    var sums = chunk_sums(chunk, lane);
    var place = chunk.index;
    var writes = is_chunk;
    if BY_LANE {
        place = place * WORKGROUP + lane;
    } else {
        // In uniform control flow, because the whole workgroup must reach the barriers.
        sums = workgroup_sums(lane, sums);
        writes = is_chunk && lane == 0u;
    }
    if writes {
        store_sums(place, sums);
    }
}

fn add_sums(a: Sums, b: Sums) -> Sums {
    return Sums(a.plain + b.plain, a.scaled + b.scaled);
}

// Computes the norm of a scope; with scope 0 also the norm of g.
fn finish(scope: u32, lane: u32) {
    if SCALED {
        var start = 0u;
        if scope > 0u {
            start = end_of(scope - 1u);
        }
        let offset = stride() - 1u;
        let sum = stretch_sum(lane, start, end_of(scope), offset);
        if lane == 0u {
            // Scope 0 is the field `perturbation`; the others follow the named fields.
            let slot = select(3u + scope, 1u, scope == 0u);
            atomicStore(&norms[slot], bitcast<u32>(finished(sum)));
        }
    }
    if PLAIN {
        var end = norm_finish_uniforms.partial_count;
        if scope > 0u {
            end = 0u;
        }
        let sum = stretch_sum(lane, 0u, end, 0u);
        if lane == 0u && scope == 0u {
            let norm = finished(sum);
            for (var slot = 0u; slot < INV_SCALE; slot += 1u) {
                if (norm_finish_uniforms.slots_plain & (1u << slot)) != 0u {
                    atomicStore(&norms[slot], bitcast<u32>(norm));
                }
            }
        }
    }
}

// One workgroup for each scope.
@compute @workgroup_size(WORKGROUP)
fn norm_finish(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    finish(workgroup.x, lane);
}

// Index in Norms of the number of chunks whose partials are written.
const CHUNKS_DONE: u32 = 38u;

var<workgroup> is_last: u32;

// The engine uses this entry point only where storageBarrier orders memory accesses for the whole device, and
// not only for the workgroup as WGSL promises: in wgpu's SPIR-V.
@compute @workgroup_size(WORKGROUP)
fn norm_and_finish(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = chunk_index(workgroup);
    let is_chunk = row < dispatch.chunk_count;
    var chunk = Chunk();
    if is_chunk {
        chunk = chunks[row];
    }
    let sums = workgroup_sums(lane, chunk_sums(chunk, lane));
    if is_chunk && lane == 0u {
        store_sums(chunk.index, sums);
    }
    // The partials are written before the chunk is counted as done.
    storageBarrier();
    if lane == 0u {
        is_last = 0u;
        if is_chunk {
            let done = atomicAdd(&norms[CHUNKS_DONE], 1u) + 1u;
            is_last = u32(done == norm_finish_uniforms.partial_count);
        }
    }
    let finishes = workgroupUniformLoad(&is_last);
    // The partials are read after the last chunk was counted.
    storageBarrier();
    if finishes == 0u {
        return;
    }
    for (var scope = 0u; scope < norm_finish_uniforms.scope_count; scope += 1u) {
        finish(scope, lane);
    }
    if lane == 0u {
        // For the next norm of the step.
        atomicStore(&norms[CHUNKS_DONE], 0u);
    }
}
