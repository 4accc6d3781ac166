// How the perturbation scales with the weights: 0 not at all, 1 by w^2, 2 as each kind says. By kind
// alone can a tensor be unperturbed.
override SCALING: u32 = 0u;

fn is_adaptive(kind: KindUniforms) -> bool {
    return SCALING == 1u || (SCALING == 2u && (kind.flags & ADAPTIVE) != 0u);
}

fn is_perturbed(kind: KindUniforms) -> bool {
    return SCALING != 2u || (kind.flags & PERTURBED) != 0u;
}

fn perturbation_norm(kind: KindUniforms) -> f32 {
    if kind.norm < 4u {
        return step_norms.perturbation;
    }
    let own = kind.norm - 4u;
    return step_norms.own[own / 4u][own % 4u];
}

// What brings a gradient to the length of e_w over rho.
fn perturbation_scale(kind: KindUniforms) -> f32 {
    return step_norms.inv_scale / (perturbation_norm(kind) + kind.guard);
}
