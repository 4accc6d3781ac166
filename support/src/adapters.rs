//! The adapters of this machine.

/// An adapter, with a name short enough for a test's name.
#[derive(Clone, Debug)]
pub struct Gpu {
    pub name: String,
    pub instance: wgpu::Instance,
    pub adapter: wgpu::Adapter,
}

/// The backends that `WGPU_BACKEND` names, separated by commas, or the platform's first-class ones
/// (Vulkan, Metal, DX12).
///
/// # Errors
///
/// A value with a name in it that wgpu does not know. wgpu itself leaves such names out, and finds no
/// adapter if no other is left.
pub fn backends() -> Result<wgpu::Backends, String> {
    let Some(value) = std::env::var_os("WGPU_BACKEND") else {
        return Ok(wgpu::Backends::PRIMARY);
    };
    let value = value.to_string_lossy();
    let unknown = |name: &&str| wgpu::Backends::from_comma_list(name).is_empty();
    match value.split(',').find(unknown) {
        None => Ok(wgpu::Backends::from_comma_list(&value)),
        Some(name) => Err(format!(
            "WGPU_BACKEND is {value:?}, and {:?} is not a backend; known are vulkan (vk), metal \
             (mtl), dx12 (d3d12), gl (gles, opengl), webgpu and noop, separated by commas",
            name.trim()
        )),
    }
}

/// Every adapter of the [`backends`]; none if they are misspelt.
pub fn adapters() -> Vec<Gpu> {
    backends().map(adapters_of).unwrap_or_default()
}

/// Every adapter of some backends.
pub fn adapters_of(backends: wgpu::Backends) -> Vec<Gpu> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends,
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    pollster::block_on(instance.enumerate_adapters(backends))
        .into_iter()
        .map(|adapter| {
            let info = adapter.get_info();
            let word = info.name.split_whitespace().next().unwrap_or("unnamed");
            let name = match info.backend {
                // The same driver may be there as a Vulkan adapter.
                wgpu::Backend::Gl => format!("{word} GL"),
                _ => word.to_owned(),
            };
            Gpu { name, instance: instance.clone(), adapter }
        })
        .collect()
}

/// A device with WebGPU's default limits and no feature: what a page in a browser gets.
pub fn webgpu_device(gpu: &Gpu) -> Result<(wgpu::Device, wgpu::Queue), String> {
    let required_limits = wgpu::Limits::default();
    let descriptor = wgpu::DeviceDescriptor { required_limits, ..Default::default() };
    let opened = pollster::block_on(gpu.adapter.request_device(&descriptor));
    let (device, queue) = opened.map_err(|error| error.to_string())?;
    let limits = device.limits();
    let granted = [
        u64::from(limits.max_storage_buffers_per_shader_stage),
        limits.max_storage_buffer_binding_size,
        u64::from(limits.min_storage_buffer_offset_alignment),
        u64::from(limits.max_compute_invocations_per_workgroup),
        u64::from(limits.max_compute_workgroups_per_dimension),
    ];
    // By the standard; a device that grants more would prove nothing.
    if granted == [8, 1 << 27, 256, 256, 65_535] && device.features().is_empty() {
        Ok((device, queue))
    } else {
        Err(format!("{granted:?} granted, and {:?}", device.features()))
    }
}
