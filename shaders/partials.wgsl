// Partial sums of a norm. norm writes them, and norm_finish reads them in a later dispatch.

@group(0) @binding(9) var<storage, read_write> partials: array<vec4<f32>>;

fn load_partial(i: u32) -> vec4<f32> {
    return partials[i];
}

fn store_partial(i: u32, sum: vec4<f32>) {
    partials[i] = sum;
}
