// The direction of the perturbation where it depends on the method's state h, which is in the column of state_0:
//
//     g + b h     Friendly-SAM: h is the average of g, and b = -sigma
//     b h         Momentum-SAM (ALONE): h is the momentum, and b = 1
//
// The host sets b = 0 where the content of h is to be ignored, because it may be uninitialised memory.

override ALONE: bool = false;

// The direction times the loss scale, in which g is given. `of_state` is from weight_of_state.
fn direction_at_SET(chunk: Chunk, i: u32, of_state: f32) -> vec4<f32> {
    let h = select(load_state_0_SET(chunk.state_0 + i), vec4<f32>(), of_state == 0.0);
    if ALONE {
        return of_state * h;
    }
    return load_grad_SET(chunk.grad + i) + of_state * h;
}

fn weight_of_state(param_class: ParamClassUniforms) -> f32 {
    return param_class.b / step_norms.inv_scale;
}
