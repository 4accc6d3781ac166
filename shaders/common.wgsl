// Included first in every stage: the division of work, the ownership of elements, and the bindings.
//
// A dispatch covers a table of chunks. A chunk is a contiguous range of one tensor and is processed by one
// workgroup: invocation i owns the elements 4 i .. 4 i + 3 of the chunk, then those 4 WORKGROUP further on, in
// every buffer. No two invocations access the same element, and no element outside a chunk is written.
//
// A dispatch reaches tensors in several buffer sets (for each column, such as weight or grad, one buffer). SET
// stands for the number of a set: src/layout/buffer_sets.rs repeats, with the number in place of SET,
//
//   - each variable and function whose name ends in _SET (variables only if the sets differ in them),
//   - in all other functions, each line that uses such a function or variable.
//
// As they are, the files are the shader for a single set, whose number is 0.

const SET: u32 = 0u;

// Set by the engine for the adapter; at least FIRST_LEVEL in norm.wgsl.
override WORKGROUP: u32 = 256u;

// One row of the chunk table. Offsets count elements from the start of the binding.
struct Chunk {
    len: u32,
    // The buffer set that holds it.
    buffer_set: u32,
    // Index among all chunks of the phase, in the order of the tensors.
    index: u32,
    weight: u32,
    // Offset of w, if it is not read from weight.
    anchor: u32,
    grad: u32,
    grad_perturbed: u32,
    // Offset in the second weight buffer of an ascent, which receives w + e_w or the anchor.
    weight_copy: u32,
    state_0: u32,
    state_1: u32,
    state_2: u32,
    // Row of the tensor in the table of parameter classes.
    param_class: u32,
    // Index of the first element among all tensors, each rounded up to whole vectors of four.
    position: u32,
}

// Norms of a step's gradients, and whether the gradients are finite. Written by norm_finish and check.
struct Norms {
    // ||g||, which max_norm clips.
    gradient: f32,
    // The norm that e_w is divided by: ||g||, or || |w| g || if adaptive.
    perturbation: f32,
    // ||g~||.
    perturbed: f32,
    // 1 / loss scale, by which every gradient is multiplied. Set by the host.
    inv_scale: f32,
    // The norms that e_w is divided by in groups with a norm of their own.
    own: array<vec4<f32>, 8>,
    // 1 if g (or g~ for nonfinite_perturbed) or its norm is not finite, else 0.
    nonfinite_gradient: f32,
    nonfinite_perturbed: f32,
    // A counter of norm_and_finish.
    chunks_done: u32,
    padding: f32,
}

struct DispatchUniforms {
    chunk_count: u32,
    grid_width: u32,
    // Seed for stochastic rounding (tensors_half.wgsl).
    seed_0: u32,
    seed_1: u32,
}

// Constants of a parameter class: the tensors with the same parameter group, learning rate and step count.
struct ParamClassUniforms {
    flags: u32,
    // Index in Norms of the norm that e_w is divided by.
    norm: u32,
    rho: f32,
    // Added to the norm before the division: the method's epsilon.
    norm_epsilon: f32,
    // The blend of the two gradients (descent.wgsl).
    a: f32,
    b: f32,
    sharpness: f32,
    max_norm: f32,
    max_norm_perturbed: f32,
    // Constants of the base optimizer (step.wgsl).
    lr: f32,
    decay: f32,
    weight_decay: f32,
    base_epsilon: f32,
    inverse_bias_2: f32,
    keep_1: f32,
    add_1: f32,
    keep_2: f32,
    add_2: f32,
    mix_m: f32,
    mix_d: f32,
}

const PERTURBED: u32 = 1u;
const ADAPTIVE: u32 = 2u;
const DEVICE_BLEND: u32 = 4u;
const FIRST: u32 = 8u;
// A step with non-finite gradients is skipped.
const SKIPS: u32 = 16u;
// If only g~ is not finite, the base optimizer steps on g instead.
const FALLS_BACK: u32 = 32u;
// The blend is a g + b (g~ - g), where a is the sum of the blend's two weights.
const BY_DIFFERENCE: u32 = 64u;

@group(0) @binding(0) var<storage, read> chunks: array<Chunk>;
@group(1) @binding(0) var<uniform> dispatch: DispatchUniforms;
@group(1) @binding(1) var<uniform> step_norms: Norms;
@group(1) @binding(3) var<uniform> param_classes: array<ParamClassUniforms, 64>;

// The length of a chunk in buffer set SET, or 0 if the chunk is in another set.
fn len_SET(chunk: Chunk) -> u32 {
    return select(0u, chunk.len, chunk.buffer_set == SET);
}

// A dispatch is two-dimensional, because one dimension is limited to 65,535 workgroups.
fn chunk_index(workgroup: vec3<u32>) -> u32 {
    return workgroup.y * dispatch.grid_width + workgroup.x;
}

// Whether the step is skipped, so that weights and states do not change. It compares finite flags, because a
// shader compiler may assume that NaNs do not occur.
fn is_skipped(param_class: ParamClassUniforms) -> bool {
    let fatal = step_norms.nonfinite_perturbed != 0.0 && (param_class.flags & FALLS_BACK) == 0u;
    return (param_class.flags & SKIPS) != 0u && (step_norms.nonfinite_gradient != 0.0 || fatal);
}

// The smallest magnitude, as bits, of an infinity or a NaN: all exponent bits are set. Bits are compared because
// a shader compiler may assume that NaNs and infinities do not occur.
const NOT_FINITE: u32 = 0xff000000u;

// Magnitudes as bits, which compare like the magnitudes. The sign is shifted out.
fn magnitude(x: vec4<f32>) -> vec4<u32> {
    return bitcast<vec4<u32>>(x) << vec4<u32>(1u);
}

// The first `count` of four elements, and zeros. Elements after a chunk's end belong to another chunk.
fn first(count: u32, x: vec4<f32>) -> vec4<f32> {
    return select(vec4<f32>(), x, vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(count));
}

// Whether this invocation owns the chunk's tail, the elements after its last whole vector of four. The tail is
// handled outside the loops, because the loops store whole vectors.
fn owns_tail(len: u32, lane: u32) -> bool {
    return len % 4u != 0u && len / 4u % WORKGROUP == lane;
}
