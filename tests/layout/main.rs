//! Validates the shaders with naga, and compares uniform structs and binding numbers with naga's reflection.

mod validation;

use burn_wsam::layout::{
    Access, BlendUniforms, BufferSets, Chunk, Coefficients, DispatchUniforms, Kernel,
    NormFinishUniforms, Norms, PARAM_CLASSES, ParamClassUniforms, SCOPES, Specialisation, Stage,
    Width, bindings, column, for_buffer_sets, nonfinite_flag, sampled_modules, source,
    storage_buffers,
};
use burn_wsam::method::LOOK_SAM_SMALLEST_SINE;
use std::collections::HashSet;
use std::mem::offset_of;

fn module(stage: Stage) -> naga::Module {
    module_of(stage, Width::Wide)
}

fn module_of(stage: Stage, width: Width) -> naga::Module {
    naga::front::wgsl::parse_str(source(stage, width)).expect("a valid shader")
}

/// Name, size and field offsets of a struct, as naga lays it out.
fn reflect(module: &naga::Module, name: &str) -> (u32, Vec<(String, u32)>) {
    let found = module.types.iter().find_map(|(_, ty)| match &ty.inner {
        naga::TypeInner::Struct { members, span } if ty.name.as_deref() == Some(name) => {
            let fields = members.iter().map(|m| (m.name.clone().unwrap_or_default(), m.offset));
            Some((*span, fields.collect()))
        }
        _ => None,
    });
    found.unwrap_or_else(|| panic!("no struct {name}"))
}

/// Checks that the Rust struct has the WGSL struct's fields, at the same offsets.
macro_rules! same_layout {
    ($stage:expr, $ty:ident { $($field:ident),* $(,)? }) => {{
        let (size, fields) = reflect(&module($stage), stringify!($ty));
        assert_eq!(size as usize, size_of::<$ty>(), "size of {}", stringify!($ty));
        let ours = vec![$((stringify!($field).to_owned(), offset_of!($ty, $field) as u32)),*];
        assert_eq!(fields, ours, "fields of {}", stringify!($ty));
    }};
}

#[test]
fn structs_match_the_shaders() {
    same_layout!(
        Stage::Norm,
        Chunk {
            len,
            buffer_set,
            index,
            weight,
            anchor,
            grad,
            grad_perturbed,
            weight_copy,
            state_0,
            state_1,
            state_2,
            param_class,
            position,
        }
    );
    same_layout!(
        Stage::Ascent,
        Norms {
            gradient,
            perturbation,
            perturbed,
            inv_scale,
            own,
            nonfinite_gradient,
            nonfinite_perturbed,
            chunks_done,
            padding,
        }
    );
    same_layout!(
        Stage::NormFinish,
        NormFinishUniforms { partial_count, slots_plain, nonfinite_flag, scope_count, ends }
    );
    same_layout!(Stage::Norm, DispatchUniforms { chunk_count, grid_width, seed_0, seed_1 });
    same_layout!(Stage::Descent, BlendUniforms { a, b, sharpness, padding });
    same_layout!(Stage::Update, Coefficients { of_grad, of_grad_perturbed });
    same_layout!(
        Stage::Descent,
        ParamClassUniforms {
            flags,
            norm,
            rho,
            norm_epsilon,
            a,
            b,
            sharpness,
            max_norm,
            max_norm_perturbed,
            lr,
            decay,
            weight_decay,
            base_epsilon,
            inverse_bias_2,
            keep_1,
            add_1,
            keep_2,
            add_2,
            mix_m,
            mix_d,
        }
    );
}

