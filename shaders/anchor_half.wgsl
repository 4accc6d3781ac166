// Half precision without master weights: behind tensors_half.wgsl.

const MASTER: bool = false;

// frame
@group(0) @binding(2) var<storage, read_write> anchor: array<vec2<u32>>;

fn load_anchor(i: u32) -> vec4<f32> {
    return unpacked(anchor[i / 4u]);
}

// Four elements of w, before anything moves it.
fn load_original(chunk: Chunk, i: u32) -> vec4<f32> {
    return load_weight(chunk.weight + i);
}

// There are no master weights.
fn store_master(i: u32, value: vec4<f32>, count: u32) {
}
// end frame
