// Put in front of every stage: how work is cut, who owns which element, and what is bound.
//
// A dispatch covers a table of chunks. A chunk is a contiguous range of one tensor, and one
// workgroup owns it: invocation i handles the elements 4 i .. 4 i + 3 of the chunk, then those
// 4 WORKGROUP further on, alone, in every buffer. No element is touched by two invocations, and
// none outside a chunk is written.
//
// A frame is one buffer for each column. What stands between `// frame` and `// end frame` is
// repeated for each frame of a dispatch, with bindings of its own; a line that ends in
// `// each frame` is repeated with it, and only the frame that the chunk names sees elements
// (src/layout/frames.rs). As they stand, the files are the shader of a single frame.

// Chosen by the engine for the adapter; at least FIRST_LEVEL in norm.wgsl.
override WORKGROUP: u32 = 256u;

// One row of the chunk table. Offsets count elements from the start of the binding.
struct Chunk {
    len: u32,
    frame: u32,
    // Its place among all chunks of the step, in the order of the tensors.
    index: u32,
    weight: u32,
    // Where w is read from, if not from weight.
    anchor: u32,
    grad: u32,
    grad_perturbed: u32,
    // The second weight buffer of an ascent: receives w + e_w, or the anchor.
    partner: u32,
    state_0: u32,
    state_1: u32,
    state_2: u32,
    // Its tensor's place in the table of kinds.
    kind: u32,
    // Its first element's place among those of all tensors, each rounded up to whole vectors.
    position: u32,
}

// What one step finds out about its gradients: norm_finish and check write it.
struct Norms {
    // ||g||, what max_norm clips.
    gradient: f32,
    // What e_w is divided by: ||g||, or || |w| g || if adaptive.
    perturbation: f32,
    // ||g~||.
    perturbed: f32,
    // What every gradient is multiplied by, set by the host: 1 / loss scale.
    inv_scale: f32,
    // What e_w is divided by in groups with a norm of their own.
    own: array<vec4<f32>, 8>,
    // 1 if g, or g~, or its norm, has a NaN or an infinity; else 0.
    bad_gradient: f32,
    bad_perturbed: f32,
    padding_0: f32,
    padding_1: f32,
}

struct DispatchUniforms {
    chunk_count: u32,
    grid_width: u32,
    // Of stochastic rounding (tensors_half.wgsl).
    seed_0: u32,
    seed_1: u32,
}

// What the tensors of a kind share: parameter group, learning rate, count of steps.
struct KindUniforms {
    flags: u32,
    // Place of the norm that e_w is divided by.
    norm: u32,
    rho: f32,
    // Of the division by the norm.
    guard: f32,
    // The blend of the two gradients (descent.wgsl).
    a: f32,
    b: f32,
    sharpness: f32,
    max_norm: f32,
    max_norm_perturbed: f32,
    // The rest is the base optimizer's (step.wgsl).
    lr: f32,
    decay: f32,
    weight_decay: f32,
    epsilon: f32,
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
// A step over gradients that are not finite is left out ...
const SKIPS: u32 = 16u;
// ... but taken by the base optimizer alone where only g~ is not.
const FALLS_BACK: u32 = 32u;
// a g + b (g~ - g), with a the sum of the blend's two weights.
const BY_DIFFERENCE: u32 = 64u;

@group(0) @binding(0) var<storage, read> chunks: array<Chunk>;
@group(1) @binding(0) var<uniform> dispatch: DispatchUniforms;
@group(1) @binding(1) var<uniform> step_norms: Norms;
@group(1) @binding(3) var<uniform> kinds: array<KindUniforms, 64>;

// A dispatch is two-dimensional, because one dimension ends at 65,535 workgroups.
fn chunk_index(workgroup: vec3<u32>) -> u32 {
    return workgroup.y * dispatch.grid_width + workgroup.x;
}

// Whether weights and states stay as they are. Told by numbers, not by NaNs: a compiler may take it
// that there are none.
fn is_skipped(kind: KindUniforms) -> bool {
    let fatal = step_norms.bad_perturbed != 0.0 && (kind.flags & FALLS_BACK) == 0u;
    return (kind.flags & SKIPS) != 0u && (step_norms.bad_gradient != 0.0 || fatal);
}

// An exponent of ones: what a magnitude is from on that is a NaN or an infinity. By bits, because a
// compiler may take it that there are none.
const NOT_FINITE: u32 = 0xff000000u;

// Magnitudes as bits, in their order: the sign shifted out.
fn magnitude(x: vec4<f32>) -> vec4<u32> {
    return bitcast<vec4<u32>>(x) << vec4<u32>(1u);
}

// The first `count` of four elements. What lies past the end of a chunk is somebody else's.
fn first(count: u32, x: vec4<f32>) -> vec4<f32> {
    return select(vec4<f32>(), x, vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(count));
}

// A chunk's last elements, where its length is no multiple of four, are one invocation's: the next
// one's in turn. They stand apart from the loops because a whole vector is stored at once.
fn owns_tail(len: u32, lane: u32) -> bool {
    return len % 4u != 0u && len / 4u % WORKGROUP == lane;
}
