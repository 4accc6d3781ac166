//! Finding this machine's adapters.

/// An adapter, with a name short enough for a test's name.
#[derive(Clone, Debug)]
pub struct Gpu {
    pub name: String,
    pub instance: wgpu::Instance,
    pub adapter: wgpu::Adapter,
}

/// Returns the backends that `WGPU_BACKEND` names, separated by commas; by default Vulkan, Metal and DX12.
///
/// # Errors
///
/// A value with an unknown name. wgpu itself ignores unknown names, and then finds no adapter.
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

/// Returns every adapter of the [`backends`], and none if `WGPU_BACKEND` is invalid.
pub fn adapters() -> Vec<Gpu> {
    backends().map(adapters_of).unwrap_or_default()
}

/// Returns every adapter of some backends.
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
                // The same driver may also be a Vulkan adapter.
                wgpu::Backend::Gl => format!("{word} GL"),
                _ => word.to_owned(),
            };
            Gpu { name, instance: instance.clone(), adapter }
        })
        .collect()
}

/// Opens a device with WebGPU's default limits and without features, as a web page gets it.
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
    // Checked, because a device with higher limits would not test WebGPU's defaults.
    if granted == [8, 1 << 27, 256, 256, 65_535] && device.features().is_empty() {
        Ok((device, queue))
    } else {
        Err(format!("{granted:?} granted, and {:?}", device.features()))
    }
}
