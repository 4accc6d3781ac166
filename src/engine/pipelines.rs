//! The cache of compute pipelines: one for each [`Specialisation`], compiled at first use.

use super::error::EngineError;
use super::memory::with_error_scopes;
use crate::layout::{
    self, Access, BufferSets, Specialisation, Stage, Width, column_binding, for_buffer_sets,
};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

pub(crate) struct Pipelines {
    device: wgpu::Device,
    workgroup: u32,
    /// Layout of bind group 1 of the stages without a layout of their own below.
    pub(crate) step_layout: wgpu::BindGroupLayout,
    /// Layout of bind group 1 of `norm_finish`.
    pub(crate) finish_layout: wgpu::BindGroupLayout,
    /// Layout of bind group 1 of `norm_and_finish`.
    pub(crate) norm_layout: wgpu::BindGroupLayout,
    /// Layout of bind group 1 of `check`.
    pub(crate) check_layout: wgpu::BindGroupLayout,
    /// Layout of bind group 1 of `coefficients`.
    pub(crate) coefficients_layout: wgpu::BindGroupLayout,
    compiled: Mutex<Compiled>,
}

#[derive(Default)]
struct Compiled {
    modules: HashMap<(Stage, Width, BufferSets), wgpu::ShaderModule>,
    /// Keyed by specialisation and workgroup size.
    pipelines: HashMap<(Specialisation, u32), (wgpu::ComputePipeline, wgpu::BindGroupLayout)>,
}

impl Pipelines {
    pub(crate) fn new(device: &wgpu::Device, workgroup: u32) -> Result<Self, EngineError> {
        let mut modules = HashMap::new();
        for stage in Stage::ALL.into_iter().filter(|stage| !stage.is_of_relatives()) {
            // Half precision is compiled at first use.
            for width in [Width::Wide, Width::Narrow] {
                let key = (stage, width, BufferSets::SINGLE);
                let make = || module(device, key);
                modules.insert(key, with_error_scopes(device, stage.entry_point(), make)?);
            }
        }
        let dynamic = |binding| entry(binding, wgpu::BufferBindingType::Uniform, true);
        let fixed = |binding| entry(binding, wgpu::BufferBindingType::Uniform, false);
        let storage = wgpu::BufferBindingType::Storage { read_only: false };
        let layout = |label, entries: &[_]| {
            let label = Some(label);
            device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label, entries })
        };
        let step = [dynamic(0), fixed(1), fixed(2), dynamic(3)];
        let norms = entry(layout::NORMS.number, storage, false);
        Ok(Self {
            device: device.clone(),
            workgroup,
            step_layout: layout("wsam.step", &step),
            finish_layout: layout("wsam.norm_finish.step", &[fixed(4), norms]),
            norm_layout: layout(
                "wsam.norm_and_finish.step",
                &[dynamic(0), dynamic(3), fixed(4), norms],
            ),
            check_layout: layout("wsam.check.step", &[dynamic(0), norms]),
            coefficients_layout: layout(
                "wsam.coefficients.step",
                &[dynamic(3), fixed(4), norms, entry(layout::COEFFICIENTS.number, storage, false)],
            ),
            compiled: Mutex::new(Compiled { modules, pipelines: HashMap::new() }),
        })
    }

    /// Returns a pipeline with the engine's workgroup size, and the layout of its bind group 0.
    pub(crate) fn get(
        &self,
        specialisation: Specialisation,
    ) -> Result<(wgpu::ComputePipeline, wgpu::BindGroupLayout), EngineError> {
        self.get_sized(specialisation, self.workgroup)
    }

    /// Returns a pipeline with the given workgroup size, which the device must support.
    pub(crate) fn get_sized(
        &self,
        specialisation: Specialisation,
        workgroup: u32,
    ) -> Result<(wgpu::ComputePipeline, wgpu::BindGroupLayout), EngineError> {
        // A poisoned lock is safe to use: an entry is inserted only when it is complete.
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = compiled.pipelines.get(&(specialisation, workgroup)) {
            return Ok(found.clone());
        }
        let Specialisation { kernel, width, buffer_sets } = specialisation;
        let stage = kernel.stage();
        let label = format!("wsam.{specialisation:?}");
        let key = (stage, width, buffer_sets);
        let module = match compiled.modules.get(&key) {
            Some(module) => module.clone(),
            None => {
                let made = with_error_scopes(&self.device, &label, || module(&self.device, key))?;
                compiled.modules.insert(key, made.clone());
                made
            }
        };
        let made = with_error_scopes(&self.device, &label, || {
            self.pipeline(&module, specialisation, workgroup, &label)
        })?;
        compiled.pipelines.insert((specialisation, workgroup), made.clone());
        Ok(made)
    }

    fn pipeline(
        &self,
        module: &wgpu::ShaderModule,
        specialisation: Specialisation,
        workgroup: u32,
        label: &str,
    ) -> (wgpu::ComputePipeline, wgpu::BindGroupLayout) {
        let stage = specialisation.kernel.stage();
        let entries: Vec<_> = layout::bindings(stage, specialisation.width)
            .iter()
            .filter(|slot| slot.group == 0)
            .flat_map(|slot| {
                let read_only = slot.access == Access::Table;
                let ty = wgpu::BufferBindingType::Storage { read_only };
                let copies = copies(slot.number, specialisation.buffer_sets);
                copies.map(move |binding| entry(binding, ty, false))
            })
            .collect();
        let group_layout = self.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: Some(label),
            entries: &entries,
        });
        let step_layout = match stage {
            Stage::NormFinish => &self.finish_layout,
            Stage::NormAndFinish => &self.norm_layout,
            Stage::Check => &self.check_layout,
            Stage::Coefficients => &self.coefficients_layout,
            _ => &self.step_layout,
        };
        let layout = self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(label),
            bind_group_layouts: &[Some(&group_layout), Some(step_layout)],
            immediate_size: 0,
        });
        let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(label),
            layout: Some(&layout),
            module,
            entry_point: Some(stage.entry_point()),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &specialisation.constants(workgroup),
                // `workgroup_sum` writes every element of its arrays before it reads them.
                zero_initialize_workgroup_memory: false,
            },
            cache: None,
        });
        (pipeline, group_layout)
    }
}

