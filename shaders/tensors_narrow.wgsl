// Tensors whose chunks start at any element, accessed element by element; the others use tensors_wide.wgsl.
//
// The buffers are bound read_write for the reason given there.

// frame
@group(0) @binding(1) var<storage, read_write> weight: array<f32>;
@group(0) @binding(2) var<storage, read_write> anchor: array<f32>;
@group(0) @binding(3) var<storage, read_write> grad: array<f32>;
@group(0) @binding(4) var<storage, read_write> grad_perturbed: array<f32>;
@group(0) @binding(5) var<storage, read_write> partner: array<f32>;
@group(0) @binding(6) var<storage, read_write> state_0: array<f32>;
@group(0) @binding(7) var<storage, read_write> state_1: array<f32>;
@group(0) @binding(8) var<storage, read_write> state_2: array<f32>;

// Four elements from element i on. The caller must ignore those after the end of the chunk.
fn load_weight(i: u32) -> vec4<f32> {
    return vec4<f32>(weight[i], weight[i + 1u], weight[i + 2u], weight[i + 3u]);
}

fn load_anchor(i: u32) -> vec4<f32> {
    return vec4<f32>(anchor[i], anchor[i + 1u], anchor[i + 2u], anchor[i + 3u]);
}

fn load_grad(i: u32) -> vec4<f32> {
    return vec4<f32>(grad[i], grad[i + 1u], grad[i + 2u], grad[i + 3u]);
}

fn load_grad_perturbed(i: u32) -> vec4<f32> {
    return vec4<f32>(grad_perturbed[i], grad_perturbed[i + 1u], grad_perturbed[i + 2u], grad_perturbed[i + 3u]);
}

fn load_partner(i: u32) -> vec4<f32> {
    return vec4<f32>(partner[i], partner[i + 1u], partner[i + 2u], partner[i + 3u]);
}

fn load_state_0(i: u32) -> vec4<f32> {
    return vec4<f32>(state_0[i], state_0[i + 1u], state_0[i + 2u], state_0[i + 3u]);
}

fn load_state_1(i: u32) -> vec4<f32> {
    return vec4<f32>(state_1[i], state_1[i + 1u], state_1[i + 2u], state_1[i + 3u]);
}

fn load_state_2(i: u32) -> vec4<f32> {
    return vec4<f32>(state_2[i], state_2[i + 1u], state_2[i + 2u], state_2[i + 3u]);
}

// Stores the first `count` of four elements, at least one, from element i on. Unrolled, because a loop here would
// add to the caller's loop iterations, which are limited (MAX_LOOP_ITERATIONS in src/engine/tuning.rs).
fn store_weight(i: u32, value: vec4<f32>, count: u32) {
    weight[i] = value.x;
    if count > 1u {
        weight[i + 1u] = value.y;
    }
    if count > 2u {
        weight[i + 2u] = value.z;
    }
    if count > 3u {
        weight[i + 3u] = value.w;
    }
}

fn store_partner(i: u32, value: vec4<f32>, count: u32) {
    partner[i] = value.x;
    if count > 1u {
        partner[i + 1u] = value.y;
    }
    if count > 2u {
        partner[i + 2u] = value.z;
    }
    if count > 3u {
        partner[i + 3u] = value.w;
    }
}

fn store_state_0(i: u32, value: vec4<f32>, count: u32) {
    state_0[i] = value.x;
    if count > 1u {
        state_0[i + 1u] = value.y;
    }
    if count > 2u {
        state_0[i + 2u] = value.z;
    }
    if count > 3u {
        state_0[i + 3u] = value.w;
    }
}

fn store_state_1(i: u32, value: vec4<f32>, count: u32) {
    state_1[i] = value.x;
    if count > 1u {
        state_1[i + 1u] = value.y;
    }
    if count > 2u {
        state_1[i + 2u] = value.z;
    }
    if count > 3u {
        state_1[i + 3u] = value.w;
    }
}

fn store_state_2(i: u32, value: vec4<f32>, count: u32) {
    state_2[i] = value.x;
    if count > 1u {
        state_2[i + 1u] = value.y;
    }
    if count > 2u {
        state_2[i + 2u] = value.z;
    }
    if count > 3u {
        state_2[i + 3u] = value.w;
    }
}
// end frame

// In f32 w + e_w is not rounded again.
fn dithered(x: vec4<f32>, at: u32) -> vec4<f32> {
    return x;
}
