// The part of one gradient that is orthogonal to the other, with the factors that coefficients.wgsl has computed.

// Each row belongs to a scope.
struct Coefficients {
    // Of g, orthogonal to g~ (GSAM): the factors of `orthogonal`.
    of_grad: array<vec4<f32>, 32>,
    // Of g~, orthogonal to g (LookSAM): the factors of `orthogonal`, the smallest length that is not taken for
    // rounding error, and the length, or 0 if it is smaller. Lengths are those of the gradients as given, times the
    // loss scale.
    of_grad_perturbed: array<vec4<f32>, 32>,
}

@group(1) @binding(2) var<uniform> coefficients: Coefficients;

fn scope_of(param_class: ParamClassUniforms) -> u32 {
    return select(param_class.norm - 3u, 0u, param_class.norm < 4u);
}

// x - (<x, y> / ||y||^2) y. The factor of y is row.x row.y, which may leave the range of f32: row.y y cannot.
fn orthogonal(x: vec4<f32>, y: vec4<f32>, row: vec4<f32>) -> vec4<f32> {
    return x - row.x * (row.y * y);
}
