// Stand-ins for master.wgsl, for tensors without master weights.

const MASTER: bool = false;

// Four elements of the unperturbed w.
fn load_original_SET(chunk: Chunk, i: u32) -> vec4<f32> {
    return load_weight_SET(chunk.weight + i);
}

// Does nothing.
fn store_master_SET(i: u32, value: vec4<f32>, count: u32) {
}
