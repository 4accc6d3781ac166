// The direction of the perturbation: g.

fn direction_at_SET(chunk: Chunk, i: u32, of_state: f32) -> vec4<f32> {
    return load_grad_SET(chunk.grad + i);
}

fn weight_of_state(param_class: ParamClassUniforms) -> f32 {
    return 0.0;
}
