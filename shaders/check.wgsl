// check: checks that a gradient is finite, in steps that do not compute its norm.
//
//     norms[NONFINITE_FLAG] = 1 if an element of grad is a NaN or an infinity
//
// Reads grad.

// Index of nonfinite_gradient or nonfinite_perturbed in Norms.
override NONFINITE_FLAG: u32 = 36u;

// Norms as an array of atomics, because several invocations may write the flag.
@group(1) @binding(5) var<storage, read_write> norms: array<atomic<u32>, 40>;

// The largest magnitude among one invocation's elements of a chunk, as bits.
fn largest_of_SET(chunk: Chunk, len: u32, lane: u32) -> u32 {
    var largest = vec4<u32>();
    for (var i = 4u * lane; i + 4u <= len; i += 4u * WORKGROUP) {
        largest = max(largest, magnitude(load_grad_SET(chunk.grad + i)));
    }
    if owns_tail(len, lane) {
        let tail = first(len % 4u, load_grad_SET(chunk.grad + len - len % 4u));
        largest = max(largest, magnitude(tail));
    }
    return max(max(largest.x, largest.y), max(largest.z, largest.w));
}

@compute @workgroup_size(WORKGROUP)
fn check(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = chunk_index(workgroup);
    if index >= dispatch.chunk_count {
        return;
    }
    let chunk = chunks[index];
    var largest = 0u;
    largest = max(largest, largest_of_SET(chunk, len_SET(chunk), lane));
    if largest >= NOT_FINITE {
        atomicStore(&norms[NONFINITE_FLAG], bitcast<u32>(1.0));
    }
}
