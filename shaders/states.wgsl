// States of tensors whose chunks start on multiples of four elements, as vectors of four f32. States are f32
// also if the tensors are in half precision.

@group(0) @binding(6) var<storage, read_write> state_0_SET: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> state_1_SET: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read_write> state_2_SET: array<vec4<f32>>;

fn load_state_0_SET(i: u32) -> vec4<f32> {
    return state_0_SET[i / 4u];
}

fn load_state_1_SET(i: u32) -> vec4<f32> {
    return state_1_SET[i / 4u];
}

fn load_state_2_SET(i: u32) -> vec4<f32> {
    return state_2_SET[i / 4u];
}

// Stores the first `count` of four elements from element i on.
fn store_state_0_SET(i: u32, value: vec4<f32>, count: u32) {
    if count >= 4u {
        state_0_SET[i / 4u] = value;
    } else {
        state_0_SET[i / 4u].x = value.x;
        if count > 1u {
            state_0_SET[i / 4u].y = value.y;
        }
        if count > 2u {
            state_0_SET[i / 4u].z = value.z;
        }
    }
}

fn store_state_1_SET(i: u32, value: vec4<f32>, count: u32) {
    if count >= 4u {
        state_1_SET[i / 4u] = value;
    } else {
        state_1_SET[i / 4u].x = value.x;
        if count > 1u {
            state_1_SET[i / 4u].y = value.y;
        }
        if count > 2u {
            state_1_SET[i / 4u].z = value.z;
        }
    }
}

fn store_state_2_SET(i: u32, value: vec4<f32>, count: u32) {
    if count >= 4u {
        state_2_SET[i / 4u] = value;
    } else {
        state_2_SET[i / 4u].x = value.x;
        if count > 1u {
            state_2_SET[i / 4u].y = value.y;
        }
        if count > 2u {
            state_2_SET[i / 4u].z = value.z;
        }
    }
}
