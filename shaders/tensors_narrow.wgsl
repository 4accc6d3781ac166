// Tensors whose chunks start at any element, accessed element by element; the others use tensors_wide.wgsl.
//
// The buffers are bound read_write for the reason given there.

@group(0) @binding(1) var<storage, read_write> weight_SET: array<f32>;
@group(0) @binding(2) var<storage, read_write> anchor_SET: array<f32>;
@group(0) @binding(3) var<storage, read_write> grad_SET: array<f32>;
@group(0) @binding(4) var<storage, read_write> grad_perturbed_SET: array<f32>;
@group(0) @binding(5) var<storage, read_write> weight_copy_SET: array<f32>;
@group(0) @binding(6) var<storage, read_write> state_0_SET: array<f32>;
@group(0) @binding(7) var<storage, read_write> state_1_SET: array<f32>;
@group(0) @binding(8) var<storage, read_write> state_2_SET: array<f32>;

// Four elements from element i on. The caller must ignore those after the end of the chunk.
fn load_weight_SET(i: u32) -> vec4<f32> {
    return vec4<f32>(weight_SET[i], weight_SET[i + 1u], weight_SET[i + 2u], weight_SET[i + 3u]);
}

fn load_anchor_SET(i: u32) -> vec4<f32> {
    return vec4<f32>(anchor_SET[i], anchor_SET[i + 1u], anchor_SET[i + 2u], anchor_SET[i + 3u]);
}

fn load_grad_SET(i: u32) -> vec4<f32> {
    return vec4<f32>(grad_SET[i], grad_SET[i + 1u], grad_SET[i + 2u], grad_SET[i + 3u]);
}

fn load_grad_perturbed_SET(i: u32) -> vec4<f32> {
    return vec4<f32>(grad_perturbed_SET[i], grad_perturbed_SET[i + 1u], grad_perturbed_SET[i + 2u], grad_perturbed_SET[i + 3u]);
}

// h, the method's state, where it is bound in the column of g~. It is f32 also if the tensors are in half precision.
fn load_method_state_SET(i: u32) -> vec4<f32> {
    return load_grad_perturbed_SET(i);
}

fn load_weight_copy_SET(i: u32) -> vec4<f32> {
    return vec4<f32>(weight_copy_SET[i], weight_copy_SET[i + 1u], weight_copy_SET[i + 2u], weight_copy_SET[i + 3u]);
}

fn load_state_0_SET(i: u32) -> vec4<f32> {
    return vec4<f32>(state_0_SET[i], state_0_SET[i + 1u], state_0_SET[i + 2u], state_0_SET[i + 3u]);
}

fn load_state_1_SET(i: u32) -> vec4<f32> {
    return vec4<f32>(state_1_SET[i], state_1_SET[i + 1u], state_1_SET[i + 2u], state_1_SET[i + 3u]);
}

fn load_state_2_SET(i: u32) -> vec4<f32> {
    return vec4<f32>(state_2_SET[i], state_2_SET[i + 1u], state_2_SET[i + 2u], state_2_SET[i + 3u]);
}

// Stores the first `count` of four elements, at least one, from element i on. Unrolled, because a loop here would
// add to the caller's loop iterations, which are limited (MAX_LOOP_ITERATIONS in src/engine/tuning.rs).
fn store_weight_SET(i: u32, value: vec4<f32>, count: u32) {
    weight_SET[i] = value.x;
    if count > 1u {
        weight_SET[i + 1u] = value.y;
    }
    if count > 2u {
        weight_SET[i + 2u] = value.z;
    }
    if count > 3u {
        weight_SET[i + 3u] = value.w;
    }
}

fn store_weight_copy_SET(i: u32, value: vec4<f32>, count: u32) {
    weight_copy_SET[i] = value.x;
    if count > 1u {
        weight_copy_SET[i + 1u] = value.y;
    }
    if count > 2u {
        weight_copy_SET[i + 2u] = value.z;
    }
    if count > 3u {
        weight_copy_SET[i + 3u] = value.w;
    }
}

fn store_state_0_SET(i: u32, value: vec4<f32>, count: u32) {
    state_0_SET[i] = value.x;
    if count > 1u {
        state_0_SET[i + 1u] = value.y;
    }
    if count > 2u {
        state_0_SET[i + 2u] = value.z;
    }
    if count > 3u {
        state_0_SET[i + 3u] = value.w;
    }
}

fn store_state_1_SET(i: u32, value: vec4<f32>, count: u32) {
    state_1_SET[i] = value.x;
    if count > 1u {
        state_1_SET[i + 1u] = value.y;
    }
    if count > 2u {
        state_1_SET[i + 2u] = value.z;
    }
    if count > 3u {
        state_1_SET[i + 3u] = value.w;
    }
}

fn store_state_2_SET(i: u32, value: vec4<f32>, count: u32) {
    state_2_SET[i] = value.x;
    if count > 1u {
        state_2_SET[i + 1u] = value.y;
    }
    if count > 2u {
        state_2_SET[i + 2u] = value.z;
    }
    if count > 3u {
        state_2_SET[i + 3u] = value.w;
    }
}

// In f32 w + e_w is not rounded again.
fn dithered(x: vec4<f32>, at: u32) -> vec4<f32> {
    return x;
}