/// Returns the bindings, over all buffer sets, that correspond to binding `number` of a single buffer set.
fn copies(number: u32, buffer_sets: BufferSets) -> impl Iterator<Item = u32> {
    let column = number.checked_sub(column_binding(0, 0)).map(|column| column as usize);
    let column = column.filter(|column| *column < layout::COLUMNS);
    let count = if column.is_some_and(|c| buffer_sets.varies(c)) { buffer_sets.count } else { 1 };
    (0..count).map(move |buffer_set| match column {
        Some(column) => column_binding(column, buffer_set),
        None => number,
    })
}

/// The layout entry of a read-write storage buffer.
pub(crate) fn storage_entry(binding: u32) -> wgpu::BindGroupLayoutEntry {
    entry(binding, wgpu::BufferBindingType::Storage { read_only: false }, false)
}

fn entry(
    binding: u32,
    ty: wgpu::BufferBindingType,
    has_dynamic_offset: bool,
) -> wgpu::BindGroupLayoutEntry {
    wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset, min_binding_size: None },
        count: None,
    }
}

fn module(
    device: &wgpu::Device,
    (stage, width, buffer_sets): (Stage, Width, BufferSets),
) -> wgpu::ShaderModule {
    let source = layout::source(stage, width);
    let source = match buffer_sets {
        BufferSets::SINGLE => source.into(),
        buffer_sets => for_buffer_sets(source, buffer_sets).into(),
    };
    device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: Some(stage.entry_point()),
        source: wgpu::ShaderSource::Wgsl(source),
    })
}
