// Tensors without master weights (master.wgsl).

const MASTER: bool = false;

// frame
// Four elements of w, before anything moves it.
fn load_original(chunk: Chunk, i: u32) -> vec4<f32> {
    return load_weight(chunk.weight + i);
}

// There are no master weights.
fn store_master(i: u32, value: vec4<f32>, count: u32) {
}
// end frame
