// Partial sums of a norm in norm_and_finish, where one workgroup reads what the others have written in the same
// dispatch. They are atomics, because other accesses may be cached for a workgroup.

@group(0) @binding(9) var<storage, read_write> partials: array<atomic<u32>>;

fn load_partial(i: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>(vec4<u32>(
        atomicLoad(&partials[4u * i]),
        atomicLoad(&partials[4u * i + 1u]),
        atomicLoad(&partials[4u * i + 2u]),
        atomicLoad(&partials[4u * i + 3u]),
    ));
}

fn store_partial(i: u32, sum: vec4<f32>) {
    let bits = bitcast<vec4<u32>>(sum);
    atomicStore(&partials[4u * i], bits.x);
    atomicStore(&partials[4u * i + 1u], bits.y);
    atomicStore(&partials[4u * i + 2u], bits.z);
    atomicStore(&partials[4u * i + 3u], bits.w);
}
