// Tensors whose chunks start on multiples of four elements, as vectors of four.
//
// Tensor buffers are bound read_write even where a stage only reads them: allocators place many
// tensors in one buffer, and a buffer bound both read and read_write in one dispatch is an error.
//
// The last elements of a tensor may share a vector with the next tensor. They are written one by one. The next
// tensor, which then starts inside a vector, uses tensors_narrow.wgsl in a separate dispatch, so that no two
// invocations of one dispatch access the same vector.

@group(0) @binding(1) var<storage, read_write> weight_SET: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> anchor_SET: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> grad_SET: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> grad_perturbed_SET: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> weight_copy_SET: array<vec4<f32>>;

// Four elements from element i on. The caller must ignore those after the end of the chunk.
fn load_weight_SET(i: u32) -> vec4<f32> {
    return weight_SET[i / 4u];
}

fn load_anchor_SET(i: u32) -> vec4<f32> {
    return anchor_SET[i / 4u];
}

fn load_grad_SET(i: u32) -> vec4<f32> {
    return grad_SET[i / 4u];
}

fn load_grad_perturbed_SET(i: u32) -> vec4<f32> {
    return grad_perturbed_SET[i / 4u];
}

// h, the method's state, where it is bound in the column of g~. It is f32 also if the tensors are in half precision.
fn load_method_state_SET(i: u32) -> vec4<f32> {
    return grad_perturbed_SET[i / 4u];
}

fn load_weight_copy_SET(i: u32) -> vec4<f32> {
    return weight_copy_SET[i / 4u];
}

// Stores the first `count` of four elements from element i on.
fn store_weight_SET(i: u32, value: vec4<f32>, count: u32) {
    if count >= 4u {
        weight_SET[i / 4u] = value;
    } else {
        weight_SET[i / 4u].x = value.x;
        if count > 1u {
            weight_SET[i / 4u].y = value.y;
        }
        if count > 2u {
            weight_SET[i / 4u].z = value.z;
        }
    }
}

fn store_weight_copy_SET(i: u32, value: vec4<f32>, count: u32) {
    if count >= 4u {
        weight_copy_SET[i / 4u] = value;
    } else {
        weight_copy_SET[i / 4u].x = value.x;
        if count > 1u {
            weight_copy_SET[i / 4u].y = value.y;
        }
        if count > 2u {
            weight_copy_SET[i / 4u].z = value.z;
        }
    }
}

// In f32 w + e_w is not rounded again.
fn dithered(x: vec4<f32>, at: u32) -> vec4<f32> {
    return x;
}
