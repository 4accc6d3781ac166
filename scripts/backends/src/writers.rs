//! naga's writers, with the options of wgpu's backends: bounds checks on, workgroup memory not zeroed (the
//! engine disables it), bindings numbered as in the backend. Source: wgpu-hal 30.0.2, `load_shader` and
//! `create_pipeline_layout` of each backend.

use crate::shipped::{Kind, Slot};
use naga::back::{glsl, hlsl, msl, spv};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::ModuleInfo;
use naga::{Module, ShaderStage};
use std::fmt::Display;

/// A pipeline's module, with its overrides replaced by values and without other entry points.
pub(crate) struct Shader<'a> {
    pub(crate) module: &'a Module,
    pub(crate) info: &'a ModuleInfo,
    pub(crate) slots: &'a [Slot],
    pub(crate) entry_point: &'a str,
}

/// Buffers of a Metal function. wgpu uses one for sizes and one for immediates.
const METAL_BUFFERS: usize = 31;

fn text(error: impl Display) -> String {
    error.to_string()
}

fn policies(policy: BoundsCheckPolicy, buffer: BoundsCheckPolicy) -> BoundsCheckPolicies {
    BoundsCheckPolicies {
        index: policy,
        buffer,
        image_load: policy,
        binding_array: BoundsCheckPolicy::Unchecked,
    }
}

/// Writes SPIR-V words. With `robust` the device checks the bounds of buffers (`robustBufferAccess2`),
/// otherwise the shader does.
pub(crate) fn spirv(
    shader: &Shader<'_>,
    version: (u8, u8),
    robust: bool,
) -> Result<Vec<u32>, String> {
    let buffer = match robust {
        true => BoundsCheckPolicy::Unchecked,
        false => BoundsCheckPolicy::Restrict,
    };
    let mut next = [0; 2];
    let binding_map = shader.slots.iter().map(|slot| {
        let binding = &mut next[slot.at.group as usize];
        *binding += 1;
        let target = spv::BindingInfo {
            descriptor_set: slot.at.group,
            binding: *binding - 1,
            binding_array_size: None,
        };
        (slot.at, target)
    });
    let options = spv::Options {
        lang_version: version,
        flags: spv::WriterFlags::ADJUST_COORDINATE_SPACE | spv::WriterFlags::FORCE_POINT_SIZE,
        binding_map: binding_map.collect(),
        // Every Vulkan device has this capability, and kernels may need no other.
        capabilities: Some([spv::Capability::Shader].into_iter().collect()),
        bounds_check_policies: policies(BoundsCheckPolicy::Restrict, buffer),
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        ..spv::Options::default()
    };
    let pipeline = spv::PipelineOptions {
        shader_stage: ShaderStage::Compute,
        entry_point: shader.entry_point.to_owned(),
    };
    spv::write_vec(shader.module, shader.info, &options, Some(&pipeline)).map_err(text)
}

/// Writes HLSL. Returns the source and the name of its entry point.
pub(crate) fn hlsl(
    shader: &Shader<'_>,
    shader_model: hlsl::ShaderModel,
) -> Result<(String, String), String> {
    let mut next = [0; 3];
    let binding_map = shader.slots.iter().map(|slot| {
        let register = &mut next[slot.kind as usize];
        *register += 1;
        let target = hlsl::BindTarget {
            register: *register - 1,
            restrict_indexing: slot.kind == Kind::Uniform,
            ..hlsl::BindTarget::default()
        };
        (slot.at, target)
    });
    let options = hlsl::Options {
        shader_model,
        binding_map: binding_map.collect(),
        fake_missing_bindings: false,
        zero_initialize_workgroup_memory: false,
        ..hlsl::Options::default()
    };
    let entry_point = Some((ShaderStage::Compute, shader.entry_point.to_owned()));
    let pipeline = hlsl::PipelineOptions { entry_point };
    let mut source = String::new();
    let mut names = hlsl::Writer::new(&mut source, &options, &pipeline)
        .write(shader.module, shader.info, None)
        .map_err(text)?
        .entry_point_names;
    let name = names.pop().ok_or("no entry point was written")?.map_err(text)?;
    Ok((source, name))
}

/// Writes MSL.
pub(crate) fn msl(shader: &Shader<'_>, lang_version: (u8, u8)) -> Result<String, String> {
    let resources = shader.slots.iter().zip(0..).map(|(slot, buffer)| {
        let mutable = slot.kind == Kind::Storage;
        (slot.at, msl::BindTarget { buffer: Some(buffer), mutable, ..Default::default() })
    });
    let sizes = shader.slots.len();
    if sizes + 2 > METAL_BUFFERS {
        return Err(format!("{sizes} buffers, but Metal allows {}", METAL_BUFFERS - 2));
    }
    let resources = msl::EntryPointResources {
        resources: resources.collect(),
        immediates_buffer: None,
        sizes_buffer: Some(sizes as u8),
    };
    let restrict = BoundsCheckPolicy::Restrict;
    let options = msl::Options {
        lang_version,
        per_entry_point_map: [(shader.entry_point.to_owned(), resources)].into_iter().collect(),
        fake_missing_bindings: false,
        bounds_check_policies: policies(restrict, restrict),
        zero_initialize_workgroup_memory: false,
        ..msl::Options::default()
    };
    let pipeline = msl::PipelineOptions {
        entry_point: Some((ShaderStage::Compute, shader.entry_point.to_owned())),
        vertex_pulling_transform: true,
        ..msl::PipelineOptions::default()
    };
    let (source, info) =
        msl::write_string(shader.module, shader.info, &options, &pipeline).map_err(text)?;
    match info.entry_point_names.as_slice() {
        [Ok(_)] => Ok(source),
        [Err(error)] => Err(text(error)),
        names => Err(format!("{} entry points were written", names.len())),
    }
}

/// GLSL ES, for the GL backend; GL checks bounds of buffers itself.
pub(crate) fn glsl(shader: &Shader<'_>, version: u16) -> Result<String, String> {
    let mut next = [0; 2];
    let binding_map = shader.slots.iter().map(|slot| {
        let number = &mut next[usize::from(slot.kind == Kind::Uniform)];
        *number += 1;
        (slot.at, *number - 1)
    });
    let options = glsl::Options {
        version: glsl::Version::new_gles(version),
        writer_flags: glsl::WriterFlags::ADJUST_COORDINATE_SPACE
            | glsl::WriterFlags::FORCE_POINT_SIZE,
        binding_map: binding_map.collect(),
        zero_initialize_workgroup_memory: false,
    };
    let pipeline = glsl::PipelineOptions {
        shader_stage: ShaderStage::Compute,
        entry_point: shader.entry_point.to_owned(),
        multiview: None,
    };
    let unchecked = BoundsCheckPolicy::Unchecked;
    let mut source = String::new();
    let policies = policies(unchecked, unchecked);
    glsl::Writer::new(&mut source, shader.module, shader.info, &options, &pipeline, policies)
        .map_err(text)?
        .write()
        .map_err(text)?;
    Ok(source)
}
