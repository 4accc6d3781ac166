// The anchor in half precision, for tensors without master weights. Included after tensors_half.wgsl.

// frame
@group(0) @binding(2) var<storage, read_write> anchor: array<vec2<u32>>;

fn load_anchor(i: u32) -> vec4<f32> {
    return unpacked(anchor[i / 4u]);
}
// end frame
