// The operands of moments.wgsl over two gradients: a = g and b = g~. ORTHOGONAL: a is the part of g~ that is orthogonal
// to g, and there is no b. Tensors that are not perturbed have no such part.

override ORTHOGONAL: bool = false;

struct Operands {
    a: vec4<f32>,
    b: vec4<f32>,
}

// Values that are the same for every element of a chunk.
struct Factors {
    row: vec4<f32>,
    is_excluded: bool,
}

fn factors_of(param_class: ParamClassUniforms) -> Factors {
    let is_excluded = ORTHOGONAL && (param_class.flags & PERTURBED) == 0u;
    return Factors(coefficients.of_grad_perturbed[scope_of(param_class)], is_excluded);
}

fn operands_at_SET(chunk: Chunk, i: u32, count: u32, factors: Factors) -> Operands {
    let g = first(count, load_grad_SET(chunk.grad + i));
    let g_perturbed = first(count, load_grad_perturbed_SET(chunk.grad_perturbed + i));
    if ORTHOGONAL {
        return Operands(orthogonal(g_perturbed, g, factors.row), vec4<f32>());
    }
    return Operands(g, g_perturbed);
}
