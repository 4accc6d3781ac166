//! Adapters to test on, and tests that show as ignored where there is none.

use libtest_mimic::{Arguments, Failed, Trial};

/// A test on one adapter.
pub type Test = fn(&Gpu) -> Result<(), String>;

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

/// One trial for each test and adapter. Where no adapter is found, each test stands once: ignored,
/// or failing under `CI`, where a driver must be there.
pub fn trials(tests: &[(&str, Test)]) -> Vec<Trial> {
    let adapters = adapters();
    if adapters.is_empty() {
        let in_ci = std::env::var_os("CI").is_some();
        let missing = || Err(Failed::from("no GPU adapter; scripts/test.sh installs one"));
        return tests
            .iter()
            .map(|(name, _)| {
                Trial::test(format!("{name} [no adapter]"), missing).with_ignored_flag(!in_ci)
            })
            .collect();
    }
    let trial = |gpu: &Gpu, name: &str, test: Test| {
        let (title, gpu) = (format!("{name} [{}]", gpu.name), gpu.clone());
        Trial::test(title, move || test(&gpu).map_err(Failed::from))
    };
    adapters
        .iter()
        .flat_map(|gpu| tests.iter().map(move |(name, test)| trial(gpu, name, *test)))
        .collect()
}

/// Runs trials as `cargo test` would: one at a time, for they share devices and cores. Says first
/// which adapters there are.
pub fn run(trials: Vec<Trial>) -> ! {
    let mut arguments = Arguments::from_args();
    if !arguments.list {
        for gpu in adapters() {
            let wgpu::AdapterInfo { name, driver, driver_info, backend, .. } =
                gpu.adapter.get_info();
            println!("adapter [{}]: {name}, driver {driver} {driver_info}, {backend}", gpu.name);
        }
    }
    arguments.test_threads.get_or_insert(1);
    libtest_mimic::run(&arguments, trials).exit()
}