/// Constants that the shaders define themselves.
#[test]
fn constants_match_the_shaders() {
    let module = module(Stage::LeanAscent);
    let constant = |name: &str| {
        let found = module.constants.iter().find(|(_, c)| c.name.as_deref() == Some(name));
        let (_, constant) = found.unwrap_or_else(|| panic!("no constant {name}"));
        match module.global_expressions[constant.init] {
            naga::Expression::Literal(naga::Literal::U32(value)) => value,
            ref other => panic!("{name} is {other:?}"),
        }
    };
    assert_eq!(constant("PERTURBED"), ParamClassUniforms::PERTURBED);
    assert_eq!(constant("ADAPTIVE"), ParamClassUniforms::ADAPTIVE);
    assert_eq!(constant("DEVICE_BLEND"), ParamClassUniforms::DEVICE_BLEND);
    assert_eq!(constant("FIRST"), ParamClassUniforms::FIRST);
    assert_eq!(constant("SKIPS"), ParamClassUniforms::SKIPS);
    assert_eq!(constant("FALLS_BACK"), ParamClassUniforms::FALLS_BACK);
    assert_eq!(constant("BY_DIFFERENCE"), ParamClassUniforms::BY_DIFFERENCE);
    let size = |module: &naga::Module, name: &str| {
        let variables = module.global_variables.iter();
        let found = variables.map(|(_, v)| v).find(|v| v.name.as_deref() == Some(name));
        let ty = found.unwrap_or_else(|| panic!("no variable {name}")).ty;
        module.types[ty].inner.size(module.to_ctx())
    };
    assert_eq!(
        size(&module, "param_classes") as usize,
        PARAM_CLASSES * size_of::<ParamClassUniforms>()
    );
    assert_eq!(size(&self::module(Stage::Norm), "norms") as usize, size_of::<Norms>());
    let coefficients = self::module(Stage::Coefficients);
    assert_eq!(size(&coefficients, "coefficient_rows") as usize, size_of::<Coefficients>());
    assert_eq!(Norms::place(0), 1);
    assert_eq!(size(&self::module(Stage::Check), "norms") as usize, size_of::<Norms>());
    // Places of the last scope and of the marks, one after another.
    assert_eq!(Norms::place(SCOPES) + 1, nonfinite_flag(false));
    assert_eq!(4 * nonfinite_flag(true) as usize, offset_of!(Norms, nonfinite_perturbed));
}

/// The limit below which LookSAM takes a direction for rounding error.
#[test]
fn the_smallest_sine_matches_the_shader() {
    let module = module(Stage::Coefficients);
    let mut constants = module.constants.iter().map(|(_, constant)| constant);
    let found = constants.find(|constant| constant.name.as_deref() == Some("SMALLEST_SINE"));
    let init = found.expect("a constant SMALLEST_SINE").init;
    let want = naga::Literal::F32(LOOK_SAM_SMALLEST_SINE as f32);
    match module.global_expressions[init] {
        naga::Expression::Literal(literal) => assert_eq!(literal, want),
        ref other => panic!("SMALLEST_SINE is {other:?}"),
    }
}

/// Stages with the widths that they have.
fn single_buffer_sets() -> impl Iterator<Item = (Stage, Width)> {
    let single = sampled_modules().filter(|(_, _, sets)| *sets == BufferSets::SINGLE);
    single.map(|(stage, width, _)| (stage, width))
}

#[test]
fn bindings_match_the_shaders() {
    for (stage, width) in single_buffer_sets() {
        let module = module_of(stage, width);
        let mut validator = naga::valid::Validator::new(
            naga::valid::ValidationFlags::all(),
            naga::valid::Capabilities::default(),
        );
        let info = validator.validate(&module).expect("a valid shader");
        let entry = module
            .entry_points
            .iter()
            .position(|entry| entry.name == stage.entry_point())
            .expect("the entry point has its stage's name");
        let used = info.get_entry_point(entry);
        let mut reflected = Vec::new();
        for (handle, variable) in module.global_variables.iter() {
            let Some(binding) = &variable.binding else { continue };
            if used[handle].is_empty() {
                continue;
            }
            let name = variable.name.clone().unwrap_or_default();
            reflected.push((binding.group, binding.binding, name, variable.space));
        }
        reflected.sort_by_key(|entry| (entry.0, entry.1));
        let ours: Vec<_> = bindings(stage, width)
            .iter()
            .map(|binding| {
                let space = match binding.access {
                    Access::Uniform(_) => naga::AddressSpace::Uniform,
                    Access::Table => {
                        naga::AddressSpace::Storage { access: naga::StorageAccess::LOAD }
                    }
                    Access::Storage => naga::AddressSpace::Storage {
                        access: naga::StorageAccess::LOAD | naga::StorageAccess::STORE,
                    },
                };
                (binding.group, binding.number, binding.name.to_owned(), space)
            })
            .collect();
        assert_eq!(reflected, ours, "{stage:?}, {width:?}");
    }
}

