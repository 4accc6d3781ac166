// The operands of moments.wgsl over the direction d of a perturbation (direction_state.wgsl): a = d, or |w| d where
// adaptive, and b = g. ALONE: there is no b.

struct Operands {
    a: vec4<f32>,
    b: vec4<f32>,
}

// Values that are the same for every element of a chunk.
struct Factors {
    of_state: f32,
    adaptive: bool,
    is_excluded: bool,
}

fn factors_of(param_class: ParamClassUniforms) -> Factors {
    return Factors(weight_of_state(param_class), is_adaptive(param_class), false);
}

fn operands_at_SET(chunk: Chunk, i: u32, count: u32, factors: Factors) -> Operands {
    var a = first(count, direction_at_SET(chunk, i, factors.of_state));
    if factors.adaptive {
        // The sign of w does not matter for the square.
        a *= first(count, load_original_SET(chunk, i));
    }
    if ALONE {
        return Operands(a, vec4<f32>());
    }
    return Operands(a, first(count, load_grad_SET(chunk.grad + i)));
}
