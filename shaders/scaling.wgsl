// How the perturbation scales with the weights: 0 not scaled, 1 by w^2, 2 set by each kind's flags. Only with 2
// can there be tensors that are not perturbed.
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

// The factor that scales a gradient to e_w / rho.
fn perturbation_scale(kind: KindUniforms) -> f32 {
    return step_norms.inv_scale / (perturbation_norm(kind) + kind.guard);
}
