// Stand-ins for master.wgsl, for tensors without master weights.

const MASTER: bool = false;

// frame
// Four elements of the unperturbed w.
fn load_original(chunk: Chunk, i: u32) -> vec4<f32> {
    return load_weight(chunk.weight + i);
}

// Does nothing.
fn store_master(i: u32, value: vec4<f32>, count: u32) {
}
// end frame
