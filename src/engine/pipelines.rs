//! Compute pipelines: one per [`Specialisation`], compiled at first use and kept.

use super::error::EngineError;
use crate::layout::{self, Access, Specialisation, Stage, Width};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

struct StageObjects {
    /// By [`Width::ALL`].
    modules: [wgpu::ShaderModule; 2],
    bind_group_layout: wgpu::BindGroupLayout,
    pipeline_layout: wgpu::PipelineLayout,
}

pub(crate) struct Pipelines {
    device: wgpu::Device,
    workgroup: u32,
    stages: HashMap<Stage, StageObjects>,
    compiled: Mutex<HashMap<Specialisation, wgpu::ComputePipeline>>,
}

impl Pipelines {
    pub(crate) fn new(device: &wgpu::Device, workgroup: u32) -> Result<Self, EngineError> {
        let mut stages = HashMap::new();
        for stage in Stage::ALL {
            let objects = scoped(device, stage.entry_point(), || stage_objects(device, stage))?;
            stages.insert(stage, objects);
        }
        Ok(Self { device: device.clone(), workgroup, stages, compiled: Mutex::default() })
    }

    pub(crate) fn bind_group_layout(&self, stage: Stage) -> &wgpu::BindGroupLayout {
        &self.stages[&stage].bind_group_layout
    }

    pub(crate) fn get(
        &self,
        specialisation: Specialisation,
    ) -> Result<wgpu::ComputePipeline, EngineError> {
        // A panic elsewhere cannot leave a half-written map: insertion is the last thing done.
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipeline) = compiled.get(&specialisation) {
            return Ok(pipeline.clone());
        }
        let label = format!("wsam.{specialisation:?}");
        let stage = specialisation.stage();
        let objects = &self.stages[&stage];
        let pipeline = scoped(&self.device, &label, || {
            self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(&label),
                layout: Some(&objects.pipeline_layout),
                module: &objects.modules[specialisation.width() as usize],
                entry_point: Some(stage.entry_point()),
                compilation_options: wgpu::PipelineCompilationOptions {
                    constants: &specialisation.constants(self.workgroup),
                    // Every element of the reduction's array is written before it is read.
                    zero_initialize_workgroup_memory: false,
                },
                cache: None,
            })
        })?;
        compiled.insert(specialisation, pipeline.clone());
        Ok(pipeline)
    }
}

fn stage_objects(device: &wgpu::Device, stage: Stage) -> StageObjects {
    let label = format!("wsam.{}", stage.entry_point());
    let modules = Width::ALL.map(|width| {
        device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some(&label),
            source: wgpu::ShaderSource::Wgsl(layout::source(stage, width).into()),
        })
    });
    let entries: Vec<_> = layout::bindings(stage)
        .iter()
        .map(|binding| wgpu::BindGroupLayoutEntry {
            binding: binding.number,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: match binding.access {
                    Access::Uniform(_) => wgpu::BufferBindingType::Uniform,
                    Access::Table => wgpu::BufferBindingType::Storage { read_only: true },
                    Access::Tensor => wgpu::BufferBindingType::Storage { read_only: false },
                },
                has_dynamic_offset: false,
                min_binding_size: None,
            },
            count: None,
        })
        .collect();
    let bind_group_layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
        label: Some(&label),
        entries: &entries,
    });
    let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: Some(&label),
        bind_group_layouts: &[Some(&bind_group_layout)],
        immediate_size: 0,
    });
    StageObjects { modules, bind_group_layout, pipeline_layout }
}

/// Turns a validation error of `create` into a value; wgpu would otherwise panic.
fn scoped<T>(
    device: &wgpu::Device,
    kernel: &str,
    create: impl FnOnce() -> T,
) -> Result<T, EngineError> {
    let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
    let created = create();
    match pollster::block_on(scope.pop()) {
        None => Ok(created),
        Some(error) => {
            Err(EngineError::Pipeline { kernel: kernel.to_owned(), reason: error.to_string() })
        }
    }
}