#[test]
fn webgpu_limits_suffice() {
    for (stage, width) in single_buffer_sets() {
        let storage = storage_buffers(stage, width);
        assert!(storage <= 8, "{stage:?} binds {storage} storage buffers; WebGPU promises 8");
    }
}

/// The cache key contains every compile input, so two keys give two pipelines.
#[test]
fn keys_name_every_compile_input() {
    let buffer_sets = BufferSets::SINGLE;
    let mut keys = HashSet::new();
    let mut inputs = HashSet::new();
    for width in Width::ALL {
        for kernel in Kernel::all().into_iter().filter(|kernel| kernel.suits(width)) {
            let constants = Specialisation { kernel, width, buffer_sets }.constants(256);
            let set: HashSet<_> = constants.iter().map(|(name, _)| (*name).to_owned()).collect();
            let module = module_of(kernel.stage(), width);
            let named = module.overrides.iter().filter_map(|(_, o)| o.name.clone());
            assert_eq!(set, named.collect(), "{kernel:?}, {width:?}");
            keys.insert((kernel, width));
            inputs.insert(format!("{:?} {:?} {constants:?}", kernel.stage(), width));
        }
    }
    // With master weights the anchor has two meanings that share one kernel.
    let same = |(kernel, width): &&(Kernel, Width)| {
        let is_anchored = matches!(
            kernel,
            Kernel::Descent { anchored: true, .. } | Kernel::MethodDescent { anchored: true, .. }
        );
        width.has_master() && is_anchored
    };
    let twice = keys.iter().filter(same).count();
    assert!(twice > 0);
    assert_eq!(inputs.len(), keys.len() - twice, "two kernels compile to the same thing");
}

/// Only what varies is repeated, fields that share a column's name are left alone, and only the
/// buffer set that a chunk names sees elements.
#[test]
fn buffer_sets_repeat_what_varies() {
    let sets = BufferSets { count: 3, varying: 1 << column::GRAD };
    let text = for_buffer_sets(source(Stage::Ascent, Width::Wide), sets);
    for wanted in [
        "@group(0) @binding(21) var<storage, read_write> grad_2: array<vec4<f32>>;",
        "    return grad_2[i / 4u];",
        "    return weight_0[i / 4u];",
        "load_grad_1(chunk.grad + i)",
        "perturb_2(chunk, len_2(chunk), lane, scales);",
        "return select(0u, chunk.len, chunk.buffer_set == 2u);",
    ] {
        assert!(text.contains(wanted), "no {wanted:?} in\n{text}");
    }
    let code: String = text.lines().filter_map(|line| line.split("//").next()).collect();
    for unwanted in ["weight_1:", "chunk.grad_1", "grad_3", "grad_perturbed_1:", "SET"] {
        assert!(!code.contains(unwanted), "{unwanted:?} in\n{text}");
    }
    naga::front::wgsl::parse_str(&text).expect("the text for several buffer sets is WGSL");
}

/// A line that is repeated for each buffer set is a whole statement.
#[test]
fn statements_for_each_buffer_set_are_one_line() {
    for (stage, width) in single_buffer_sets() {
        let text = source(stage, width);
        let entry = text.find("@compute").expect("every stage has an entry point");
        for line in text[entry..].lines().filter(|line| line.contains("_SET")) {
            let is_whole = line.trim().ends_with(';') || line.starts_with("fn ");
            assert!(is_whole || line.starts_with("    "), "{line}");
        }
    }
}
