//! The adapters of this machine.

/// An adapter, with a name short enough for a test's name.
#[derive(Clone, Debug)]
pub struct Gpu {
    pub name: String,
    pub instance: wgpu::Instance,
    pub adapter: wgpu::Adapter,
}

/// Every adapter of the platform's first-class APIs (Vulkan, Metal, DX12).
pub fn adapters() -> Vec<Gpu> {
    let backends = wgpu::Backends::PRIMARY;
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends,
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    pollster::block_on(instance.enumerate_adapters(backends))
        .into_iter()
        .map(|adapter| {
            let info = adapter.get_info();
            let word = info.name.split_whitespace().next().unwrap_or("unnamed").to_owned();
            Gpu { name: word, instance: instance.clone(), adapter }
        })
        .collect()
}
