// f32 master weights of tensors in half precision, in the anchor's column. Included after tensors_half.wgsl.
// Steps read and update the master weights, and write a rounded copy to weight.

const MASTER: bool = true;

@group(0) @binding(2) var<storage, read_write> anchor_SET: array<vec4<f32>>;

fn load_anchor_SET(i: u32) -> vec4<f32> {
    return anchor_SET[i / 4u];
}

// Four elements of the unperturbed w.
fn load_original_SET(chunk: Chunk, i: u32) -> vec4<f32> {
    return load_anchor_SET(chunk.anchor + i);
}

fn store_master_SET(i: u32, value: vec4<f32>, count: u32) {
    if count >= 4u {
        anchor_SET[i / 4u] = value;
    } else {
        anchor_SET[i / 4u].x = value.x;
        if count > 1u {
            anchor_SET[i / 4u].y = value.y;
        }
        if count > 2u {
            anchor_SET[i / 4u].z = value.z;
        }
    }
}
