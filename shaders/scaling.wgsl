// How the perturbation scales with the weights: 0 not scaled, 1 by w^2, 2 set by each class's flags. Only with 2
// can there be tensors that are not perturbed.
override SCALING: u32 = 0u;

fn is_adaptive(param_class: ParamClassUniforms) -> bool {
    return SCALING == 1u || (SCALING == 2u && (param_class.flags & ADAPTIVE) != 0u);
}

fn is_perturbed(param_class: ParamClassUniforms) -> bool {
    return SCALING != 2u || (param_class.flags & PERTURBED) != 0u;
}

fn perturbation_norm(param_class: ParamClassUniforms) -> f32 {
    if param_class.norm < 4u {
        return step_norms.perturbation;
    }
    let own = param_class.norm - 4u;
    return step_norms.own[own / 4u][own % 4u];
}

// The factor that scales a gradient to e_w / rho.
fn perturbation_scale(param_class: ParamClassUniforms) -> f32 {
    return step_norms.inv_scale / (perturbation_norm(param_class) + param_class.norm_epsilon);
}
