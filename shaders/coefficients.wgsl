// coefficients: norms and factors of each scope, from the partial sums of moments.wgsl.
//
//     DIRECTION   norms[slot] = inv_scale ||a||, the norm that e_w is divided by
//     PRODUCTS    the factors of the part of g that is orthogonal to g~ (GSAM), and of the part of g~ that is
//                 orthogonal to g (LookSAM):
//
//         g  - cos ||g|| g~ / (||g~|| + epsilon)       cos = <g, g~> / (||g|| ||g~|| + epsilon)
//         g~ - <g, g~> / (||g||^2 + epsilon) g
//
//     LENGTH      the length of the latter part
//
// With SUMS >= 2 it also writes the norm of b over all tensors, inv_scale ||b||, and whether it is finite.
//
// <g, g~> reaches the square of what f32 holds, so it is divided by both norms before anything else.

override SUMS: u32 = 3u;
override OUTPUT: u32 = 0u;

const DIRECTION: u32 = 0u;
const PRODUCTS: u32 = 1u;
const LENGTH: u32 = 2u;

// A part of g~ that is shorter than this times ||g~|| is rounding error: method::LOOK_SAM_SMALLEST_SINE.
const SMALLEST_SINE: f32 = 0x1p-20f;

// Coefficients of orthogonal.wgsl: of_grad, then of_grad_perturbed.
@group(1) @binding(6) var<storage, read_write> coefficient_rows: array<vec4<f32>, 64>;

fn stride() -> u32 {
    return SUMS;
}

// sum 2^e. A positive e belongs to a sum that is small enough.
fn times_power(sum: f32, e: i32) -> f32 {
    let limited = clamp(e, -252, 252);
    let half = limited / 2;
    let two = powers(vec4<i32>(half, limited - half, 0, 0));
    return (sum * two.x) * two.y;
}

// <a, b> / (||a|| ||b||), from the sums of products.
fn cosine(ab: vec4<f32>, a_norm: f32, b_norm: f32) -> f32 {
    let both = vec4<f32>(a_norm, b_norm, 1.0, 1.0);
    let s = significands(both);
    if s.x == 0.0 || s.y == 0.0 {
        return 0.0;
    }
    let e = exponents(both).x + exponents(both).y;
    let large = times_power(ab.x, PRODUCT_SHIFT - e);
    let middling = times_power(ab.y, -e);
    let small = times_power(ab.z, -PRODUCT_SHIFT - e);
    return clamp((large + middling + small) / (s.x * s.y), -1.0, 1.0);
}

// 1 / (x + y), or 0 if x is zero.
fn inverse_sum(x: f32, y: f32) -> f32 {
    return select(1.0 / (x + y), 0.0, x == 0.0);
}

fn store_products(scope: u32, ab: vec4<f32>, g_raw: f32, g_perturbed_raw: f32) {
    let epsilon = param_classes[0].norm_epsilon;
    let inv_scale = bitcast<f32>(atomicLoad(&norms[INV_SCALE]));
    let g = inv_scale * g_raw;
    let g_perturbed = inv_scale * g_perturbed_raw;
    let plain = cosine(ab, g_raw, g_perturbed_raw);
    // epsilon / 0 is not finite.
    let damping = epsilon / select(g, 1.0, g == 0.0) / select(g_perturbed, 1.0, g_perturbed == 0.0);
    let guarded = plain / (1.0 + damping);
    coefficient_rows[scope] = vec4<f32>(guarded * g, 1.0 / (g_perturbed + epsilon), 0.0, 0.0);
    let inverse = inverse_sum(g, epsilon / select(g, 1.0, g == 0.0));
    coefficient_rows[32u + scope] = vec4<f32>(plain * g_perturbed, inverse, SMALLEST_SINE * g_perturbed_raw, 0.0);
}

// One workgroup for each scope.
@compute @workgroup_size(WORKGROUP)
fn coefficients(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let scope = workgroup.x;
    var start = 0u;
    if scope > 0u {
        start = end_of(scope - 1u);
    }
    let end = end_of(scope);
    let aa = stretch_sum(lane, start, end, 0u);
    if OUTPUT == DIRECTION {
        if lane == 0u {
            // Scope 0 is the field `perturbation`; the others follow the named fields.
            let slot = select(3u + scope, 1u, scope == 0u);
            atomicStore(&norms[slot], bitcast<u32>(finished(aa)));
        }
    }
    if OUTPUT == PRODUCTS {
        let bb = stretch_sum(lane, start, end, 1u);
        let ab = stretch_sum(lane, start, end, 2u);
        if lane == 0u {
            store_products(scope, ab, root(aa), root(bb));
        }
    }
    if OUTPUT == LENGTH {
        if lane == 0u {
            let length = root(aa);
            // Written so that a NaN is stored.
            let is_small = length <= coefficient_rows[32u + scope].z;
            coefficient_rows[32u + scope].w = select(length, 0.0, is_small);
        }
    }
    if SUMS >= 2u {
        var all = norm_finish_uniforms.partial_count;
        if scope > 0u {
            all = 0u;
        }
        let bb = stretch_sum(lane, 0u, all, 1u);
        if lane == 0u && scope == 0u {
            let norm = finished(bb);
            for (var slot = 0u; slot < INV_SCALE; slot += 1u) {
                if (norm_finish_uniforms.slots_plain & (1u << slot)) != 0u {
                    atomicStore(&norms[slot], bitcast<u32>(norm));
                }
            }
        }
    }
}
