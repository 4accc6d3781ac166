//! Uniform structs and binding numbers against naga's reflection of the shaders.

use burn_wsam::layout::{
    Access, AscentUniforms, BlendUniforms, Chunk, DescentUniforms, Frames, Kernel,
    NormFinishUniforms, NormUniforms, Norms, Specialisation, Stage, StepUniforms, Width, bindings,
    column, framed, source, storage_buffers,
};
use std::collections::HashSet;
use std::mem::offset_of;

fn module(stage: Stage) -> naga::Module {
    module_of(stage, Width::Wide)
}

fn module_of(stage: Stage, width: Width) -> naga::Module {
    naga::front::wgsl::parse_str(source(stage, width)).expect("build.rs has validated it")
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

/// The Rust struct's fields must be the WGSL struct's, at the same offsets.
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
            frame,
            index,
            weight,
            anchor,
            grad,
            grad_perturbed,
            partner,
            state_0,
            state_1,
            state_2,
        }
    );
    same_layout!(Stage::Ascent, Norms { gradient, perturbation, perturbed, padding });
    same_layout!(Stage::Norm, NormUniforms { chunk_count, grid_width, padding_0, padding_1 });
    same_layout!(
        Stage::NormFinish,
        NormFinishUniforms { partial_count, slots_plain, slots_scaled, padding }
    );
    same_layout!(Stage::Ascent, AscentUniforms { chunk_count, grid_width, rho, epsilon });
    same_layout!(Stage::Descent, DescentUniforms { chunk_count, grid_width, padding_0, padding_1 });
    same_layout!(Stage::Descent, BlendUniforms { a, b, sharpness, padding });
    same_layout!(
        Stage::Descent,
        StepUniforms {
            first,
            lr,
            decay,
            weight_decay,
            epsilon,
            inverse_bias_2,
            keep_1,
            add_1,
            keep_2,
            add_2,
            mix_m,
            mix_d,
            max_norm,
            max_norm_perturbed,
        }
    );
    // The lean stages have their uniforms under names of their own.
    let fields = |stage, name| reflect(&module(stage), name);
    let ascent = fields(Stage::Ascent, "AscentUniforms");
    assert_eq!(fields(Stage::LeanAscent, "LeanAscentUniforms"), ascent);
    let descent = fields(Stage::Descent, "DescentUniforms");
    assert_eq!(fields(Stage::LeanDescent, "LeanDescentUniforms"), descent);
}

#[test]
fn bindings_match_the_shaders() {
    for (stage, width) in Stage::ALL.into_iter().flat_map(|s| Width::ALL.map(|w| (s, w))) {
        let module = module_of(stage, width);
        let mut validator = naga::valid::Validator::new(
            naga::valid::ValidationFlags::all(),
            naga::valid::Capabilities::default(),
        );
        let info = validator.validate(&module).expect("build.rs has validated it");
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
        let ours: Vec<_> = bindings(stage)
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
        assert_eq!(reflected, ours, "{stage:?}");
    }
}

#[test]
fn webgpu_limits_suffice() {
    for stage in Stage::ALL {
        let storage = storage_buffers(stage);
        assert!(storage <= 8, "{stage:?} binds {storage} storage buffers; WebGPU promises 8");
    }
}

/// The cache key is the whole list of compile inputs: two keys, two pipelines.
#[test]
fn keys_name_every_compile_input() {
    let constants = |kernel| {
        let (width, frames) = (Width::Wide, Frames::SINGLE);
        Specialisation { kernel, width, frames }.constants(256)
    };
    let all = Kernel::all();
    let keys: HashSet<_> = all.iter().collect();
    assert_eq!(keys.len(), all.len());
    let inputs: HashSet<_> =
        all.iter().map(|kernel| format!("{:?} {:?}", kernel.stage(), constants(*kernel))).collect();
    assert_eq!(inputs.len(), all.len(), "two kernels compile to the same thing");
    for stage in Stage::ALL {
        let module = module(stage);
        let named: HashSet<_> =
            module.overrides.iter().filter_map(|(_, o)| o.name.clone()).collect();
        for kernel in all.iter().filter(|kernel| kernel.stage() == stage) {
            let set: HashSet<_> =
                constants(*kernel).iter().map(|(name, _)| (*name).to_owned()).collect();
            assert_eq!(set, named, "{kernel:?}");
        }
    }
}

/// Only what varies is repeated, fields that share a column's name are left alone, and only the
/// frame that a chunk names sees elements.
#[test]
fn frames_repeat_what_varies() {
    let frames = Frames { count: 3, varying: 1 << column::GRAD };
    let text = framed(source(Stage::Ascent, Width::Wide), frames);
    for wanted in [
        "@group(0) @binding(21) var<storage, read_write> grad_2: array<vec4<f32>>;",
        "    return grad_2[i / 4u];",
        "    return weight[i / 4u];",
        "load_grad_1(chunk.grad + i)",
        "climb_2(chunk, select(0u, chunk.len, chunk.frame == 2u), lane,",
    ] {
        assert!(text.contains(wanted), "no {wanted:?} in\n{text}");
    }
    for unwanted in ["weight_1:", "chunk.grad_1", "grad_3", "grad_perturbed_1:"] {
        assert!(!text.contains(unwanted), "{unwanted:?} in\n{text}");
    }
    naga::front::wgsl::parse_str(&text).expect("frames are WGSL");
}
