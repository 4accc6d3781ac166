// The anchor in half precision, for tensors without master weights. Included after tensors_half.wgsl.

@group(0) @binding(2) var<storage, read_write> anchor_SET: array<vec2<u32>>;

fn load_anchor_SET(i: u32) -> vec4<f32> {
    return unpacked(anchor_SET[i / 4u]);
}
