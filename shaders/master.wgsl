// f32 master weights of tensors in half precision, in the anchor's column. Included after tensors_half.wgsl.
// Steps read and update the master weights, and write a rounded copy to weight.

const MASTER: bool = true;

// frame
@group(0) @binding(2) var<storage, read_write> anchor: array<vec4<f32>>;

fn load_anchor(i: u32) -> vec4<f32> {
    return anchor[i / 4u];
}

// Four elements of the unperturbed w.
fn load_original(chunk: Chunk, i: u32) -> vec4<f32> {
    return load_anchor(chunk.anchor + i);
}

fn store_master(i: u32, value: vec4<f32>, count: u32) {
    if count >= 4u {
        anchor[i / 4u] = value;
    } else {
        anchor[i / 4u].x = value.x;
        if count > 1u {
            anchor[i / 4u].y = value.y;
        }
        if count > 2u {
            anchor[i / 4u].z = value.z;
        }
    }
}
// end frame
