//! The adapters of this machine.

/// An adapter, with a name short enough for a test's name.
#[derive(Clone, Debug)]
pub struct Gpu {
    pub name: String,
    pub instance: wgpu::Instance,
    pub adapter: wgpu::Adapter,
}

/// Every adapter of the APIs that `WGPU_BACKEND` names, or of the platform's first-class ones (Vulkan,
/// Metal, DX12).
pub fn adapters() -> Vec<Gpu> {
    let backends = wgpu::Backends::PRIMARY.with_env();
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
